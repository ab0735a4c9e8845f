"""This process's memory as the kernel counts it, and having libc give back what it only keeps."""

from __future__ import annotations

import resource
from ctypes import c_int, c_size_t

from naru.kernel.libc import libc_call

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_malloc_trim = libc_call("malloc_trim", c_size_t)
_mallopt = libc_call("mallopt", c_int, c_int)


def resident_bytes() -> int:
    """Return how much of this process is in memory. proc_pid_statm(5)"""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def keep_free_at_most(top_bytes: int, *, mapped_from_bytes: int) -> None:
    """Have malloc keep `top_bytes` of free memory at the top of each arena, and map single blocks from a size on.

    Left alone, it raises both limits to what it has seen. mallopt(3)
    """
    _mallopt(_M_MMAP_THRESHOLD, mapped_from_bytes)
    _mallopt(_M_TRIM_THRESHOLD, top_bytes)


def give_back_free() -> None:
    """Return the free pages inside of malloc's arenas to the kernel; their tops are not looked at. malloc_trim(3)"""
    _malloc_trim(0)
