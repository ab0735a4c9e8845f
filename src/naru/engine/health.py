"""Health checks: a command run inside the container every so often, and what its results add up to.

One thread for each container that has a check; it ends with the container. Results live in memory: after a restart of
the daemon a container is "starting" again. Engine API, Health; Dockerfile reference, HEALTHCHECK.
"""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import threading
import time
from datetime import datetime

from msgspec.structs import replace

from naru.api.container import Health, HealthcheckResult, HealthConfig
from naru.api.exec import ExecCreateRequest
from naru.engine.clock import now, rfc3339
from naru.engine.container import Container, Containers, Status
from naru.engine.execs import exec_process
from naru.engine.lifecycle import Lifecycle
from naru.errors import NaruError, NotFound
from naru.shim.protocol import AttachRequest, Exited, TaskEvent
from naru.task.task import ExecRequest, Task

log = logging.getLogger(__name__)

# Docker's defaults, and how much of a check's output and how many results it keeps.
_INTERVAL_S = 30.0
_TIMEOUT_S = 30.0
_START_INTERVAL_S = 5.0
_RETRIES = 3
_OUTPUT_MOST = 4096
_KEPT = 5
_POLL_S = 0.02  # between looks for the exit code of a check that closed its output before it ended


class HealthChecks:
    """The health of one engine's containers."""

    def __init__(self, containers: Containers, lifecycle: Lifecycle) -> None:
        self._containers = containers
        self._lifecycle = lifecycle
        self._lock = threading.Lock()
        self._health: dict[str, Health] = {}
        self._ended: dict[str, threading.Event] = {}
        lifecycle.on_running(self.start)
        lifecycle.on_task_event(self._on_event)

    def of(self, container_id: str) -> Health | None:
        """Return a container's health; None if it has no check or never ran."""
        with self._lock:
            health = self._health.get(container_id)
            return None if health is None else replace(health, log=list(health.log or []))

    def start(self, container: Container) -> None:
        """Begin to check a container that has just started, if it has a check."""
        check = container.config.healthcheck
        if check is None or not command(check, container.config.shell):
            return
        ended = threading.Event()
        known = {record.id for record in self._containers.all()}
        with self._lock:
            for gone in self._health.keys() - known:
                del self._health[gone]
            self._health[container.id] = Health(status="starting")
            self._ended[container.id] = ended
        threading.Thread(
            target=self._watch, args=(container.id, check, ended), name=f"health {container.name}", daemon=True
        ).start()

    def _on_event(self, event: TaskEvent) -> None:
        if isinstance(event, Exited):
            with self._lock:
                ended = self._ended.pop(event.container_id, None)
                if event.container_id in self._health:
                    self._health[event.container_id].status = "unhealthy"
            if ended is not None:
                ended.set()

    def _watch(self, container_id: str, check: HealthConfig, ended: threading.Event) -> None:
        started = time.monotonic()
        while not ended.wait(self._pause_s(container_id, check, started)):
            try:
                container = self._containers.get(container_id)
            except NotFound:
                break
            if container.status is not Status.RUNNING:
                continue  # paused: nothing can answer
            result = self._probe(container, check)
            if not ended.is_set():
                self._record(
                    container, check, result, in_start_period=time.monotonic() - started < seconds(check.start_period)
                )
        with self._lock:
            if self._ended.get(container_id) is ended:
                del self._ended[container_id]

    def _pause_s(self, container_id: str, check: HealthConfig, started: float) -> float:
        starting = self._health[container_id].status == "starting"
        if starting and time.monotonic() - started < seconds(check.start_period):
            return seconds(check.start_interval) or _START_INTERVAL_S
        return seconds(check.interval) or _INTERVAL_S

    def _probe(self, container: Container, check: HealthConfig) -> HealthcheckResult:
        """Run the check once. A check that cannot be run, or takes too long, has exit code -1."""
        began = now()
        timeout_s = seconds(check.timeout) or _TIMEOUT_S
        request = ExecCreateRequest(cmd=command(check, container.config.shell))
        ours, theirs = socket.socketpair()
        with ours:
            try:
                task = self._lifecycle.task(container)
                exec_id = secrets.token_hex(32)
                with theirs:
                    task.exec(
                        ExecRequest(exec_id=exec_id, process=exec_process(container, request, None)),
                        attach=[(AttachRequest(multiplexed=False), theirs.fileno())],
                    )
                output, exit_code = _collect(task, exec_id, ours, timeout_s)
            except NaruError as error:
                output, exit_code = str(error), -1
        return _result(began, exit_code, output)

    def _record(
        self, container: Container, check: HealthConfig, result: HealthcheckResult, *, in_start_period: bool
    ) -> None:
        with self._lock:
            health = self._health[container.id]
            before = health.status
            health.log = [*(health.log or []), result][-_KEPT:]
            if result.exit_code == 0:
                health.status, health.failing_streak = "healthy", 0
            elif not (in_start_period and before == "starting"):
                health.failing_streak += 1
                if health.failing_streak >= (check.retries or _RETRIES):
                    health.status = "unhealthy"
            after = health.status
        if after != before:
            self._lifecycle.publish(container, f"health_status: {after}")


def command(check: HealthConfig, shell: list[str] | None) -> list[str]:
    """Return the command of a check; none for `NONE` and for one that is empty."""
    match check.test or []:
        case ["CMD", *words]:
            return words
        case ["CMD-SHELL", *words] if words:
            return [*(shell or ["/bin/sh", "-c"]), words[0]]
        case _:
            return []


def seconds(nanoseconds: int) -> float:
    """Return the wire's nanoseconds as seconds."""
    return nanoseconds / 1e9


def _collect(task: Task, exec_id: str, stream: socket.socket, timeout_s: float) -> tuple[str, int]:
    """Return a check's output and exit code; kill it at its time's end."""
    deadline = time.monotonic() + timeout_s
    output = bytearray()
    try:
        while (left := deadline - time.monotonic()) > 0:
            stream.settimeout(left)
            part = stream.recv(65536)
            if not part:
                break
            output += part[: _OUTPUT_MOST - len(output)]
        code = _exit_code(task, exec_id, deadline)
    except TimeoutError:
        code = None
    if code is None:
        task.exec_kill(exec_id, signal.SIGKILL)
        return f"Health check exceeded timeout ({timeout_s:g}s): {output.decode(errors='replace')}", -1
    return output.decode(errors="replace"), code


def _exit_code(task: Task, exec_id: str, deadline: float) -> int | None:
    while (code := task.exec_status(exec_id).exit_code) is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return code


def _result(began: datetime, exit_code: int, output: str) -> HealthcheckResult:
    return HealthcheckResult(start=rfc3339(began), end=rfc3339(now()), exit_code=exit_code, output=output)
