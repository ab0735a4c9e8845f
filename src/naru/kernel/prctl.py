"""prctl(2): attributes of the calling process, one function for each that is used. Capabilities have their own file."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_ulong

from naru.kernel.libc import libc_call

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_TID_ADDRESS = 40

# One type for all names: a type made in a shim would be memory of each shim.
_Name = ctypes.c_char * 16

_prctl = libc_call("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)


def set_dumpable(dumpable: bool) -> None:
    """Say whether others of the same user may trace this process, read its memory or open its /proc/PID/exe.

    Reset to true by an execve(2) of a readable program.
    """
    _prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def set_parent_death_signal(signal_number: int) -> None:
    """Ask for `signal_number` (0 for none) when the parent thread ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def set_no_new_privileges() -> None:
    """Give up, for good, privileges from set-user-ID and file-capability programs."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_child_subreaper(enabled: bool) -> None:
    """Say whether orphaned descendants become this process's children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(enabled), 0, 0, 0)


def set_name(name: str) -> None:
    """Set the calling thread's name, cut to 15 bytes."""
    buffer = _Name()
    buffer.value = name.encode()[:15]
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0)


def tid_address() -> int:
    """Return where libc keeps this thread's ID, or 0 if the kernel does not tell (no CONFIG_CHECKPOINT_RESTORE)."""
    address = ctypes.c_void_p(0)
    try:
        _prctl(_PR_GET_TID_ADDRESS, ctypes.addressof(address), 0, 0, 0)
    except OSError:
        return 0
    return address.value or 0
