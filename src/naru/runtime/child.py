"""The parent's side of making a process: clone it, talk to it until it is ready or has executed, reap it if not.

The conversation is drawn in `sync`; what the child does is in `init`.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from naru.errors import CannotStart
from naru.kernel import capability as kernel_capability
from naru.kernel import process as kernel
from naru.runtime import sync
from naru.runtime.cgroup import Cgroup
from naru.runtime.init import Script, run_child
from naru.runtime.step import Workspace


def spawn_child(
    script: Script,
    work: Workspace,
    flags: int,
    cgroup: Cgroup | None,
    pid_namespace: int | None,
    *,
    beside: int | None = None,
) -> tuple[int, int, bool]:
    """Clone the process that follows `script`: return (pid, pidfd, whether it is in `cgroup` without being moved).

    `beside` is for `Cgroup.join`. With `pid_namespace`, a namespace file or a pidfd, the child is made inside it.
    """
    kernel_capability.last_cap()  # the child reads it from memory: it may have no /proc to look in
    directory = cgroup.directory_fd(beside=beside) if cgroup is not None else None
    own = -1
    if pid_namespace is not None:
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        kernel.setns(pid_namespace, kernel.CLONE_NEWPID)
    # A script enters what cannot be given at birth.
    pid, born = -1, cgroup is not None and (directory is not None or bool(cgroup.entrances()))
    try:
        try:
            pid, pidfd = kernel.spawn(flags, cgroup_fd=directory)
        except OSError:
            if directory is None:
                raise
            pid, pidfd = kernel.spawn(flags)  # cgroup.join will say why it could not be born there
            born = False
        if pid == 0:
            run_child(script, work)
    finally:
        if own >= 0 and pid != 0:
            kernel.setns(own, kernel.CLONE_NEWPID)
            os.close(own)
        if directory is not None and pid != 0:
            os.close(directory)
    return pid, pidfd, born


def attend(
    channel: socket.socket,
    pid: int,
    hooks: Callable[[], None] | None,
    *,
    has_ready: bool,
    on_moved: Callable[[int, int], None] | None = None,
) -> int | None:
    """Talk to the child until it is ready (or, without that, until it has executed); return its console's master.

    `on_moved` is given the pid and pidfd (to keep) of the process that goes on in the child's place, at most once.
    CannotStart: it failed.
    """
    console: int | None = None
    try:
        with suppress(BrokenPipeError):  # it has failed already, and said why
            sync.send(channel, sync.JOINED + str(pid).encode())
        while True:
            message, fd = sync.receive(channel)
            kind = message[:1]
            if kind == sync.CONSOLE:
                console = fd
            elif kind == sync.MOVED and on_moved is not None and fd is not None:
                on_moved(int(message[1:]), fd)
                on_moved = None
                sync.send(channel, sync.PROCEED)
            elif kind == sync.HOOKS and hooks is not None:
                hooks()
                sync.send(channel, sync.PROCEED)
            elif kind == sync.READY or (not kind and not has_ready):
                return console
            elif kind == sync.FAILED:
                raise cannot_start(sync.failure(message))
            else:
                raise CannotStart("container init ended before it was ready")
    except BaseException:
        if console is not None:
            os.close(console)
        raise


def await_exec(channel: socket.socket) -> None:
    """Wait until the child has executed its program. CannotStart: it could not."""
    message, _fd = sync.receive(channel)
    if message[:1] == sync.FAILED:
        raise cannot_start(sync.failure(message))


def reap(pid: int, pidfd: int) -> None:
    """Kill a child that is not wanted, and wait for it."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    os.close(pidfd)


def cannot_start(failure: sync.Failure) -> CannotStart:
    return CannotStart(str(failure), exit_code=failure.exit_code)
