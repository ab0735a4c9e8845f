"""How the calling process is scheduled, on the CPU and for I/O, and its execution domain.

sched_setattr(2), ioprio_set(2), personality(2).
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_int, c_uint, c_ulong, c_void_p

from naru.kernel.libc import libc_call, syscall

_ARM = os.uname().machine == "aarch64"
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13


class _SchedAttr(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
    ]


_sched_setattr = syscall("sched_setattr", 274 if _ARM else 314, c_int, c_void_p, c_uint)
_ioprio_set = syscall("ioprio_set", 30 if _ARM else 251, c_int, c_int, c_int)
_personality = libc_call("personality", c_ulong)


def sched_setattr(
    policy: int,
    *,
    flags: int = 0,
    nice: int = 0,
    priority: int = 0,
    runtime: int = 0,
    deadline: int = 0,
    period: int = 0,
) -> None:
    """Set the CPU scheduling policy and its attributes; times in nanoseconds. sched_setattr(2)"""
    attributes = _SchedAttr(ctypes.sizeof(_SchedAttr), policy, flags, nice, priority, runtime, deadline, period)
    _sched_setattr(0, ctypes.byref(attributes), 0)


def ioprio_set(io_class: int, priority: int) -> None:
    """Set the I/O scheduling class and the priority in it. ioprio_set(2)"""
    _ioprio_set(_IOPRIO_WHO_PROCESS, 0, io_class << _IOPRIO_CLASS_SHIFT | priority)


def personality(domain: int) -> None:
    """Set the execution domain, with its flags. personality(2)"""
    _personality(domain)
