"""Extra processes in running containers. They live in memory and end with their container. Engine API, Exec."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from naru.api.exec import ExecCreateRequest, ExecInspect, ExecStartRequest, ProcessConfig
from naru.engine.container import Container, Containers, Status
from naru.engine.detach_keys import parse as parse_detach_keys
from naru.engine.lifecycle import Lifecycle
from naru.engine.merge import merge_environment
from naru.engine.security import SecurityOptions
from naru.engine.spec import environment
from naru.errors import CannotStart, Conflict, InvalidArgument, NotFound, Unavailable
from naru.oci import runtime as oci
from naru.runtime.capability import resolve as resolve_capabilities
from naru.shim.protocol import AttachRequest, ExecExited, Exited, TaskEvent
from naru.task.task import ExecRequest

_KEPT_S = 300.0
# A client asks for its window's size as soon as its connection is taken over, before the process is there.
_RESIZE_PATIENCE_S = 10.0  # moby, ContainerExecResize


@dataclass(slots=True)
class _Exec:
    id: str
    container_id: str
    request: ExecCreateRequest
    pid: int = 0
    is_started: bool = False
    is_running: bool = False
    exit_code: int | None = None
    ended_at: float = 0.0
    has_settled: threading.Event = field(default_factory=threading.Event)  # started, or never will be


class Execs:
    """The execs of one engine, kept until their container is removed or they are many."""

    def __init__(self, containers: Containers, lifecycle: Lifecycle) -> None:
        self._containers = containers
        self._lifecycle = lifecycle
        self._lock = threading.Lock()
        self._execs: dict[str, _Exec] = {}
        lifecycle.on_task_event(self._on_event)

    def create(self, reference: str, request: ExecCreateRequest) -> str:
        """Record an exec and return its ID. Conflict: the container does not run."""
        container = self._containers.get(reference)
        self._check_running(container)
        if not request.cmd:
            raise InvalidArgument("No exec command specified")
        parse_detach_keys(request.detach_keys)
        entry = _Exec(id=secrets.token_hex(32), container_id=container.id, request=request)
        with self._lock:
            self._forget_old()
            self._execs[entry.id] = entry
        self._lifecycle.publish(container, f"exec_create: {_told(request.cmd)}", execID=entry.id)
        return entry.id

    def start(self, exec_id: str, request: ExecStartRequest, fd: int | None, prefix: bytes) -> None:
        """Run a recorded exec; `fd` is the client's connection, None when detached.

        Conflict: started before, or the container does not run. CannotStart: the command cannot be run.
        """
        entry = self._get(exec_id)
        container = self._containers.get(entry.container_id)
        self._check_running(container)
        with self._lock:
            if entry.is_started:
                raise Conflict(f"Error: Exec command {exec_id} is already running")
            entry.is_started = entry.is_running = True
        asked = entry.request
        attach: list[tuple[AttachRequest, int]] = []
        if fd is not None:
            attach.append(
                (
                    AttachRequest(
                        stdin=asked.attach_stdin,
                        stdout=asked.attach_stdout,
                        stderr=asked.attach_stderr,
                        multiplexed=not request.tty,
                        detach_keys=parse_detach_keys(asked.detach_keys) if asked.tty else b"",
                        prefix=prefix,
                    ),
                    fd,
                )
            )
        self._lifecycle.publish(container, f"exec_start: {_told(asked.cmd or [])}", execID=entry.id)
        size = request.console_size or asked.console_size
        try:
            entry.pid = self._lifecycle.task(container).exec(
                ExecRequest(exec_id=entry.id, process=exec_process(container, asked, size)), attach=attach
            )
        except CannotStart as error:
            entry.is_running = False
            entry.exit_code = error.exit_code if error.exit_code in (126, 127) else 126
            raise
        except BaseException:
            entry.is_running = False
            entry.exit_code = 126
            raise
        finally:
            entry.has_settled.set()

    def inspect(self, exec_id: str) -> ExecInspect:
        """Return what is known of an exec.

        A client asks as soon as its stream has ended, which the shim closes before its news arrive here: while the
        exec seems to run, the shim is asked.
        """
        entry = self._get(exec_id)
        if entry.is_running:
            self._ask_shim(entry)
        asked = entry.request
        command = asked.cmd or []
        return ExecInspect(
            id=entry.id,
            running=entry.is_running,
            exit_code=entry.exit_code,
            process_config=ProcessConfig(
                tty=asked.tty,
                entrypoint=command[0],
                arguments=command[1:],
                privileged=asked.privileged,
                user=asked.user,
            ),
            open_stdin=asked.attach_stdin,
            open_stderr=asked.attach_stderr,
            open_stdout=asked.attach_stdout,
            can_remove=entry.exit_code is not None,
            container_id=entry.container_id,
            detach_keys=asked.detach_keys,
            pid=entry.pid,
        )

    def _ask_shim(self, entry: _Exec) -> None:
        try:
            status = self._lifecycle.task(self._containers.get(entry.container_id)).exec_status(entry.id)
        except (Conflict, NotFound, Unavailable):
            return  # its container is ending: the event that says so is on its way
        if status.exit_code is not None:
            entry.is_running, entry.exit_code = False, status.exit_code

    def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of an exec's terminal. Conflict: it does not run."""
        entry = self._get(exec_id)
        if entry.is_started:
            entry.has_settled.wait(_RESIZE_PATIENCE_S)
        self._lifecycle.task(self._containers.get(entry.container_id)).exec_resize(exec_id, width, height)

    def running(self, container_id: str) -> list[str]:
        """Return the IDs of a container's running execs."""
        with self._lock:
            return [e.id for e in self._execs.values() if e.container_id == container_id and e.is_running]

    def _get(self, exec_id: str) -> _Exec:
        with self._lock:
            entry = self._execs.get(exec_id)
        if entry is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return entry

    def _check_running(self, container: Container) -> None:
        if container.status is Status.PAUSED:
            raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
        if container.status is Status.RESTARTING:
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if container.status is not Status.RUNNING:
            raise Conflict(f"container {container.id} is not running")

    def _forget_old(self) -> None:
        """Drop what ended a while ago: clients ask for an exit code right after the end (moby keeps them as long)."""
        deadline = time.monotonic() - _KEPT_S
        for exec_id in [e.id for e in self._execs.values() if e.ended_at and e.ended_at < deadline]:
            del self._execs[exec_id]

    def _on_event(self, event: TaskEvent) -> None:
        with self._lock:
            if isinstance(event, ExecExited) and event.exec_id in self._execs:
                entry = self._execs[event.exec_id]
                entry.is_running, entry.exit_code, entry.ended_at = False, event.exit_code, time.monotonic()
                self._tell_end(entry)
            elif isinstance(event, Exited):
                gone = [e.id for e in self._execs.values() if e.container_id == event.container_id]
                for exec_id in gone:
                    self._execs[exec_id].is_running = False
                    self._execs[exec_id].ended_at = time.monotonic()
                    if self._execs[exec_id].exit_code is None:
                        self._execs[exec_id].exit_code = 137

    def _tell_end(self, entry: _Exec) -> None:
        try:
            container = self._containers.get(entry.container_id)
        except NotFound:
            return
        self._lifecycle.publish(container, "exec_die", execID=entry.id, exitCode=str(entry.exit_code))


def exec_process(container: Container, asked: ExecCreateRequest, size: tuple[int, int] | None) -> oci.Process:
    """Return the process of an exec: the container's environment, user and limits where nothing else is asked."""
    config, host = container.config, container.host_config
    security = SecurityOptions(host.security_opt or [])
    privileged = asked.privileged or host.privileged
    names = resolve_capabilities(host.cap_add or [], host.cap_drop or [], privileged=privileged)
    hostname = config.hostname or container.id[:12]
    return oci.Process(
        terminal=asked.tty,
        console_size=oci.Box(height=size[0], width=size[1]) if size and all(size) else None,
        user=oci.User(username=asked.user or config.user or "0", additional_groups=list(host.group_add or [])),
        args=list(asked.cmd or []),
        env=environment(merge_environment(config.env or [], asked.env or []), hostname=hostname, has_tty=asked.tty),
        cwd=asked.working_dir or config.working_dir or "/",
        capabilities=oci.Capabilities(bounding=names, effective=names, permitted=names),
        no_new_privileges=security.no_new_privileges,
        oom_score_adj=host.oom_score_adj or None,
    )


def _told(command: Sequence[str]) -> str:
    """Return a command as events tell it; Docker puts the blank behind the program also where no arguments follow."""
    return f"{command[0]} {' '.join(command[1:])}" if command else ""
