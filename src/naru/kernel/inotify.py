"""inotify(7): a descriptor that is readable when something changed in a file or directory."""

from __future__ import annotations

import ctypes
import os

from naru.kernel.libc import libc_call

IN_MODIFY = 0x00000002
IN_CLOSE_WRITE = 0x00000008
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_DELETE_SELF = 0x00000400

_inotify_init1 = libc_call("inotify_init1", ctypes.c_int)
_inotify_add_watch = libc_call("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32, path=1)


def watch(path: str, mask: int) -> int:
    """Return a new non-blocking inotify descriptor that watches `path` for `mask`; the caller closes it.

    OSError: ENOENT; EMFILE when the user's instances (fs.inotify.max_user_instances) are used up.
    """
    descriptor = _inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _inotify_add_watch(descriptor, os.fsencode(path), mask)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def drain(descriptor: int) -> None:
    """Read away what is pending, so that the descriptor becomes unreadable until the next change."""
    try:
        while os.read(descriptor, 65536):
            pass
    except BlockingIOError:
        pass
