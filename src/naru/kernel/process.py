"""Making processes in namespaces, and entering the namespaces of others.

`spawn` is fork with namespace flags and a pidfd. unshare(2), setns(2), clone(2), close_range(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_ulong
from functools import cache

from naru.kernel import prctl
from naru.kernel.libc import libc_call, syscall

CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_CLONE_PIDFD = 0x00001000
_CLONE_PARENT = 0x00008000
_CLONE_CHILD_CLEARTID = 0x00200000
_CLONE_CHILD_SETTID = 0x01000000
_CLONE_INTO_CGROUP = 0x200000000
_SIGCHLD = 17
_SYS_CLONE3 = 435
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CLOSE_RANGE_CLOEXEC = 4
_MACHINE = os.uname().machine


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


_unshare = libc_call("unshare", c_int)
_setns = libc_call("setns", c_int, c_int)
_sethostname = libc_call("sethostname", c_char_p, c_size_t)
_setdomainname = libc_call("setdomainname", c_char_p, c_size_t)
_close_range = syscall("close_range", 436, c_uint, c_uint, c_uint)
_keyctl = syscall("keyctl", _SYS_KEYCTL.get(_MACHINE, 219), c_int, c_char_p)
# The interpreter lock is held across the call (PyDLL): the child starts life holding it, as after fork.
_raw_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_raw_syscall.argtypes = [c_long, c_ulong, c_ulong, c_ulong, c_ulong, c_ulong]
_raw_syscall.restype = c_long


def unshare(flags: int) -> None:
    """Leave the shared namespaces in `flags` for new ones. CLONE_NEWPID takes effect on children. unshare(2)"""
    _unshare(flags)


def setns(fd: int, flags: int) -> None:
    """Enter the namespace(s) `flags` of `fd`: a namespace file, or a pidfd for several at once (Linux 5.8).

    CLONE_NEWPID takes effect on children. OSError: EINVAL for CLONE_NEWNS or CLONE_NEWUSER with threads. setns(2)
    """
    _setns(fd, flags)


def sethostname(name: str) -> None:
    """Set this UTS namespace's host name. sethostname(2)"""
    _sethostname(name.encode(), len(name.encode()))


def setdomainname(name: str) -> None:
    """Set this UTS namespace's NIS domain name. setdomainname(2)"""
    _setdomainname(name.encode(), len(name.encode()))


def close_range(first: int, last: int = 0xFFFFFFFF, *, on_exec: bool = False) -> None:
    """Close the descriptors from `first` to `last` inclusive, or with `on_exec` only mark them so. close_range(2)"""
    _close_range(first, last, _CLOSE_RANGE_CLOEXEC if on_exec else 0)


def join_session_keyring(name: str) -> None:
    """Replace this process's session keyring by a new or existing one called `name`. keyctl(2)"""
    _keyctl(_KEYCTL_JOIN_SESSION_KEYRING, name.encode())


def is_single_threaded() -> bool:
    """Say whether this process has one thread: /proc/self/task has a link per thread and two of its own."""
    return os.stat("/proc/self/task").st_nlink == 3


def spawn(namespaces: int = 0, *, cgroup_fd: int | None = None) -> tuple[int, int]:
    """fork into new `namespaces`: return (0, -1) in the child and (pid, pidfd) in the parent, which reaps it.

    With `cgroup_fd` (a cgroup v2 directory) the child is born in that cgroup. In a process with threads the
    clone is made by a forked go-between, because a raw clone skips libc's fork handlers (6 of 2,100 children
    hung on an allocator lock). OSError: ENOSYS where clone3 is blocked and `cgroup_fd` or a time namespace needs
    it; without them clone is used instead. clone(2)
    """
    if is_single_threaded():
        return _clone(namespaces, cgroup_fd, from_middle=False)
    return _spawn_through_middle(namespaces, cgroup_fd)


def spawn_sibling() -> tuple[int, int]:
    """fork a child of our own parent, who reaps it: return (0, -1) in the child and (pid, pidfd) here. clone(2)

    Only in a process with one thread; after entering a PID namespace it is how to get there with nothing left behind.
    """
    return _clone(0, None, from_middle=True)


def _clone(namespaces: int, cgroup_fd: int | None, *, from_middle: bool) -> tuple[int, int]:
    pidfd = c_int(-1)
    tid_address = prctl.tid_address()
    flags = namespaces | _CLONE_PIDFD
    if tid_address:  # as libc's fork does: else the child's idea of its own thread ID is the parent's
        flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    if from_middle:
        flags |= _CLONE_PARENT
    arguments = _CloneArgs(
        flags=flags | (_CLONE_INTO_CGROUP if cgroup_fd is not None else 0),
        pidfd=ctypes.addressof(pidfd),
        child_tid=tid_address,
        exit_signal=0 if from_middle else _SIGCHLD,
        cgroup=cgroup_fd if cgroup_fd is not None else 0,
    )
    address, size = ctypes.addressof(arguments), ctypes.sizeof(arguments)
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = _raw_syscall(_SYS_CLONE3, address, size, 0, 0, 0)
    if pid < 0 and ctypes.get_errno() == errno.ENOSYS and cgroup_fd is None and not namespaces & CLONE_NEWTIME:
        pid = _old_clone(flags | _SIGCHLD, ctypes.addressof(pidfd), tid_address)
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0, -1
    number = ctypes.get_errno()
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone3: {os.strerror(number)}")
    return pid, pidfd.value


def _old_clone(flags: int, pidfd_address: int, tid_address: int) -> int:
    """clone(2), whose argument order differs: tls comes before child_tid on arm64."""
    if _MACHINE == "aarch64":
        return int(_raw_syscall(_SYS_CLONE[_MACHINE], flags, 0, pidfd_address, 0, tid_address))
    return int(_raw_syscall(_SYS_CLONE[_MACHINE], flags, 0, pidfd_address, tid_address, 0))


def _spawn_through_middle(namespaces: int, cgroup_fd: int | None) -> tuple[int, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        middle = os.fork()
        if middle == 0:
            try:
                pid, pidfd = _clone(namespaces, cgroup_fd, from_middle=True)
                if pid == 0:
                    theirs.close()
                    ours.close()
                    return 0, -1
                socket.send_fds(theirs, [struct.pack("=qi", pid, 0)], [pidfd])
            except OSError as error:
                theirs.send(struct.pack("=qi", -1, error.errno or 0))
            os._exit(0)
        theirs.close()
        data, fds, _flags, _address = socket.recv_fds(ours, 16, 1, socket.MSG_CMSG_CLOEXEC)
        os.waitpid(middle, 0)
    if len(data) < 12:
        raise OSError(errno.EAGAIN, "clone3: the go-between process died")
    pid, number = struct.unpack("=qi", data)
    if pid < 0:
        raise OSError(number, f"clone3: {os.strerror(number)}")
    return _pid_of(fds[0]), fds[0]


def _pid_of(pidfd: int) -> int:
    """Return the pid that `pidfd` means here: who made the process may have counted in another PID namespace.

    proc(5), /proc/pid/fdinfo
    """
    with open(f"/proc/self/fdinfo/{pidfd}") as information:
        return next(int(line.split()[1]) for line in information if line.startswith("Pid:"))


@cache
def _command_line_area() -> tuple[int, int]:
    """Return where execve(2) put this program's arguments; forks inherit both the place and the answer."""
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    return int(fields[45]), int(fields[46])  # arg_start, arg_end: fields 48 and 49 of proc_pid_stat(5)


def set_command_line(text: str) -> None:
    """Overwrite what ps(1) shows as this process's command line; cut to the room that execve(2) left for it."""
    start, end = _command_line_area()
    room = end - start
    if start and room > 1:
        ctypes.memmove(start, text.encode()[: room - 1].ljust(room, b"\0"), room)
