"""How much disk everything takes. Engine API, SystemDataUsage."""

from __future__ import annotations

from naru.api.build import BuildCache
from naru.api.container import ContainerSummary
from naru.api.image import ImageSummary
from naru.api.volume import Volume
from naru.api.wire import Wire, always


class DiskUsage(Wire):
    """None for a kind that was not asked for; sizes in bytes, `layers_size` with shared layers counted once."""

    layers_size: int = always(0)
    images: list[ImageSummary] | None = always(None)
    containers: list[ContainerSummary] | None = always(None)
    volumes: list[Volume] | None = always(None)
    build_cache: list[BuildCache] | None = always(None)
