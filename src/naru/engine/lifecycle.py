"""A container's running life: start, stop, kill, pause, exit, restart, remove; and who is told of each.

Every change is made under the container's lock, saved, and only then told. Exits arrive as events from the task
layer and are handled on a small pool of threads, so that the reader of events never waits for a lock.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import msgspec

from naru.api.container import AttachOptions, ContainerWaitResponse
from naru.engine import device_requests, etc_files, mount_sources
from naru.engine.clock import now
from naru.engine.connect import finish
from naru.engine.container import Container, Status, Verb, advance
from naru.engine.detach_keys import parse as parse_detach_keys
from naru.engine.devices import device_node, host_devices, requested_devices
from naru.engine.links import links
from naru.engine.log_config import task_log_config
from naru.engine.logs import LogStream
from naru.engine.namespaces import hostname_of, join_network, shared_namespaces
from naru.engine.parts import Parts
from naru.engine.signals import parse_signal
from naru.engine.spec import runtime_spec
from naru.engine.waiters import Waiters
from naru.errors import CannotStart, Conflict, NaruError, NotFound, NotModified, Unavailable
from naru.network.record import Endpoint
from naru.shim.protocol import AttachRequest, Exited, ExitRecord, LogNews, OomKilled, TaskEvent
from naru.task.task import Task
from naru.task.tasks import StartRequest

log = logging.getLogger(__name__)

_DEFAULT_STOP_S = 10
_KILL_GRACE_S = 10
_RECORD_AGAIN_S = 1.0
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MOST_S = 60.0
_BACKOFF_RESET_S = 10.0  # a container that ran this long starts again without delay (moby's rule)


class Lifecycle:
    """Runs the containers of one engine. All methods block and may be called from any thread."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.waiters = Waiters()
        self._tasks: dict[str, Task] = {}
        self._attaching: dict[str, list[tuple[AttachRequest, int]]] = {}
        self._log_streams: dict[str, set[LogStream]] = {}
        self._backoff_s: dict[str, float] = {}
        self._restarts: dict[str, threading.Timer] = {}
        self._listeners: list[Callable[[TaskEvent], None]] = []
        self._pool = ThreadPoolExecutor(4, "exits")
        self._closing = False
        self._user_restarts: set[str] = set()
        self._on_running: list[Callable[[Container], None]] = []

    # --- start --------------------------------------------------------------------------------------------------

    def start(self, reference: str) -> None:
        """Start a container. NotModified: it runs. CannotStart: its command cannot be run (recorded, too)."""
        with self._parts.containers.locked(reference) as container:
            if container.status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.status is Status.RUNNING:
                raise NotModified(f"container {container.id} is already running")
            if container.status in (Status.REMOVING, Status.DEAD):
                raise Conflict("container is marked for removal and cannot be started")
            self._cancel_restart(container.id)
            self._start(msgspec.structs.replace(container, is_stopped_by_user=False, restart_count=0))

    def _start(self, container: Container) -> None:
        try:
            self._run(container)
        except NaruError as error:
            self._start_failed(container, error)
            raise

    def _run(self, container: Container) -> None:
        parts, host = self._parts, container.host_config
        directory = parts.paths.container(container.id)
        with ExitStack() as undo, ExitStack() as close:
            share = shared_namespaces(container, parts.containers)
            joined = join_network(container, parts.networks, parts.containers, undo)
            if joined.fd is not None and joined.is_ours:
                close.callback(os.close, joined.fd)
            hostname = hostname_of(container, parts.containers)
            files_of = self._etc_directory(container)
            if files_of == directory:
                etc_files.write(directory, container, hostname, joined.endpoints, links(container, parts.containers))
            layers = mount_sources.mount(parts, container, undo)
            spec = runtime_spec(
                container,
                hostname=hostname,
                files=etc_files.binds(files_of, [point.destination for point in container.mounts]),
                share=share,
                device=device_node,
                devices=requested_devices(host),
                host_devices=host_devices() if host.privileged else (),
                layers=layers,
            )
            device_requests.apply(spec, host.device_requests or [])
            request = StartRequest(
                container_id=container.id,
                bundle=str(directory),
                spec=spec,
                overlay=parts.snapshots.overlay(container.id),
                log=task_log_config(container, str(parts.paths.log(container.id))),
                open_stdin=container.config.open_stdin,
                stdin_once=container.config.stdin_once,
                init=bool(host.init),
            )
            attach = self._attaching.pop(container.id, [])
            for _, fd in attach:
                close.callback(os.close, fd)
            task = parts.tasks.start(request, netns_fd=joined.fd, attach=attach, on_event=self._on_event)
            undo.callback(task.kill, signal.SIGKILL)
            self._tasks[container.id] = task
            parts.containers.save(
                msgspec.structs.replace(
                    advance(container, Verb.START),
                    pid=task.pid,
                    started_at=task.started_at,
                    exit_code=0,
                    error="",
                    is_oom_killed=False,
                    endpoints=joined.endpoints,
                    ports=joined.ports,
                )
            )
            undo.pop_all()
        self._publish_networks(container, joined.endpoints, "connect")
        self.publish(container, "start")
        self._tell_running(container)

    def _tell_running(self, container: Container) -> None:
        for callback in self._on_running:
            callback(container)

    def _etc_directory(self, container: Container) -> Path:
        mode = container.host_config.network_mode
        if mode.startswith("container:"):
            return self._parts.paths.container(self._parts.containers.get(mode.removeprefix("container:")).id)
        return self._parts.paths.container(container.id)

    def _start_failed(self, container: Container, error: NaruError) -> None:
        code = error.exit_code if isinstance(error, CannotStart) else 128
        for _, fd in self._attaching.pop(container.id, []):
            os.close(fd)
        saved = self._parts.containers.save(
            msgspec.structs.replace(
                advance(container, Verb.EXIT), pid=0, exit_code=code, error=str(error), finished_at=now()
            )
        )
        self._tasks.pop(container.id, None)
        self._wake_followers(container.id)
        self.waiters.exited(container.id, code)
        if saved.host_config.auto_remove:
            self._remove(saved, volumes=True)

    # --- signals ------------------------------------------------------------------------------------------------

    def stop(self, reference: str, timeout_s: int | None, signal_name: str | None) -> None:
        """Ask the container to end, and kill it after `timeout_s` (-1: never). NotModified: it does not run."""
        with self._parts.containers.locked(reference) as container:
            if not container.is_running:
                if container.status is Status.RESTARTING:
                    self._cancel_restart(container.id)
                    self._parts.containers.save(
                        msgspec.structs.replace(advance(container, Verb.EXIT), is_stopped_by_user=True)
                    )
                    self._wake_followers(container.id)
                    return
                raise NotModified(f"container {container.id} is already stopped")
            exited = self._stopping(container)
            number = parse_signal(signal_name or container.config.stop_signal or "SIGTERM")
            if timeout_s is None:
                timeout_s = container.config.stop_timeout
            if timeout_s is None:
                timeout_s = _DEFAULT_STOP_S
            task = self.task(container)
            self.publish(container, "kill", signal=str(int(number)))
            self._end(container, task, number)
        try:
            exited.result(timeout_s if timeout_s >= 0 else None)
        except FutureTimeout:
            self.publish(container, "kill", signal="9")
            self._end(container, task, signal.SIGKILL)
            exited.result(_KILL_GRACE_S)
        self.publish(container, "stop")

    def restart(self, reference: str, timeout_s: int | None, signal_name: str | None) -> None:
        """Stop a container if it runs, and start it. One with `--rm` is not removed in between."""
        container = self._parts.containers.get(reference)
        self._user_restarts.add(container.id)
        try:
            with suppress(NotModified):
                self.stop(container.id, timeout_s, signal_name)
            self.start(container.id)
        finally:
            self._user_restarts.discard(container.id)
            self._wake_followers(container.id)  # which have waited for the start, that may have failed
        self.publish(container, "restart")

    def kill(self, reference: str, signal_name: str) -> None:
        """Send a signal; SIGKILL also waits for the end. Conflict: the container does not run."""
        number = parse_signal(signal_name or "SIGKILL")
        with self._parts.containers.locked(reference) as container:
            if not container.is_running:
                raise Conflict(
                    f"cannot kill container: {reference}: container {container.id} is not running",
                )
            exited = self._stopping(container) if number == signal.SIGKILL else None
            task = self.task(container)
            if number == signal.SIGKILL:
                self._end(container, task, number)
            else:
                task.kill(number)
                if container.status is Status.PAUSED and self._is_to_end(container, number):
                    task.resume()
                    self._parts.containers.save(advance(container, Verb.UNPAUSE))
                    self.publish(container, "unpause")
        self.publish(container, "kill", signal=str(int(number)))
        if exited is not None:
            exited.result(_KILL_GRACE_S)

    def _end(self, container: Container, task: Task, number: int) -> None:
        """Send a signal that is to end the container, which may have ended by itself with its news on the way."""
        with suppress(Conflict, Unavailable):
            task.kill(number)
            if container.status is Status.PAUSED:
                task.resume()

    @staticmethod
    def _is_to_end(container: Container, number: int) -> bool:
        """As Docker has it: the container's stop signal is, and any signal where it has none of its own."""
        own = container.config.stop_signal
        return not own or parse_signal(own) == number

    def _stopping(self, container: Container) -> Future[ContainerWaitResponse]:
        self._parts.containers.save(msgspec.structs.replace(container, is_stopped_by_user=True))
        return self.waiters.add(container.id, "not-running")

    def pause(self, reference: str, *, for_commit: bool = False) -> None:
        """Freeze every process of the container. One paused `for_commit` runs again after a restart of the daemon."""
        with self._parts.containers.locked(reference) as container:
            if container.status is Status.PAUSED:
                raise Conflict(f"container {container.id} is already paused")
            if not container.is_running:
                raise Conflict(f"container {container.id} is not running")
            paused = msgspec.structs.replace(advance(container, Verb.PAUSE), is_paused_for_commit=for_commit)
            self._parts.containers.save(paused)  # first: a frozen container that nobody knows of would stay so
            try:
                self.task(container).pause()
            except BaseException:
                self._parts.containers.save(container)
                raise
        self.publish(container, "pause")

    def unpause(self, reference: str) -> None:
        """Thaw what `pause` froze."""
        with self._parts.containers.locked(reference) as container:
            if container.status is not Status.PAUSED:
                raise Conflict(f"container {container.id} is not paused")
            self.task(container).resume()
            self._parts.containers.save(advance(container, Verb.UNPAUSE))
        self.publish(container, "unpause")

    def wait(self, reference: str, condition: str) -> Future[ContainerWaitResponse]:
        """Return a future of the container's exit."""
        with self._parts.containers.locked(reference) as container:
            future = self.waiters.add(container.id, condition or "not-running")
            if (
                condition in ("", "not-running")
                and not container.is_running
                and container.status is not Status.RESTARTING
            ):
                self.waiters.exited(container.id, container.exit_code, container.error)
            return future

    # --- input and output ---------------------------------------------------------------------------------------

    def attach(self, reference: str, options: AttachOptions, fd: int) -> None:
        """Hand a client's connection to the container; it is served by the shim, also when it starts later."""
        with self._parts.containers.locked(reference) as container:
            request = AttachRequest(
                stdin=options.stdin and options.stream and container.config.open_stdin,
                stdout=options.stdout,
                stderr=options.stderr,
                multiplexed=options.multiplexed,
                detach_keys=parse_detach_keys(options.detach_keys) if container.config.tty else b"",
                prefix=options.prefix,
            )
            if container.status is Status.PAUSED:
                raise Conflict(f"container {container.id} is paused, unpause the container before attach")
            self.publish(container, "attach")
            if container.is_running:
                self.task(container).attach(request, fd)
            else:
                self._attaching.setdefault(container.id, []).append((request, os.dup(fd)))

    def follow_log(self, container: Container, stream: LogStream) -> None:
        """Wake `stream` when the container exits."""
        self._log_streams.setdefault(container.id, set()).add(stream)

    def forget_log(self, container_id: str, stream: LogStream) -> None:
        """Stop waking `stream`."""
        streams = self._log_streams.get(container_id, set())
        streams.discard(stream)
        if not streams:
            self._log_streams.pop(container_id, None)

    def _wake_followers(self, container_id: str) -> None:
        for stream in list(self._log_streams.get(container_id, ())):
            stream.wake()

    def goes_on(self, container_id: str) -> bool:
        """Is more output to come: does the container run, or is it being started again?"""
        try:
            current = self._parts.containers.get(container_id)
        except NotFound:
            return False
        return current.is_running or current.status is Status.RESTARTING or container_id in self._user_restarts

    def task(self, container: Container) -> Task:
        """Return the running task. Conflict: there is none."""
        task = self._tasks.get(container.id)
        if task is None:
            raise Conflict(f"container {container.id} is not running")
        return task

    # --- exit ---------------------------------------------------------------------------------------------------

    def on_task_event(self, callback: Callable[[TaskEvent], None]) -> None:
        """Tell `callback` of every task event, in order, before it has any consequence."""
        self._listeners.append(callback)

    def on_running(self, callback: Callable[[Container], None]) -> None:
        """Tell `callback` of every container that has started, or is found running after a restart of the daemon."""
        self._on_running.append(callback)

    def _on_event(self, event: TaskEvent) -> None:
        for callback in self._listeners:
            callback(event)
        if isinstance(event, Exited):
            self._pool.submit(self._guarded, self._exited, event)
        elif isinstance(event, OomKilled):
            self._pool.submit(self._guarded, self._oom_killed, event)
        elif isinstance(event, LogNews):
            log.warning("container %s: log: %s", event.container_id, event.news)

    def _guarded(self, handle: Callable[..., None], event: TaskEvent) -> None:
        try:
            handle(event)
        except OSError as error:
            # A full disk: what happened stays true, and is recorded once there is room.
            log.warning("recording %r: %s", event, error)
            again = threading.Timer(_RECORD_AGAIN_S, self._again, [handle, event])
            again.daemon = True
            again.start()
        except Exception:
            log.exception("handling %r failed", event)

    def _again(self, handle: Callable[..., None], event: TaskEvent) -> None:
        if not self._closing:
            self._pool.submit(self._guarded, handle, event)

    def _oom_killed(self, event: OomKilled) -> None:
        with self._parts.containers.locked(event.container_id) as container:
            self._parts.containers.save(msgspec.structs.replace(container, is_oom_killed=True))
        self.publish(container, "oom")

    def _exited(self, event: Exited) -> None:
        try:
            with self._parts.containers.locked(event.container_id) as container:
                if container.is_running:
                    self._settle(container, event)
                elif container.host_config.auto_remove:  # settled before, and then the disk was too full to remove it
                    self._remove(container, volumes=True)
        except NotFound:
            return

    def _settle(self, container: Container, event: Exited) -> None:
        """Record an exit, release what the task held, tell everybody, then restart or remove."""
        parts = self._parts
        parts.networks.leave(container.id)
        parts.volumes.unmount(container.id)
        exited = msgspec.structs.replace(
            advance(container, Verb.EXIT),
            pid=0,
            exit_code=event.exit_code,
            error=event.reason,
            is_oom_killed=container.is_oom_killed or event.oom_killed,
            finished_at=event.finished_at,
            endpoints=[],
            ports=[],
        )
        restarts = self._wants_restart(exited)
        if restarts:  # nobody is to see it as ended in between
            exited = msgspec.structs.replace(
                advance(exited, Verb.AWAIT_RESTART), restart_count=container.restart_count + 1
            )
        saved = parts.containers.save(exited)
        task = self._tasks.pop(container.id, None)
        if task is not None:
            task.delete()
        started = container.started_at or event.finished_at
        ran_s = max(0.0, (event.finished_at - started) / timedelta(seconds=1))
        self.publish(saved, "die", exitCode=str(event.exit_code), execDuration=str(int(ran_s)))
        self._publish_networks(container, container.endpoints, "disconnect")
        # Also of a container that will be started again: `docker wait` returns at each exit. moby, SetRestarting.
        self.waiters.exited(container.id, event.exit_code, event.reason)
        if restarts:
            self._restart_later(saved.id, ran_s)
            return
        self._wake_followers(container.id)
        is_restarting = container.id in self._user_restarts
        if saved.host_config.auto_remove and not is_restarting:
            self._remove(saved, volumes=True)

    def _wants_restart(self, container: Container) -> bool:
        policy = container.host_config.restart_policy
        if container.is_stopped_by_user or self._closing:
            return False
        match policy.name:
            case "always" | "unless-stopped":
                return True
            case "on-failure":
                most = policy.maximum_retry_count
                return container.exit_code != 0 and (not most or container.restart_count < most)
            case _:
                return False

    def _restart_later(self, container_id: str, ran_s: float) -> None:
        delay_s = self._backoff_s.get(container_id, _BACKOFF_FIRST_S)
        if ran_s >= _BACKOFF_RESET_S:
            delay_s = _BACKOFF_FIRST_S
        self._backoff_s[container_id] = min(delay_s * 2, _BACKOFF_MOST_S)
        timer = threading.Timer(delay_s, self._restart, [container_id])
        timer.daemon = True
        self._restarts[container_id] = timer
        timer.start()

    def _restart(self, container_id: str) -> None:
        try:
            with self._parts.containers.locked(container_id) as container:
                self._restarts.pop(container_id, None)
                if container.status is Status.RESTARTING:
                    self._start(container)
        except NotFound:
            return
        except NaruError as error:
            log.warning("container %s: restart failed: %s", container_id, error)

    def _cancel_restart(self, container_id: str) -> None:
        timer = self._restarts.pop(container_id, None)
        if timer is not None:
            timer.cancel()
        self._backoff_s.pop(container_id, None)

    # --- remove -------------------------------------------------------------------------------------------------

    def remove(self, reference: str, *, force: bool, volumes: bool) -> None:
        """Remove a container and all that is only its own. Conflict: it runs and `force` was not asked."""
        container = self._parts.containers.get(reference)
        while not self._try_remove(container, force=force, volumes=volumes):
            pass

    def _try_remove(self, container: Container, *, force: bool, volumes: bool) -> bool:
        """Return False if it was started, by its restart policy, just before it could be removed."""
        container = self._parts.containers.get(container.id)
        if not force and container.status is Status.PAUSED:
            raise Conflict(
                f'cannot remove container "/{container.name}": container is paused and must be unpaused first'
            )
        if not force and (container.is_running or container.status is Status.RESTARTING):
            raise Conflict(
                f'cannot remove container "/{container.name}": container is {container.status}: '
                "stop the container before removing or force remove"
            )
        if container.is_running:
            try:
                self.kill(container.id, "SIGKILL")
            except (Conflict, NotFound):
                pass  # it ended, or `--rm` removed it, between the look and the kill
        try:
            with self._parts.containers.locked(container.id) as current:
                self._cancel_restart(current.id)
                if current.is_running and force:
                    return False
                self._remove(current, volumes=volumes)
        except NotFound:
            if not container.host_config.auto_remove:
                raise
        return True

    def _remove(self, container: Container, *, volumes: bool) -> None:
        parts = self._parts
        container = parts.containers.save(advance(container, Verb.REMOVE))
        for _, fd in self._attaching.pop(container.id, []):
            os.close(fd)
        parts.snapshots.remove(container.id)
        directory = parts.paths.container(container.id)
        if directory.exists():  # a daemon that was killed here has removed it already
            shutil.rmtree(directory)
        parts.containers.remove(container)
        parts.volumes.release(container.id, remove_anonymous=volumes)
        self.publish(container, "destroy")
        self.waiters.removed(container.id, container.exit_code)

    # --- the daemon's own life ----------------------------------------------------------------------------------

    def adopt(self, container: Container) -> bool:
        """After a daemon restart: take over the running task, or settle the exit that was missed.

        Returns True if it still runs.
        """
        found = self._parts.tasks.adopt(container.id, on_event=self._on_event)
        match found:
            case Task():
                self._tasks[container.id] = found
                self._take_over(container, found)
                mount_sources.hold(self._parts, container)
                self._tell_running(container)
                return True
            case ExitRecord():
                exited = found.exited
            case _:
                exited = Exited(container_id=container.id, exit_code=255, finished_at=now(), reason="")
        if container.is_running:
            with self._parts.containers.locked(container.id) as current:
                self._settle(current, exited)
        self._parts.tasks.remove(container.id)
        return False

    def _take_over(self, container: Container, task: Task) -> None:
        """Hold the network of a container that still runs, and record its start if that is what was missed."""
        try:
            fd = os.open(f"/proc/{task.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # it is just ending: its exit is on the way
        try:
            sandbox = self._parts.networks.restore(container.id, fd)
            container = finish(self._parts, container, sandbox)
        except NotFound:
            pass  # it has the host's network, or somebody else's
        finally:
            os.close(fd)
        if not container.is_running:
            self._parts.containers.save(
                msgspec.structs.replace(container, status=Status.RUNNING, pid=task.pid, started_at=task.started_at)
            )

    def discard_task(self, container_id: str) -> None:
        """End and forget a task that no record explains: a daemon was killed while it started or removed it."""
        found = self._parts.tasks.adopt(container_id, on_event=lambda _: None)
        if isinstance(found, Task):
            found.kill(signal.SIGKILL)
            found.wait(_KILL_GRACE_S)
            found.delete()
        else:
            self._parts.tasks.remove(container_id)

    def close(self) -> None:
        """Stop restarting containers: the daemon ends, they go on."""
        self._closing = True
        for timer in list(self._restarts.values()):
            timer.cancel()
        self._pool.shutdown(wait=True)

    def _publish_networks(self, container: Container, endpoints: Sequence[Endpoint], action: str) -> None:
        for endpoint in endpoints:
            attributes = {"container": container.id, "name": endpoint.network_name, "type": "bridge"}
            self._parts.events.publish("network", action, endpoint.network_id, attributes)

    def publish(self, container: Container, action: str, **attributes: str) -> None:
        """Tell the event stream what happened to `container`."""
        labels = container.config.labels or {}
        self._parts.events.publish(
            "container",
            action,
            container.id,
            {**labels, "image": container.config.image, "name": container.name, **attributes},
        )
