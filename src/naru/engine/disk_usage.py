"""What everything takes on disk, and how much of it nothing active needs. Pure. Engine API, SystemDataUsage."""

from __future__ import annotations

from collections.abc import Sequence

from naru.api.build import BuildCache
from naru.api.container import ContainerSummary
from naru.api.disk import BuildCacheUsage, ContainersUsage, ImagesUsage, VolumesUsage
from naru.api.image import ImageSummary
from naru.api.volume import Volume

_ACTIVE = ("running", "paused", "restarting")


def images_usage(items: Sequence[ImageSummary], layers_size: int) -> ImagesUsage:
    """Return the images'; `layers_size` has shared layers once, so what images in use share is subtracted but once."""
    used = [item for item in items if item.containers > 0]
    return ImagesUsage(
        active_count=len(used),
        total_count=len(items),
        reclaimable=max(0, layers_size - sum(item.size for item in used)),
        total_size=layers_size,
        items=list(items),
    )


def containers_usage(items: Sequence[ContainerSummary]) -> ContainersUsage:
    """Return the containers' writable layers."""
    active = [item for item in items if item.state in _ACTIVE]
    total = sum(item.size_rw or 0 for item in items)
    return ContainersUsage(
        active_count=len(active),
        total_count=len(items),
        reclaimable=total - sum(item.size_rw or 0 for item in active),
        total_size=total,
        items=list(items),
    )


def volumes_usage(items: Sequence[Volume]) -> VolumesUsage:
    """Return the volumes'; whoever has a container, running or not, is active."""
    known = [(item.usage_data.ref_count, item.usage_data.size) for item in items if item.usage_data is not None]
    total = sum(size for _, size in known)
    return VolumesUsage(
        active_count=sum(references > 0 for references, _ in known),
        total_count=len(items),
        reclaimable=total - sum(size for references, size in known if references > 0),
        total_size=total,
        items=list(items),
    )


def build_cache_usage(items: Sequence[BuildCache]) -> BuildCacheUsage:
    """Return the build cache's."""
    total = sum(item.size for item in items if not item.shared)
    return BuildCacheUsage(
        active_count=sum(item.in_use for item in items),
        total_count=len(items),
        reclaimable=total - sum(item.size for item in items if item.in_use and not item.shared),
        total_size=total,
        items=list(items),
    )
