"""How much disk everything takes. Engine API, SystemDataUsage."""

from __future__ import annotations

from naru.api.build import BuildCache
from naru.api.container import ContainerSummary
from naru.api.image import ImageSummary
from naru.api.volume import Volume
from naru.api.wire import Wire, always


class Usage(Wire):
    """What all objects of one kind take: `reclaimable` is the part that no active one needs. Sizes in bytes."""

    active_count: int = always(0)
    total_count: int = always(0)
    reclaimable: int = always(0)
    total_size: int = always(0)


class ImagesUsage(Usage):
    """`total_size` counts shared layers once."""

    items: list[ImageSummary] | None = None


class ContainersUsage(Usage):
    items: list[ContainerSummary] | None = None


class VolumesUsage(Usage):
    items: list[Volume] | None = None


class BuildCacheUsage(Usage):
    items: list[BuildCache] | None = None


class DiskUsage(Wire):
    """None for a kind that was not asked for."""

    image_usage: ImagesUsage | None = None
    container_usage: ContainersUsage | None = None
    volume_usage: VolumesUsage | None = None
    build_cache_usage: BuildCacheUsage | None = None
