"""What the options of a spec's mount mean: attributes of the mount, its propagation, and the filesystem's own data.

OCI runtime-spec, config.md, Linux mount options; mount(8).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from naru.kernel import mount as m

# option -> (attributes set, attributes cleared)
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (m.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, m.MOUNT_ATTR_RDONLY),
    "nosuid": (m.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, m.MOUNT_ATTR_NOSUID),
    "nodev": (m.MOUNT_ATTR_NODEV, 0),
    "dev": (0, m.MOUNT_ATTR_NODEV),
    "noexec": (m.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, m.MOUNT_ATTR_NOEXEC),
    "noatime": (m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
    "atime": (0, m.MOUNT_ATTR__ATIME),
    "relatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "norelatime": (0, m.MOUNT_ATTR__ATIME),
    "strictatime": (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
    "nostrictatime": (0, m.MOUNT_ATTR__ATIME),
    "nodiratime": (m.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, m.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, m.MOUNT_ATTR_NOSYMFOLLOW),
}
# The same with a leading "r": for the whole subtree.
_RECURSIVE = {f"r{name}": bits for name, bits in _ATTRIBUTES.items()}
_PROPAGATION = {
    "private": (m.MS_PRIVATE, False),
    "rprivate": (m.MS_PRIVATE, True),
    "slave": (m.MS_SLAVE, False),
    "rslave": (m.MS_SLAVE, True),
    "shared": (m.MS_SHARED, False),
    "rshared": (m.MS_SHARED, True),
    "unbindable": (m.MS_UNBINDABLE, False),
    "runbindable": (m.MS_UNBINDABLE, True),
}
# Flags that fsconfig takes for the superblock of a new filesystem.
_SUPERBLOCK = ("sync", "dirsync", "mand", "lazytime")
_IGNORED = ("defaults", "async", "nomand", "nolazytime", "iversion", "noiversion", "silent", "loud", "remount", "acl")

KNOWN_OPTIONS = (frozenset(_ATTRIBUTES) | frozenset(_RECURSIVE) | frozenset(_PROPAGATION) | frozenset(_SUPERBLOCK)) | {
    "bind",
    "rbind",
    "tmpcopyup",
    "defaults",
}


class Options(Struct, frozen=True):
    """One mount's options, sorted out. `data` is what the filesystem itself gets; a flag has the value None."""

    attr_set: int = 0
    attr_clr: int = 0
    recursive_set: int = 0
    recursive_clr: int = 0
    propagation: tuple[tuple[int, bool], ...] = ()
    bind: bool = False
    recursive_bind: bool = False
    copy_up: bool = False
    idmap: bool = False
    data: tuple[tuple[str, str | None], ...] = ()


def parse_options(options: Sequence[str]) -> Options:
    """Return `options` by meaning, later ones winning over earlier; what is not known here is data."""
    attr_set = attr_clr = recursive_set = recursive_clr = 0
    propagation: list[tuple[int, bool]] = []
    bind = recursive_bind = copy_up = idmap = False
    data: list[tuple[str, str | None]] = []
    for option in options:
        if option in _ATTRIBUTES:
            on, off = _ATTRIBUTES[option]
            attr_set, attr_clr = (attr_set & ~off) | on, (attr_clr & ~on) | off
        elif option in _RECURSIVE:
            on, off = _RECURSIVE[option]
            recursive_set, recursive_clr = (recursive_set & ~off) | on, (recursive_clr & ~on) | off
        elif option in _PROPAGATION:
            propagation.append(_PROPAGATION[option])
        elif option in ("bind", "rbind"):
            bind, recursive_bind = True, recursive_bind or option == "rbind"
        elif option == "tmpcopyup":
            copy_up = True
        elif option in ("idmap", "ridmap"):
            idmap = True
        elif option in _SUPERBLOCK:
            data.append((option, None))
        elif option not in _IGNORED and option:
            key, separator, value = option.partition("=")
            data.append((key, value if separator else None))
    return Options(
        attr_set=attr_set,
        attr_clr=attr_clr,
        recursive_set=recursive_set,
        recursive_clr=recursive_clr,
        propagation=tuple(propagation),
        bind=bind,
        recursive_bind=recursive_bind,
        copy_up=copy_up,
        idmap=idmap,
        data=tuple(data),
    )


def propagation_flags(name: str) -> tuple[int, bool] | None:
    """Return (MS_ flag, whether recursive) for a propagation's name, or None if it is not one."""
    return _PROPAGATION.get(name)
