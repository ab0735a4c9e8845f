"""One running container, or one that has just ended."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime
from types import NoneType

from msgspec import Struct
from msgspec.structs import replace

from naru.errors import Conflict, NaruError, Unavailable
from naru.oci.runtime import Box, Process, Resources
from naru.runtime.cgroup_stats import CgroupStats
from naru.shim import protocol, record
from naru.shim.protocol import (
    AttachRequest,
    ConsoleSize,
    ExecExited,
    ExecStatus,
    Exited,
    Started,
    TaskEvent,
)
from naru.task.shims import Connection


class ExecRequest(Struct, frozen=True, kw_only=True):
    """An extra process for a container; `exec_id` is the caller's, used once. `terminal` overrides the process's."""

    exec_id: str
    process: Process
    terminal: bool = False
    console_size: ConsoleSize | None = None


class Task:
    """Talks to the container's shim. Every verb blocks until the shim has done it.

    Conflict: the container, or the exec, is not running. Unavailable: the shim is gone; `Exited` follows.
    """

    def __init__(
        self,
        container_id: str,
        directory: str,
        connection: Connection,
        started: Started,
        *,
        execs: Sequence[ExecStatus] = (),
    ) -> None:
        self.container_id = container_id
        self.pid = started.pid
        self.started_at: datetime = started.started_at
        self.execs_at_adoption = tuple(execs)
        self.connection = connection
        self._directory = directory
        self._exited: Future[Exited] = Future()
        self._running_execs = {status.exec_id for status in execs if status.exit_code is None}

    @property
    def exited(self) -> Exited | None:
        """How the container ended; None while it runs."""
        return self._exited.result() if self._exited.done() else None

    def wait(self, timeout_s: float | None = None) -> Exited | None:
        """Wait for the container's end; None if it still runs after `timeout_s`."""
        try:
            return self._exited.result(timeout_s)
        except TimeoutError:
            return None

    def kill(self, signal: int) -> None:
        """Send `signal` to the container's init. A paused container gets SIGKILL at once, others when resumed."""
        self.connection.ask(protocol.Kill(signal), NoneType)

    def pause(self) -> None:
        self.connection.ask(protocol.Pause(), NoneType)

    def resume(self) -> None:
        self.connection.ask(protocol.Resume(), NoneType)

    def is_paused(self) -> bool:
        return self.connection.ask(protocol.ReadStatus(), protocol.Status).paused

    def resize(self, width: int, height: int) -> None:
        """Set the size of the container's terminal, in characters; without one, nothing."""
        self.connection.ask(protocol.Resize(ConsoleSize(width, height)), NoneType)

    def attach(self, request: AttachRequest, fd: int) -> None:
        """Give a client on `fd` the output from now on, and take its input. `fd` remains the caller's to close.

        The client sees the end of the stream when the container ends or it detaches; `AttachClosed` tells.
        """
        self.connection.ask(protocol.Attach(request), NoneType, [fd])

    def exec(self, request: ExecRequest, attach: Sequence[tuple[AttachRequest, int]] = ()) -> int:
        """Start an extra process and return its pid on the host. Without clients its output is discarded.

        CannotStart: the program cannot be executed. Conflict: the container is paused, or `exec_id` was used before.
        """
        process = with_terminal(request.process, request.terminal, request.console_size)
        message = protocol.Exec(exec_id=request.exec_id, process=process, attach=[client for client, _ in attach])
        self._running_execs.add(request.exec_id)
        try:
            return self.connection.ask(message, Started, [fd for _, fd in attach]).pid
        except NaruError:
            self._running_execs.discard(request.exec_id)
            raise

    def exec_kill(self, exec_id: str, signal: int) -> None:
        self.connection.ask(protocol.Kill(signal, exec_id), NoneType)

    def exec_resize(self, exec_id: str, width: int, height: int) -> None:
        self.connection.ask(protocol.Resize(ConsoleSize(width, height), exec_id), NoneType)

    def exec_status(self, exec_id: str) -> ExecStatus:
        """Return the exec's pid and exit code (None while it runs). NotFound: never started here, or long over."""
        return self.connection.ask(protocol.ReadExec(exec_id), ExecStatus)

    def stats(self) -> CgroupStats:
        return self.connection.ask(protocol.ReadStats(), CgroupStats)

    def processes(self) -> list[int]:
        """Return the pids, on the host, of all the container's processes."""
        return self.connection.ask(protocol.ListProcesses(), list[int])

    def open_init(self) -> int:
        """Return a pidfd of the container's init, which may be ending; the caller owns it. Conflict: it has ended.

        The shim is asked after the opening: only it reaps init, so the number was nobody else's until its answer.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            raise Conflict(f"container {self.container_id} is not running") from None
        try:
            self.processes()
        except BaseException:
            os.close(pidfd)
            raise
        return pidfd

    def update(self, resources: Resources) -> None:
        """Change the limits that `resources` sets."""
        self.connection.ask(protocol.Update(resources), NoneType)

    def delete(self) -> None:
        """Forget a container that is over: its shim ends and its run directory is removed. Conflict: it runs."""
        if not self._exited.done():
            raise Conflict(f"container {self.container_id} is running")
        try:
            self.connection.ask(protocol.Delete(), NoneType)
        except Unavailable:
            record.remove(self._directory)

    # --- for Tasks

    def heard(self, event: TaskEvent) -> None:
        """Keep what the task itself must know of `event`."""
        if isinstance(event, ExecExited):
            self._running_execs.discard(event.exec_id)
        elif isinstance(event, Exited):
            self._exited.set_result(event)

    def missed(self, execs: Sequence[ExecStatus], exited: Exited | None) -> list[TaskEvent]:
        """Return the events that happened while nobody was connected to the shim."""
        events: list[TaskEvent] = [
            ExecExited(self.container_id, status.exec_id, status.exit_code)
            for status in execs
            if status.exit_code is not None and status.exec_id in self._running_execs
        ]
        return events if exited is None else [*events, exited]


def with_terminal(process: Process, terminal: bool, size: ConsoleSize | None) -> Process:
    """Return `process`, on a terminal of `size` if it, or `terminal`, says so."""
    box = process.console_size if size is None else Box(height=size.height, width=size.width)
    return replace(process, terminal=terminal or process.terminal, console_size=box)
