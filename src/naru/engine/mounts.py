"""From `-v`, `--mount`, `--volumes-from` and an image's VOLUMEs to the mounts a container gets, and to its spec's.

Pure: `plan_mounts` decides type, source, destination and who wins where two claim one destination (a bind or named
volume over `--volumes-from` over the image's anonymous volume). Making and finding the sources is left to
`mount_sources`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from naru.api.container import MountPoint
from naru.api.host import BindOptions, HostConfig, Mount
from naru.engine.container import Container
from naru.engine.mount_config import from_mount, parse_bind, parse_mode
from naru.engine.tmpfs import merge_options
from naru.errors import InvalidArgument
from naru.oci import runtime as oci


@dataclass(frozen=True, slots=True)
class Planned:
    """A mount, and the `--mount` that asked for it: None for a `-v`, and for a volume of the image's."""

    point: MountPoint
    asked: Mount | None = None
    is_inherited: bool = False

    @property
    def subpath(self) -> str:
        """What of the volume or image is mounted, "" for all of it."""
        options = (self.asked.volume_options or self.asked.image_options) if self.asked is not None else None
        return options.subpath if options is not None else ""

    @property
    def wants_copy(self) -> bool:
        """True if an empty volume here takes the image's content: not with `nocopy`, and not a part of a volume."""
        if self.point.type != "volume" or self.is_inherited or "nocopy" in self.point.mode.split(","):
            return False
        options = self.asked.volume_options if self.asked is not None else None
        return options is None or not (options.no_copy or options.subpath)


def plan_mounts(
    host: HostConfig,
    image_volumes: Sequence[str],
    mounts_of: Callable[[str], Sequence[Planned]],
) -> dict[str, Planned]:
    """Return the mounts by destination. A volume without a name is anonymous; its source is not known yet.

    `mounts_of` returns another container's mounts, for `--volumes-from`. InvalidArgument: Docker's words for a bad
    specification or two mounts on one destination.
    """
    found: dict[str, Planned] = {}
    for entry in host.volumes_from or []:
        name, _, mode = entry.partition(":")
        options = parse_mode(mode)
        for planned in mounts_of(name):
            point = replace(planned.point, mode=mode or planned.point.mode, rw=planned.point.rw and "ro" not in options)
            found[point.destination] = Planned(point, planned.asked, is_inherited=True)
    explicit: dict[str, Planned] = {}
    asked = [Planned(parse_bind(text)) for text in host.binds or []]
    asked += [Planned(from_mount(mount), mount) for mount in host.mounts or []]
    for planned in asked:
        destination = planned.point.destination
        if destination in explicit:
            raise InvalidArgument(f"Duplicate mount point: {destination}")
        explicit[destination] = planned
    for destination in host.tmpfs or {}:
        if posixpath.normpath(destination) in explicit:
            raise InvalidArgument(f"Duplicate mount point: {destination}")
    found.update(explicit)
    taken = {posixpath.normpath(destination) for destination in host.tmpfs or {}}
    for destination in map(posixpath.normpath, image_volumes):
        if not destination.startswith("/") or destination == "/":
            raise InvalidArgument(f"invalid volume specification: '{destination}'")
        if destination not in found and destination not in taken:
            found[destination] = Planned(MountPoint(type="volume", destination=destination, driver="local", rw=True))
    return found


def planned_of(container: Container) -> list[Planned]:
    """Return a container's mounts as they were planned."""
    return [Planned(point, container.mount_options.get(point.destination)) for point in container.mounts]


def spec_mounts(container: Container, layers: Mapping[str, Sequence[str]]) -> list[oci.Mount]:
    """Return a container's mounts for its spec; `layers` are the directories of its image mounts, by destination."""
    mounts = [_spec_mount(planned, layers.get(planned.point.destination, ())) for planned in planned_of(container)]
    for destination, text in (container.host_config.tmpfs or {}).items():
        options = merge_options(filter(None, text.split(",")))
        mounts.append(oci.Mount(destination=destination, type="tmpfs", source="tmpfs", options=options))
    return mounts


def _spec_mount(planned: Planned, layers: Sequence[str]) -> oci.Mount:
    point, asked = planned.point, planned.asked
    mount = oci.Mount(destination=point.destination, type="bind", source=point.source, subpath=planned.subpath)
    if point.type == "tmpfs":
        return oci.Mount(destination=point.destination, type="tmpfs", source="tmpfs", options=point.mode.split(","))
    if point.type == "image":
        mount.source, mount.layers, mount.options = "", list(layers), ["rbind", "rprivate", "ro"]
        return mount
    bind = (asked.bind_options if asked is not None else None) or BindOptions()
    mount.options = ["bind" if bind.non_recursive else "rbind", point.propagation or "rprivate"]
    if not point.rw:  # and no "rw" otherwise: what is read-only on the host stays so
        mount.options += ["ro"] if bind.read_only_non_recursive else ["ro", "rro"]  # what is mounted below it, too
    return mount
