"""Compiled seccomp programs in the kernel: loaded in a forked child, which reports what its calls then do."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import socket
from collections.abc import Callable

import pytest

from naru.oci.runtime import Seccomp, SyscallRule
from naru.runtime.capability import DEFAULT_CAPABILITIES
from naru.runtime.seccomp import compile_profile, load
from naru.runtime.seccomp_default import default_profile

pytestmark = pytest.mark.root

AF_VSOCK = 40
UNSHARE = 272
CLONE3 = 435
MADVISE = 28
MADV_DONTNEED, MADV_MERGEABLE = 4, 12
NO_SUCH_CALL = 0x3FFF
CLONE_NEWUTS = 0x04000000
_libc = ctypes.CDLL(None, use_errno=True)


def in_child(profile: Seccomp, action: Callable[[], int]) -> int:
    """Return what `action` returned, as a wait status, in a child confined by `profile`."""
    program = compile_profile(profile)
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            load(program, profile.flags)
            status = action()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def raw(number: int, *arguments: int) -> int:
    """Return the errno of a raw call, 0 if it succeeded."""
    result = _libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
    return ctypes.get_errno() if result == -1 else 0


def error_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or 255
    return 0


def test_under_the_default_profile_programs_still_run() -> None:
    def run() -> int:
        return os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", 'test "$(echo ok | cat)" = ok && exit 7'])

    assert in_child(default_profile(DEFAULT_CAPABILITIES), run) == 7


def test_under_the_default_profile_a_root_process_cannot_unshare() -> None:
    profile = default_profile(DEFAULT_CAPABILITIES)

    assert in_child(profile, lambda: raw(UNSHARE, CLONE_NEWUTS)) == errno.EPERM
    assert in_child(default_profile(["CAP_SYS_ADMIN"]), lambda: raw(UNSHARE, CLONE_NEWUTS)) == 0


def test_clone3_and_unknown_calls_look_unimplemented() -> None:
    profile = default_profile(DEFAULT_CAPABILITIES)

    assert in_child(profile, lambda: raw(CLONE3, 0, 0)) == errno.ENOSYS
    assert in_child(profile, lambda: raw(NO_SUCH_CALL)) == errno.ENOSYS


def test_a_vsock_socket_is_refused() -> None:
    def open_vsock() -> int:
        return error_of(lambda: socket.socket(AF_VSOCK, socket.SOCK_STREAM))

    assert in_child(default_profile(DEFAULT_CAPABILITIES), open_vsock) == errno.EPERM


def test_actions_do_what_they_say() -> None:
    def profile(action: str, flags: list[str] | None = None) -> Seccomp:
        rule = SyscallRule(names=["getppid"], action=action, errno_ret=77 if action == "SCMP_ACT_ERRNO" else None)
        return Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=[rule], flags=flags or [])

    def ask() -> int:
        return raw(110)

    every_flag = [f"SECCOMP_FILTER_FLAG_{name}" for name in ("LOG", "SPEC_ALLOW", "TSYNC")]
    assert in_child(profile("SCMP_ACT_ERRNO", every_flag), ask) == 77
    assert in_child(profile("SCMP_ACT_LOG"), ask) == 0
    assert in_child(profile("SCMP_ACT_KILL_PROCESS"), ask) == -signal.SIGSYS
    assert in_child(profile("SCMP_ACT_TRAP"), ask) == -signal.SIGSYS
    # Nobody traces: the call looks unimplemented.
    assert in_child(profile("SCMP_ACT_TRACE"), ask) == errno.ENOSYS


@pytest.mark.parametrize("advice", [MADV_MERGEABLE, MADV_MERGEABLE | 1 << 32], ids=["plain", "high bits set"])
def test_memory_cannot_be_offered_for_merging_under_the_default_profile(advice: int) -> None:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))

    assert in_child(default_profile(DEFAULT_CAPABILITIES), lambda: raw(MADVISE, address, 4096, advice)) == errno.EINVAL
    assert in_child(default_profile(DEFAULT_CAPABILITIES), lambda: raw(MADVISE, address, 4096, MADV_DONTNEED)) == 0
