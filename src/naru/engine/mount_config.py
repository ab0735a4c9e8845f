"""One mount as it was asked for, `-v` or `--mount`, checked and made into the mount a container gets. Pure.

Docker's rules and words: what belongs to another type is refused, and so is what cannot be a path. Engine API, Mount.
"""

from __future__ import annotations

import posixpath

from naru.api.container import MountPoint
from naru.api.host import Mount
from naru.engine.tmpfs import mount_options as tmpfs_options
from naru.errors import InvalidArgument

_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
# Of each kind a `-v` takes one. SELinux labels, and the hints of Docker Desktop, change nothing here.
_KINDS = ({"ro", "rw"}, _PROPAGATIONS, {"z", "Z"}, {"nocopy"}, {"cached", "delegated", "consistent", "default"})
_EXTRAS = {
    "bind": ("VolumeOptions", "ImageOptions", "TmpfsOptions"),
    "volume": ("BindOptions", "ImageOptions", "TmpfsOptions"),
    "tmpfs": ("BindOptions", "VolumeOptions", "ImageOptions"),
    "image": ("BindOptions", "VolumeOptions", "TmpfsOptions"),
}
_ATTRIBUTES = {
    "BindOptions": "bind_options",
    "VolumeOptions": "volume_options",
    "ImageOptions": "image_options",
    "TmpfsOptions": "tmpfs_options",
}


def parse_bind(text: str) -> MountPoint:
    """Return the mount of one `-v` value: `[SOURCE:]DESTINATION[:OPTIONS]`. InvalidArgument in Docker's words."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or "" in parts:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, destination, mode = ("", parts[0], "") if len(parts) == 1 else (parts[0], parts[1], ":".join(parts[2:]))
    kind = "bind" if source.startswith("/") else "volume"
    options = parse_mode(mode)
    propagation = next((option for option in options if option in _PROPAGATIONS), "")
    try:
        destination = _destination(kind, destination)
        if kind == "volume" and propagation:
            raise _wrong(kind, "field BindOptions must not be specified")
        if kind == "bind" and "nocopy" in options:
            raise _wrong(kind, "field VolumeOptions must not be specified")
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid volume specification: '{text}': {error}") from None
    if kind == "bind":
        return MountPoint(
            type="bind",
            source=posixpath.normpath(source),
            destination=destination,
            mode=mode,
            rw="ro" not in options,
            propagation=propagation or "rprivate",
        )
    return MountPoint(
        type="volume",
        name=source,
        destination=destination,
        driver="local",
        mode=mode or ("z" if source else ""),
        rw="ro" not in options,
    )


def parse_mode(mode: str) -> set[str]:
    """Return the options of a `-v` or `--volumes-from`, at most one of each kind. InvalidArgument: others."""
    options = mode.split(",") if mode else []
    for option in options:
        if not any(option in kind for kind in _KINDS):
            raise InvalidArgument(f"invalid mode: {mode}")
    if any(sum(option in kind for option in options) > 1 for kind in _KINDS):
        raise InvalidArgument(f"invalid mode: {mode}")
    return set(options)


def from_mount(mount: Mount) -> MountPoint:
    """Return the mount of one `--mount` value. InvalidArgument in Docker's words."""
    if mount.type not in _EXTRAS:
        raise _wrong(mount.type, "mount type unknown")
    if not mount.target:
        raise _wrong(mount.type, "field Target must not be empty")
    destination = _destination(mount.type, mount.target)
    for name in _EXTRAS[mount.type]:
        if getattr(mount, _ATTRIBUTES[name]) is not None:
            raise _wrong(mount.type, f"field {name} must not be specified")
    match mount.type:
        case "bind":
            return _bind(mount, destination)
        case "volume":
            return _volume(mount, destination)
        case "image":
            return _image(mount, destination)
    if mount.source:
        raise _wrong("tmpfs", "field Source must not be specified")
    options = tmpfs_options(mount.tmpfs_options, read_only=mount.read_only)
    return MountPoint(type="tmpfs", destination=destination, mode=",".join(options), rw=not mount.read_only)


def _bind(mount: Mount, destination: str) -> MountPoint:
    if not mount.source:
        raise _wrong("bind", "field Source must not be empty")
    if not mount.source.startswith("/"):
        raise _wrong("bind", f"invalid mount path: '{mount.source}' mount path must be absolute")
    propagation = ""
    if mount.bind_options is not None:
        propagation = mount.bind_options.propagation
        if propagation and propagation not in _PROPAGATIONS:
            raise _wrong("bind", f"invalid propagation mode: {propagation}")
        if mount.bind_options.read_only_non_recursive and mount.bind_options.read_only_force_recursive:
            raise _wrong("bind", "ReadOnlyNonRecursive and ReadOnlyForceRecursive must not both be specified")
    return MountPoint(
        type="bind",
        source=posixpath.normpath(mount.source),
        destination=destination,
        rw=not mount.read_only,
        propagation=propagation or "rprivate",
    )


def _volume(mount: Mount, destination: str) -> MountPoint:
    options = mount.volume_options
    if not mount.source and mount.read_only:
        raise _wrong("volume", "must not set ReadOnly mode when using anonymous volumes")
    if options is not None and options.subpath:
        if not mount.source:
            raise _wrong("volume", "must not set Subpath when using anonymous volumes")
        _check_subpath("volume", options.subpath)
    driver = options.driver_config if options is not None else None
    if driver is not None and driver.name not in ("", "local"):
        raise InvalidArgument(f'error looking up volume plugin {driver.name}: plugin "{driver.name}" not found')
    return MountPoint(
        type="volume",
        name=mount.source,
        destination=destination,
        driver="local",
        mode="z",
        rw=not mount.read_only,
    )


def _image(mount: Mount, destination: str) -> MountPoint:
    if not mount.source:
        raise _wrong("image", "field Source must not be empty")
    if mount.image_options is not None and mount.image_options.subpath:
        _check_subpath("image", mount.image_options.subpath)
    return MountPoint(type="image", name=mount.source, destination=destination)


def _check_subpath(kind: str, subpath: str) -> None:
    """A subpath may go down only; what it resolves to is looked at when it is mounted."""
    if subpath.startswith("/") or ".." in subpath.split("/") or "\0" in subpath:
        raise _wrong(kind, f"subpath must be a relative path within the {kind}")


def _destination(kind: str, path: str) -> str:
    if not path.startswith("/"):
        raise _wrong(kind, f"invalid mount path: '{path}' mount path must be absolute")
    path = posixpath.normpath(path)
    if path.strip("/") == "":
        raise _wrong(kind, "invalid specification: destination can't be '/'")
    return path


def _wrong(kind: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f'invalid mount config for type "{kind}": {reason}')
