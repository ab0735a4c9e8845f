"""From `-v`, `--mount`, `--volumes-from` and an image's VOLUMEs to the mounts a container gets.

`plan_mounts` is pure: it decides type, source, destination and who wins where two claim one destination (a bind or
named volume over `--volumes-from` over the image's anonymous volume). Making the volumes is left to the caller.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence

from naru.api.container import MountPoint
from naru.api.host import HostConfig, Mount
from naru.errors import InvalidArgument

_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_ACCESS = {"ro", "rw"}
_IGNORED = {"z", "Z", "cached", "delegated", "consistent", "default"}  # SELinux labels; Docker Desktop's hints


def plan_mounts(
    host: HostConfig,
    image_volumes: Sequence[str],
    mounts_of: Callable[[str], Sequence[MountPoint]],
) -> dict[str, MountPoint]:
    """Return the mounts by destination. A volume without a name is anonymous; its source is not known yet.

    `mounts_of` returns another container's mounts, for `--volumes-from`. InvalidArgument: Docker's words for a bad
    specification or two mounts on one destination.
    """
    found: dict[str, MountPoint] = {}
    for entry in host.volumes_from or []:
        name, _, mode = entry.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidArgument(f"invalid mode: {mode}")
        for point in mounts_of(name):
            found[point.destination] = MountPoint(
                type=point.type,
                name=point.name,
                source=point.source,
                destination=point.destination,
                driver=point.driver,
                mode=mode or point.mode,
                rw=point.rw and mode != "ro",
                propagation=point.propagation,
            )
    explicit: dict[str, MountPoint] = {}
    for point in [*map(parse_bind, host.binds or []), *map(_from_mount, host.mounts or [])]:
        if point.destination in explicit:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        explicit[point.destination] = point
    for destination in host.tmpfs or {}:
        if posixpath.normpath(destination) in explicit:
            raise InvalidArgument(f"Duplicate mount point: {destination}")
    found.update(explicit)
    taken = {posixpath.normpath(destination) for destination in host.tmpfs or {}}
    for destination in map(posixpath.normpath, image_volumes):
        if destination not in found and destination not in taken:
            found[destination] = MountPoint(type="volume", destination=destination, driver="local", rw=True)
    return found


def parse_bind(text: str) -> MountPoint:
    """Return the mount of one `-v` value: `[SOURCE:]DESTINATION[:OPTIONS]`. InvalidArgument in Docker's words."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or "" in parts:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, destination, options = ("", parts[0], "") if len(parts) == 1 else (parts[0], parts[1], ":".join(parts[2:]))
    if not destination.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type "
            f"\"{'bind' if source.startswith('/') else 'volume'}\": invalid mount path: '{destination}' "
            "mount path must be absolute"
        )
    destination = posixpath.normpath(destination)
    if destination == "/":
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type "
            f"\"{'bind' if source.startswith('/') else 'volume'}\": invalid specification: destination can't be '/'"
        )
    access, propagation = "rw", ""
    for option in filter(None, options.split(",")):
        if option in _ACCESS:
            access = option
        elif option in _PROPAGATIONS:
            propagation = option
        elif option not in _IGNORED and option != "nocopy":
            raise InvalidArgument(f"invalid mode: {options}")
    if source.startswith("/"):
        return MountPoint(
            type="bind",
            source=posixpath.normpath(source),
            destination=destination,
            mode=options,
            rw=access == "rw",
            propagation=propagation or "rprivate",
        )
    return MountPoint(
        type="volume",
        name=source,
        destination=destination,
        driver="local",
        mode=options or ("z" if source else ""),
        rw=access == "rw",
    )


def _from_mount(mount: Mount) -> MountPoint:
    destination = mount.target
    if not destination.startswith("/"):
        raise InvalidArgument(
            f"invalid mount config for type \"{mount.type}\": invalid mount path: '{destination}' "
            "mount path must be absolute"
            if destination
            else f'invalid mount config for type "{mount.type}": field Target must not be empty'
        )
    destination = posixpath.normpath(destination)
    match mount.type:
        case "bind":
            if not mount.source:
                raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
            if not mount.source.startswith("/"):
                raise InvalidArgument(
                    f"invalid mount config for type \"bind\": invalid mount path: '{mount.source}' "
                    "mount path must be absolute"
                )
            options = mount.bind_options
            return MountPoint(
                type="bind",
                source=posixpath.normpath(mount.source),
                destination=destination,
                rw=not mount.read_only,
                propagation=(options.propagation if options else "") or "rprivate",
            )
        case "volume":
            if mount.volume_options and mount.volume_options.subpath:
                raise InvalidArgument('invalid mount config for type "volume": volume-subpath is not offered yet')
            return MountPoint(
                type="volume",
                name=mount.source,
                destination=destination,
                driver="local",
                mode="z",
                rw=not mount.read_only,
            )
        case "tmpfs":
            return MountPoint(type="tmpfs", destination=destination, mode=_tmpfs_options(mount), rw=not mount.read_only)
        case _:
            raise InvalidArgument(f'invalid mount config for type "{mount.type}": mount type unknown')


def _tmpfs_options(mount: Mount) -> str:
    options = ["noexec", "nosuid", "nodev"]
    if mount.tmpfs_options and mount.tmpfs_options.size_bytes:
        options.append(f"size={mount.tmpfs_options.size_bytes}")
    if mount.tmpfs_options and mount.tmpfs_options.mode:
        options.append(f"mode={mount.tmpfs_options.mode:o}")
    if mount.read_only:
        options.append("ro")
    return ",".join(options)


def wants_copy(host: HostConfig, point: MountPoint) -> bool:
    """True if an empty volume at `point` takes the image's content: not with `nocopy`."""
    if point.type != "volume":
        return False
    if "nocopy" in point.mode.split(","):
        return False
    asked: Mapping[str, Mount] = {posixpath.normpath(mount.target): mount for mount in host.mounts or []}
    mount = asked.get(point.destination)
    return not (mount and mount.volume_options and mount.volume_options.no_copy)
