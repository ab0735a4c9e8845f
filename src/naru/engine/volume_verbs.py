"""The Engine API's volume operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from naru.api.volume import Volume as WireVolume
from naru.api.volume import VolumeCreateRequest, VolumeList, VolumesPruneReport
from naru.engine.clock import rfc3339
from naru.engine.parts import Parts
from naru.engine.prune import check_filters, is_pruned, truth
from naru.errors import Conflict, InvalidArgument
from naru.volume.volumes import Volume

Filters = Mapping[str, Sequence[str]]


class VolumeVerbs:
    """Volume operations over the engine's parts."""

    parts: Parts

    def volume_list(self, *, filters: Filters | None = None) -> VolumeList:
        """Engine API, VolumeList."""
        filters = filters or {}
        for key in filters:
            if key not in ("dangling", "driver", "label", "name"):
                raise InvalidArgument(f"invalid filter '{key}'")
        found = [volume for volume in self.parts.volumes.list() if self._is_wanted(volume, filters)]
        return VolumeList(volumes=[wire(volume) for volume in found])

    def _is_wanted(self, volume: Volume, filters: Filters) -> bool:
        if truth(filters, "dangling") is bool(self.parts.volumes.users(volume.name)):
            return False
        if filters.get("driver") and "local" not in filters["driver"]:
            return False
        if filters.get("name") and not any(name in volume.name for name in filters["name"]):
            return False
        return is_pruned(volume.labels, volume.created_at, {"label": filters.get("label", ())}, None)

    def volume_create(self, request: VolumeCreateRequest) -> WireVolume:
        """Engine API, VolumeCreate."""
        if request.driver not in ("", "local"):
            raise InvalidArgument(
                f"create {request.name}: error looking up volume plugin {request.driver}: "
                f'plugin "{request.driver}" not found'
            )
        volume = self.parts.volumes.create(
            request.name or None, labels=request.labels or {}, options=request.driver_opts or {}
        )
        self.parts.events.publish("volume", "create", volume.name, {"driver": "local"})
        return wire(volume)

    def volume_inspect(self, name: str) -> WireVolume:
        """Engine API, VolumeInspect."""
        return wire(self.parts.volumes.get(name))

    def volume_delete(self, name: str, *, force: bool = False) -> None:
        """Engine API, VolumeDelete."""
        users = self.parts.volumes.users(name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        self.parts.volumes.remove(name, force=force)
        self.parts.events.publish("volume", "destroy", name, {"driver": "local"})

    def volume_prune(self, *, filters: Filters | None = None) -> VolumesPruneReport:
        """Engine API, VolumePrune: anonymous volumes only, unless `all=true`."""
        filters = filters or {}
        check_filters(filters, ("all", "label", "label!"))
        everything = bool(truth(filters, "all"))
        deleted, reclaimed = [], 0
        for volume in self.parts.volumes.list():
            if self.parts.volumes.users(volume.name) or not (everything or volume.is_anonymous):
                continue
            if not is_pruned(volume.labels, volume.created_at, filters, None):
                continue
            reclaimed += self.parts.volumes.usage(volume.name)
            self.parts.volumes.remove(volume.name, force=False)
            deleted.append(volume.name)
        return VolumesPruneReport(volumes_deleted=deleted or None, space_reclaimed=reclaimed)


def wire(volume: Volume) -> WireVolume:
    """Return a volume as the API shows it."""
    return WireVolume(
        created_at=rfc3339(volume.created_at)[:19] + "Z",
        labels=dict(volume.labels) or None,
        mountpoint=volume.mountpoint,
        name=volume.name,
        options=dict(volume.options) or None,
    )
