"""This process's memory as the kernel counts it, and having libc give back what it only keeps."""

from __future__ import annotations

import resource
from ctypes import c_int, c_size_t, c_void_p

from naru.kernel.libc import libc_call

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MADV_MERGEABLE = 12
_madvise = libc_call("madvise", c_void_p, c_size_t, c_int)
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


def allow_merging() -> bool:
    """Let the kernel share pages of equal content between this process and its forks, while KSM runs. madvise(2)

    For what is mapped now; an execve(2) ends it. False: a kernel without KSM.
    """
    with open("/proc/self/maps") as maps:
        mappings = [line.split(maxsplit=5) for line in maps]
    try:
        for fields in mappings:
            if fields[1] == "rw-p":
                start, end = (int(part, 16) for part in fields[0].split("-"))
                _madvise(start, end - start, _MADV_MERGEABLE)
    except OSError:
        return False
    return True
