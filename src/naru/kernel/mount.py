"""The mount system calls: the descriptor-based API (Linux 5.12 and later) and the few older calls still needed.

A *detached* mount is a descriptor from `fsmount` or `open_tree`: it is in no namespace's tree, usable as a
directory descriptor, and dissolves with its last descriptor. No policy here: attributes and flags are the
caller's. mount(2), fsopen(2), open_tree(2), move_mount(2), mount_setattr(2).
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_ulong, c_void_p

from naru.kernel.libc import libc_call, syscall

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_NO_AUTOMOUNT = 0x800
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000

MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# f_type of statfs(2).
PROC_SUPER_MAGIC = 0x9FA0
DEVPTS_SUPER_MAGIC = 0x1CD1
MQUEUE_MAGIC = 0x19800202
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
OVERLAYFS_SUPER_MAGIC = 0x794C7630

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


_mount = libc_call("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p, path=1)
_umount2 = libc_call("umount2", c_char_p, c_int, path=0)
_pivot_root = libc_call("pivot_root", c_char_p, c_char_p, path=0)
_fstatfs = libc_call("fstatfs", c_int, c_void_p)
_fsopen = syscall("fsopen", 430, c_char_p, c_uint, path=0)
_fsconfig = syscall("fsconfig", 431, c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = syscall("fsmount", 432, c_int, c_uint, c_uint)
_open_tree = syscall("open_tree", 428, c_int, c_char_p, c_uint, path=1)
_move_mount = syscall("move_mount", 429, c_int, c_char_p, c_int, c_char_p, c_uint)
_mount_setattr = syscall("mount_setattr", 442, c_int, c_char_p, c_uint, c_void_p, c_size_t, path=1)


def mount(source: str | None, target: str, filesystem: str | None, flags: int, data: str | None = None) -> None:
    """mount(2) as it is: also changes propagation (MS_SLAVE …), binds and moves."""
    _mount(_name(source), os.fsencode(target), _name(filesystem), flags, _name(data))


def umount2(target: str, flags: int = 0) -> None:
    """Unmount what is mounted at `target`; MNT_DETACH takes it off the tree now and lets users finish. umount2(2)"""
    _umount2(os.fsencode(target), flags)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root mount of this mount namespace, moving the old root to `put_old`.

    Both may be "." with the working directory at the new root; the old root then lies on top of it, to be
    detached by `umount2(".", MNT_DETACH)`. OSError: EINVAL if the current root is the initramfs, or if a mount
    involved is shared. pivot_root(2)
    """
    _pivot_root(os.fsencode(new_root), os.fsencode(put_old))


def filesystem_magic(fd: int) -> int:
    """Return the type number of the filesystem that `fd` is on (PROC_SUPER_MAGIC …). fstatfs(2)"""
    buffer = ctypes.create_string_buffer(256)
    _fstatfs(fd, buffer)
    return int.from_bytes(buffer.raw[: ctypes.sizeof(c_ulong)], "little") & 0xFFFFFFFF


def new_mount(filesystem: str, parameters: list[tuple[str, str | None]], attributes: int = 0) -> int:
    """Create a filesystem and return it as a detached mount; a parameter without a value is a flag.

    A value may have at most 255 bytes. The kernel's own explanation, when it gives one, is in the error.
    OSError: ENODEV for an unknown filesystem, EINVAL for a parameter it does not know. fsopen(2)
    """
    context = _fsopen(filesystem.encode(), _FSOPEN_CLOEXEC)
    try:
        for key, value in parameters:
            if value is None:
                _fsconfig(context, _FSCONFIG_SET_FLAG, key.encode(), None, 0)
            else:
                _fsconfig(context, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
        _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _fsmount(context, _FSMOUNT_CLOEXEC, attributes)
    except OSError as error:
        reason = _explanation(context)
        if reason:
            raise OSError(error.errno, f"{error.strerror} ({reason})") from None
        raise
    finally:
        os.close(context)


def open_tree(dir_fd: int, path: str, *, clone: bool, recursive: bool = False, follow: bool = True) -> int:
    """Open the mount at `path` below `dir_fd` (`path` "" means `dir_fd` itself); the caller owns the descriptor.

    With `clone` it is a detached copy of that subtree (what a bind mount attaches), with `recursive` including
    the mounts below. The copy stays in the propagation peer group of its source. open_tree(2)
    """
    flags = _OPEN_TREE_CLOEXEC | (_OPEN_TREE_CLONE if clone else 0) | (AT_RECURSIVE if recursive else 0)
    flags |= AT_EMPTY_PATH if not path else 0
    flags |= 0 if follow else AT_SYMLINK_NOFOLLOW
    return _open_tree(dir_fd, os.fsencode(path), flags)


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach the detached mount `mount_fd` on what `target_fd` refers to.

    OSError: ENOTDIR if one is a directory and the other is not. move_mount(2)
    """
    _move_mount(mount_fd, b"", target_fd, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)


def mount_setattr(
    mount_fd: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    recursive: bool = False,
    userns_fd: int | None = None,
) -> None:
    """Change attributes and propagation of the mount that `mount_fd` is the root of.

    `userns_fd` makes it an ID-mapped mount (detached mounts only). OSError: EINVAL if `mount_fd` is not a
    mount's root. mount_setattr(2)
    """
    if userns_fd is not None:
        attr_set |= MOUNT_ATTR_IDMAP
    attributes = _MountAttr(attr_set, attr_clr, propagation, userns_fd or 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _mount_setattr(mount_fd, b"", flags, ctypes.byref(attributes), ctypes.sizeof(attributes))


def _name(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def _explanation(context: int) -> str:
    """Messages that the kernel logged in a filesystem context, each with a level letter before it."""
    lines = []
    try:
        while message := os.read(context, 4096):
            lines.append(message.decode(errors="replace").strip()[2:])
    except OSError:
        pass
    return "; ".join(lines)
