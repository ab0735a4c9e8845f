"""capset(2), capget(2) and the capability operations of prctl(2), on sets held as integer bit masks.

Bit n of a mask is capability n of linux/capability.h. Sets belong to a thread; callers are single-threaded
processes between fork and exec. capabilities(7)
"""

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

from naru.kernel.libc import libc_call

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


_capset = libc_call("capset", ctypes.c_void_p, ctypes.c_void_p)
_capget = libc_call("capget", ctypes.c_void_p, ctypes.c_void_p)
_prctl = libc_call("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)


class Sets(NamedTuple):
    """The three sets that capset changes together."""

    effective: int
    permitted: int
    inheritable: int


def capget() -> Sets:
    """Return the calling thread's sets. capget(2)"""
    header, data = _Header(_LINUX_CAPABILITY_VERSION_3, 0), (_Data * 2)()
    _capget(ctypes.byref(header), ctypes.byref(data))
    low, high = data
    return Sets(
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(sets: Sets) -> None:
    """Replace the calling thread's sets.

    OSError: EPERM if a permitted bit would be added, an effective one is not permitted, or an inheritable one is
    neither held nor in the bounding set. capset(2)
    """
    header, data = _Header(_LINUX_CAPABILITY_VERSION_3, 0), (_Data * 2)()
    for index, half in enumerate(data):
        half.effective, half.permitted, half.inheritable = (mask >> 32 * index & 0xFFFFFFFF for mask in sets)
    _capset(ctypes.byref(header), ctypes.byref(data))


@functools.cache
def last_cap() -> int:
    """Return the number of the highest capability this kernel knows. /proc/sys/kernel/cap_last_cap

    Read once: a container's init asks again where there may be no /proc.
    """
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def bounding_has(number: int) -> bool:
    """Tell whether `number` is in the bounding set. OSError: EINVAL if the kernel does not know it. prctl(2)"""
    return _prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1


def bounding_drop(number: int) -> None:
    """Remove `number` from the bounding set for good.

    OSError: EPERM without CAP_SETPCAP; EINVAL if the kernel does not know it. prctl(2), PR_CAPBSET_DROP
    """
    _prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def ambient_clear() -> None:
    """Empty the ambient set. prctl(2), PR_CAP_AMBIENT"""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def ambient_raise(number: int) -> None:
    """Add `number` to the ambient set. OSError: EPERM unless it is permitted and inheritable. prctl(2)"""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)


def keep_permitted(keep: bool) -> None:
    """Say whether the permitted set survives setresuid to a non-root uid; execve resets this.

    The effective set is emptied by setresuid all the same. prctl(2), PR_SET_KEEPCAPS
    """
    _prctl(_PR_SET_KEEPCAPS, int(keep), 0, 0, 0)
