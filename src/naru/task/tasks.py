"""Tasks: containers as running things, seen from narud.

`Tasks.start` writes the bundle's config.json, has the launcher fork a shim, and tells that shim what to start; from
then on narud and the shim talk directly. After narud's restart `Tasks.adopt` finds the same shim, or what it left.
Everything here blocks, and may be called from any thread. Nothing here knows names, images or restart policies.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from naru.errors import Conflict, Unavailable
from naru.oci.runtime import Spec, encode
from naru.persist.files import write_atomically
from naru.runtime.rootfs import Overlay
from naru.shim import protocol, record
from naru.shim.protocol import (
    AttachRequest,
    ConsoleSize,
    ExitRecord,
    LogConfig,
    Start,
    Started,
    TaskEvent,
)
from naru.task.shims import Connection, Reader, contact, killed
from naru.task.task import Task, with_terminal

OnEvent: TypeAlias = Callable[[TaskEvent], None]


class StartRequest(Struct, frozen=True, kw_only=True):
    """What to start. `bundle` is an existing directory; its config.json is written from `spec`.

    `terminal` and `console_size` override the spec's. With `open_stdin` clients can give input, and with `stdin_once`
    the first that stops ends it. With `init`, PID 1 is a small reaper.
    """

    container_id: str
    bundle: str
    spec: Spec
    overlay: Overlay | None = None
    log: LogConfig = LogConfig()
    terminal: bool = False
    console_size: ConsoleSize | None = None
    open_stdin: bool = False
    stdin_once: bool = False
    init: bool = False


class Tasks:
    """Starts and finds tasks. `launcher` is the socket from `launcher.spawn`; `run_dir` holds the shims' directories.

    `on_event` callbacks run one at a time on one thread, may call back into tasks, and get each task's `Exited` last.
    """

    def __init__(self, launcher: socket.socket, run_dir: str) -> None:
        self._launcher = launcher
        self._run_dir = run_dir
        self._reader = Reader()
        self.started = 0  # since this daemon began
        os.makedirs(run_dir, 0o700, exist_ok=True)

    def start(
        self,
        request: StartRequest,
        *,
        netns_fd: int | None = None,
        attach: Sequence[tuple[AttachRequest, int]] = (),
        on_event: OnEvent,
    ) -> Task:
        """Start a container and return when its program runs. Descriptors remain the caller's, as they are.

        CannotStart: the program cannot be executed (126, 127) or a step before it failed; nothing is left then.
        Conflict: the container has a shim already. Unavailable: the launcher or the shim is gone.
        """
        if self._is_served(request.container_id):
            raise Conflict(f"container {request.container_id} is running already")
        spec = _write_config(request)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        start = Start(
            container_id=request.container_id,
            run_dir=self._run_dir,
            bundle=request.bundle,
            cgroup=(spec.linux.cgroups_path if spec.linux else "") or f"/naru/{request.container_id}",
            overlay=request.overlay,
            init=request.init,
            log=request.log,
            open_stdin=request.open_stdin,
            stdin_once=request.stdin_once,
            has_netns=netns_fd is not None,
            attach=[client for client, _ in attach],
        )
        connection = Connection(ours, request.container_id)
        try:
            with theirs:
                self._send(
                    start, [theirs.fileno(), *([] if netns_fd is None else [netns_fd]), *(fd for _, fd in attach)]
                )
            started = connection.read_answer(Started)
        except Unavailable:
            ours.close()
            self._clear_away(request.container_id)
            raise
        except BaseException:
            ours.close()
            raise
        self.started += 1
        task = Task(request.container_id, self._directory(request.container_id), connection, started)
        return self._serve(task, on_event)

    def _send(self, start: Start, fds: list[int]) -> None:
        try:
            protocol.send(self._launcher, start, fds)
        except OSError:
            raise Unavailable("the launcher is gone", hint="restart narud; running containers go on") from None

    def _clear_away(self, container_id: str) -> None:
        """End what a shim or its creator, killed while it created the container, has left."""
        found = contact(container_id, self._directory(container_id))
        if isinstance(found, tuple):
            found[0].socket.close()
        elif not self._is_served(container_id):
            record.remove(self._directory(container_id))

    def adopt(self, container_id: str, *, on_event: OnEvent) -> Task | ExitRecord | None:
        """Find a container of an earlier narud: its running task, how it ended meanwhile, or None if it never ran.

        A container whose shim was killed is killed too, and has ended with 137. What ended is kept until `remove`.
        """
        found = contact(container_id, self._directory(container_id))
        if found is None or isinstance(found, ExitRecord):
            return found
        connection, status = found
        if status.exit is not None:
            connection.socket.close()
            return ExitRecord(status.exit, status.execs)
        directory = self._directory(container_id)
        return self._serve(Task(container_id, directory, connection, status.started, execs=status.execs), on_event)

    def found(self) -> list[str]:
        """Return the IDs of all containers that have, or left, a directory here."""
        return sorted(os.listdir(self._run_dir))

    def remove(self, container_id: str) -> None:
        """Clear away what is left of a container that is over, as `Task.delete` does. Conflict: it is not over."""
        directory = self._directory(container_id)
        if self._is_served(container_id):
            raise Conflict(f"container {container_id} is running")
        record.remove(directory)

    def close(self) -> None:
        """Let go of all tasks; the containers go on, to be adopted by the next narud."""
        self._reader.close()

    def _directory(self, container_id: str) -> str:
        return os.path.join(self._run_dir, container_id)

    def _is_served(self, container_id: str) -> bool:
        """Has the container a shim that has not finished with it?"""
        directory = self._directory(container_id)
        birth = record.read_birth(directory)
        if birth is None or record.read_exit(directory) is not None:
            return False
        return record.is_alive(birth.pid, birth.start_ticks)

    def _serve(self, task: Task, on_event: OnEvent) -> Task:
        def heard(event: TaskEvent) -> None:
            task.heard(event)
            on_event(event)

        def ended() -> None:
            if task.exited is None:
                self._find_again(task, on_event)

        self._reader.serve(task.connection, heard, ended)
        return task

    def _find_again(self, task: Task, on_event: OnEvent) -> None:
        """The connection of a running container ended: its shim is dead, or has dropped a narud that was too slow."""
        found = contact(task.container_id, self._directory(task.container_id))
        if isinstance(found, tuple):
            task.connection, status = found
            events = task.missed(status.execs, status.exit)
        elif found is not None:
            events = task.missed(found.execs, found.exited)
        else:
            events = task.missed([], killed(task.container_id, "its shim's directory was removed"))
        for event in events:
            task.heard(event)
            on_event(event)
        if isinstance(found, tuple):
            self._serve(task, on_event)


def _write_config(request: StartRequest) -> Spec:
    spec = request.spec
    if spec.process is not None:
        process = with_terminal(spec.process, request.terminal, request.console_size)
        spec = replace(spec, process=process)
    write_atomically(os.path.join(request.bundle, "config.json"), encode(spec), durable=False)
    return spec
