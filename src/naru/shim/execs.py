"""The extra processes of one container: started, relayed, reaped, remembered until narud has heard of their end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

from msgspec import Struct

from naru.errors import Conflict, NotFound
from naru.shim.creator import Creator, Execute, Made
from naru.shim.loop import Loop
from naru.shim.protocol import AttachClosed, ConsoleSize, Exec, ExecExited, ExecStatus, TaskEvent
from naru.shim.relay import Ends, Relay
from naru.shim.streams import open_streams

# Docker's wait for output after an exec's process has ended: a background child may hold the pipe for ever.
_OUTPUT_GRACE_S = 2.0
# A container that had an exec is likely to have another: a creator is kept waiting, for a while (0.5 MB).
_SPARE_S = 30.0
# Ended execs whose code can still be asked for; a health check adds one every few seconds.
_REMEMBERED = 256


class _Running(Struct):
    """`pid` is 0 until the process has been made."""

    pid: int = 0
    pidfd: int = -1
    relay: Relay | None = None
    exit_code: int | None = None


class Execs:
    """Starts and ends execs. `tell` gets their events, after their clients have got their output."""

    def __init__(
        self, loop: Loop, *, container_id: str, bundle: str, cgroup: str, tell: Callable[[TaskEvent], None]
    ) -> None:
        self._loop = loop
        self._container_id = container_id
        self._bundle = bundle
        self._cgroup = cgroup
        self._spare: Creator | None = None
        self._spare_until = 0.0
        self._is_spare_timed = False
        self._tell = tell
        self._running: dict[str, _Running] = {}
        self._ended: dict[str, ExecStatus] = {}
        self._relays: list[Relay] = []

    @property
    def has_clients(self) -> bool:
        """Is a client still being served, perhaps of an exec that has ended?"""
        self._relays = [relay for relay in self._relays if relay.has_clients or not relay.has_ended]
        return any(relay.has_clients for relay in self._relays)

    @property
    def has_unreaped(self) -> bool:
        return any(running.exit_code is None for running in self._running.values())

    def start(
        self,
        request: Exec,
        clients: list[int],
        *,
        target_pid: int,
        target_pidfd: int,
        on_started: Callable[[Made | Exception], None],
    ) -> None:
        """Have the process made beside the container's init. `clients` are ours; they are served once it runs."""
        if request.exec_id in self._running or request.exec_id in self._ended:
            raise Conflict(f"exec {request.exec_id} was started before")
        has_stdio = not request.process.terminal
        stdio, ends = list[int](), Ends()
        with ExitStack() as theirs, ExitStack() as undo:
            if has_stdio:
                reads = any(client.stdin for client in request.attach)
                stdio, ends = open_streams(stdin=reads, output=bool(request.attach), theirs=theirs, ours=undo)
            creator, self._spare = self._spare or Creator(self._bundle, self._cgroup), None
            task = Execute(process=request.process, target_pid=target_pid, has_stdio=has_stdio)
            ours = undo.pop_all()
            self._running[request.exec_id] = _Running()
            creator.make(
                self._loop,
                task,
                [target_pidfd, *stdio],
                lambda made: self._made(request, clients, ends, ours, made, on_started),
            )

    def _made(
        self,
        request: Exec,
        clients: list[int],
        ends: Ends,
        ours: ExitStack,
        made: Made | Exception,
        on_started: Callable[[Made | Exception], None],
    ) -> None:
        if isinstance(made, Exception):
            del self._running[request.exec_id]
            ours.close()
            for fd in clients:
                os.close(fd)
            on_started(made)
            return
        running = self._running[request.exec_id]
        running.pid, running.pidfd = made.pid, made.pidfd
        ends.console = made.console
        if request.attach or made.console is not None:
            running.relay = self._relay(request.exec_id, ends)
            for client, fd in zip(request.attach, clients, strict=True):
                running.relay.attach(client, fd)
        on_started(made)
        self._keep_spare()

    def _keep_spare(self) -> None:
        """Have a creator ready for the next exec, until there has been none for a while."""
        if self._spare is None:
            self._spare = Creator(self._bundle, self._cgroup)
        self._spare_until = time.monotonic() + _SPARE_S
        if not self._is_spare_timed:
            self._is_spare_timed = True
            self._loop.call_after(_SPARE_S, self._consider_spare)

    def _consider_spare(self) -> None:
        left_s = self._spare_until - time.monotonic()
        if left_s > 0:
            self._loop.call_after(left_s, self._consider_spare)
        else:
            self._is_spare_timed = False
            self._dismiss_spare()

    def _dismiss_spare(self) -> None:
        if self._spare is not None:
            self._spare.dismiss()
            self._spare = None

    def kill(self, exec_id: str, number: int) -> None:
        """Signal the exec's process. Conflict if it has ended."""
        running = self._find(exec_id)
        if running.exit_code is not None:
            raise Conflict(f"exec {exec_id} is not running")
        signal.pidfd_send_signal(running.pidfd, number)

    def resize(self, exec_id: str, size: ConsoleSize) -> None:
        running = self._find(exec_id)
        if running.relay is not None:
            running.relay.resize(size)

    def status(self, exec_id: str) -> ExecStatus:
        """Return the exec's pid and, once it has ended, exit code. NotFound if it was never started, or long ago."""
        for status in self.statuses():
            if status.exec_id == exec_id:
                return status
        raise NotFound(f"No such exec instance: {exec_id}")

    def statuses(self) -> list[ExecStatus]:
        now = [
            ExecStatus(exec_id, running.pid, running.exit_code)
            for exec_id, running in self._running.items()
            if running.pid
        ]
        return [*self._ended.values(), *now]

    def reaped(self, pid: int, exit_code: int) -> bool:
        """Note that the child `pid` has ended; False if it is no exec."""
        exec_id = next((name for name, running in self._running.items() if running.pid == pid), None)
        if exec_id is None or self._running[exec_id].exit_code is not None:
            return False
        running = self._running[exec_id]
        running.exit_code = exit_code
        if running.relay is None:
            self._end(exec_id)
            return True
        running.relay.drain()
        if running.relay.has_ended:
            self._end(exec_id)
        else:
            self._loop.call_after(_OUTPUT_GRACE_S, lambda: self._end(exec_id))
        return True

    def end_all(self) -> None:
        """Everything in the container is dead: end what is left."""
        self._dismiss_spare()
        for exec_id, running in list(self._running.items()):
            if not running.pid:
                continue  # its creator will report that there is no container
            if running.exit_code is None:
                running.exit_code = 128 + signal.SIGKILL
            if running.relay is not None:
                running.relay.drain()
            self._end(exec_id)

    def _relay(self, exec_id: str, ends: Ends) -> Relay:
        def attach_closed(attach_id: str, detached: bool) -> None:
            self._tell(AttachClosed(self._container_id, exec_id, attach_id, detached))

        relay = Relay(
            self._loop,
            ends,
            stdin_once=True,
            on_attach_closed=attach_closed,
            on_end=lambda: self._output_ended(exec_id),
        )
        self._relays.append(relay)
        return relay

    def _output_ended(self, exec_id: str) -> None:
        running = self._running.get(exec_id)
        if running is not None and running.exit_code is not None:
            self._end(exec_id)

    def _end(self, exec_id: str) -> None:
        """The process and its output are over: let the clients go, then tell."""
        running = self._running.pop(exec_id, None)
        if running is None or running.exit_code is None:
            return
        os.close(running.pidfd)
        if running.relay is not None:
            # Not closed: a child left in the background may go on writing, and must not die of SIGPIPE.
            running.relay.finish_clients()
        self._ended[exec_id] = ExecStatus(exec_id, running.pid, running.exit_code)
        while len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        self._tell(ExecExited(self._container_id, exec_id, running.exit_code))

    def _find(self, exec_id: str) -> _Running:
        running = self._running.get(exec_id)
        if running is not None and running.pid:
            return running
        if running is None:
            self.status(exec_id)  # NotFound
        raise Conflict(f"exec {exec_id} is not running")
