"""openat2(2): open a path that somebody else controls without leaving a directory.

Every path that an image or a container can influence is opened here, then used by file descriptor.
"""

from __future__ import annotations

import ctypes
import errno
import os

from naru.kernel.libc import syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_openat2 = syscall("openat2", 437, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, path=1)


def openat2(dir_fd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open `path` below `dir_fd` and return a close-on-exec descriptor that the caller owns.

    With RESOLVE_IN_ROOT `dir_fd` acts as the root directory: `..` and absolute symlinks stay inside it.
    OSError: EXDEV or ELOOP where `resolve` forbids a step; EAGAIN is retried (a rename raced with `..`).
    openat2(2)
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _attempt in range(128):
        try:
            return _openat2(dir_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
    raise OSError(errno.EAGAIN, "openat2: the path kept changing", path)
