"""seccomp(2): actions, flags, and giving a cBPF program to the kernel.

Constants keep the spelling of linux/seccomp.h and linux/audit.h.
"""

from __future__ import annotations

import ctypes
import errno
import os

from naru.kernel.libc import syscall

SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000

SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4

AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_ARM = 0x40000028
AUDIT_ARCH_AARCH64 = 0xC00000B7

# BPF_MAXINSNS of linux/bpf_common.h; an instruction is 8 bytes.
MAX_INSTRUCTIONS = 4096
INSTRUCTION_BYTES = 8

_SECCOMP_SET_MODE_FILTER = 1
_NUMBERS = {"x86_64": 317, "aarch64": 277}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


_seccomp = syscall("seccomp", _NUMBERS.get(os.uname().machine, -1), ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)


def set_mode_filter(program: bytes, flags: int) -> None:
    """Filter the calling thread's system calls, and those of all its later children, by the cBPF `program`.

    Filters add up and cannot be taken off. OSError: EACCES without no_new_privs or CAP_SYS_ADMIN; EINVAL if the
    kernel refuses the program or knows a flag not; ESRCH if TSYNC met a thread with a different filter. seccomp(2)
    """
    header = _Program(len(program) // INSTRUCTION_BYTES, program)
    if _seccomp(_SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(header)):
        raise OSError(errno.ESRCH, f"seccomp: {os.strerror(errno.ESRCH)}")
