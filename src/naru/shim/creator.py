"""A short-lived process that makes one extra process of the container and hands it over to the shim.

As `birth` does for the container itself, and for the same reasons. It may also hang (a frozen cgroup, a network file
system) or crash, and the shim's loop goes on. It can be forked before it is needed, which takes 3 ms off an exec.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import msgspec
from msgspec import Struct

from naru.errors import Unavailable
from naru.kernel.process import close_range
from naru.oci.runtime import Process, Spec
from naru.runtime.cgroup import open_cgroup
from naru.runtime.exec import exec_process
from naru.runtime.stdio import Stdio
from naru.shim import protocol
from naru.shim.birth import read_spec
from naru.shim.loop import EPOLLIN, Loop


class Execute(Struct, frozen=True, kw_only=True):
    """An extra process beside `target_pid`. Descriptors: that process's pidfd, then 0, 1, 2 if `has_stdio`."""

    process: Process
    target_pid: int
    has_stdio: bool


class Report(Struct):
    """What came of it. Descriptors: the process's pidfd, and its console's master if it has a terminal."""

    pid: int = 0
    failure: protocol.Failure | None = None


class Made(Struct, frozen=True):
    """A process that runs its program; a child of the shim, which owns the descriptors."""

    pid: int
    pidfd: int
    console: int | None


OnMade: TypeAlias = Callable[[Made | Exception], None]

_task_decoder = msgspec.json.Decoder(Execute)
_report_decoder = msgspec.json.Decoder(Report)


class Creator:
    """A forked creator for the container of `bundle`, confined as its spec says, in `cgroup`; it waits for one task."""

    def __init__(self, bundle: str, cgroup: str) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            _be_creator(theirs, bundle, cgroup)
        theirs.close()

    def dismiss(self) -> None:
        """Let it end without a task."""
        self._channel.close()

    def make(self, loop: Loop, task: Execute, fds: Sequence[int], on_made: OnMade) -> None:
        """Have the process made. `fds` remain the caller's.

        `on_made` is called once, from `loop`, with the process or with why there is none.
        """

        def received(_events: int) -> None:
            try:
                message = protocol.receive(self._channel)
            except OSError:
                message = None
            loop.forget(self._channel.fileno())
            self._channel.close()
            on_made(Unavailable("the process that was to start it died") if message is None else _made(*message))

        with suppress(OSError):  # if it is dead, that shows as the end of the channel
            protocol.send(self._channel, task, fds)
        loop.watch(self._channel.fileno(), EPOLLIN, received)


def _made(body: bytes, fds: list[int]) -> Made | Exception:
    report = _report_decoder.decode(body)
    if report.failure is not None:
        return protocol.error_of(report.failure)
    return Made(report.pid, fds[0], fds[1] if len(fds) > 1 else None)


def _be_creator(channel: socket.socket, bundle: str, cgroup: str) -> None:
    """Wait for the task, carry it out, report, and end; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        # The shim's clients and pipes would not see their ends while we live.
        keep = channel.fileno()
        if keep > 3:
            close_range(3, keep - 1)
        close_range(keep + 1)
        container = _Container(bundle, cgroup)
        message = protocol.receive(channel)
        if message is not None:
            body, fds = message
            report, made = container.execute(_task_decoder.decode(body), fds)
            protocol.send(channel, report, made)
        status = 0
    finally:
        os._exit(status)


class _Container:
    """What is known before the task is, or why it could not be learnt."""

    def __init__(self, bundle: str, cgroup: str) -> None:
        self._spec: Spec | Exception
        self._cgroup = open_cgroup(cgroup)
        try:
            self._spec = read_spec(bundle)
        except Exception as error:
            self._spec = error

    def execute(self, task: Execute, fds: list[int]) -> tuple[Report, list[int]]:
        pidfd, *stdio = fds
        process = task.process
        if process.oom_score_adj is None:
            process.oom_score_adj = 0  # not the shim's own
        try:
            if isinstance(self._spec, Exception):
                raise self._spec
            executed = exec_process(
                process,
                target_pid=task.target_pid,
                pidfd=pidfd,
                cgroup=self._cgroup,
                stdio=Stdio(*stdio) if task.has_stdio else None,
                spec=self._spec,
            )
        except Exception as error:
            return Report(failure=protocol.failure_of(error)), []
        return Report(executed.pid), [executed.pidfd, *([] if executed.console is None else [executed.console])]
