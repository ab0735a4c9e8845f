"""File calls that the standard library lacks: syncfs, and attributes of a path seen through its directory."""

from __future__ import annotations

import ctypes
import os

from naru.kernel.libc import libc_call

_syncfs = libc_call("syncfs", ctypes.c_int)


def syncfs(descriptor: int) -> None:
    """Write everything dirty of the file system that `descriptor` is on to its disk. OSError: EIO. syncfs(2)"""
    _syncfs(descriptor)


def path_at(directory: int, name: bytes) -> bytes:
    """Return a path to `name` in the open `directory`, for calls that take no directory descriptor.

    `name` is one component; do not let the call follow it if it may be a symlink. Needs /proc. proc(5)
    """
    return b"/proc/self/fd/%d/%s" % (directory, name)


def process_umask() -> int:
    """Return this process's umask without changing it, which would race with other threads. proc(5)"""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    raise OSError("/proc/self/status has no Umask line")


def is_whiteout_device(status: os.stat_result) -> bool:
    """Say whether `status` is of the 0/0 character device by which overlayfs hides a lower entry."""
    return (status.st_mode & 0o170000) == 0o020000 and status.st_rdev == 0
