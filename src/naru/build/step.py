"""One command in a container on a snapshot that is being written: a RUN, or a package's configuration.

    <data-root>/build/step-<id>/    bundle, /etc files, the layer of mountpoints; gone with the step

What a step gets beyond its image is decided here: Docker's default sandbox, a network, resolv.conf, hosts and hostname,
and what `host` lends. None of it stays in the snapshot. Containers of steps are not in the engine's list.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from naru.build.host import Borrowed, borrow
from naru.build.mountpoints import with_mountpoints
from naru.errors import NaruError
from naru.network.hosts import container_hosts, host_network_hosts
from naru.network.networks import Networks
from naru.network.record import EndpointRequest
from naru.network.resolv_conf import HOST_PATH, SYSTEMD_PATH, container_resolv_conf, own_resolv_conf
from naru.oci.runtime import Mount, Process, Resources, Rlimit, Spec, User
from naru.runtime.capability import resolve
from naru.runtime.rootfs import Overlay
from naru.runtime.seccomp_default import default_profile
from naru.shim.protocol import AttachRequest, ExitRecord, LogConfig, TaskEvent
from naru.task.spec import DEFAULT_SHM_BYTES, base_spec
from naru.task.task import Task
from naru.task.tasks import StartRequest, Tasks

# Where a step finds the files of its `scripts`.
SCRIPTS = "/dev/pipes"
_PREFIX = "step-"
# The same for every step, so that a step that writes it down gives the same layer each time.
_HOSTNAME = "naru-build"
_READ_BYTES = 64 << 10
_CANCEL_POLL_MS = 200
# After SIGKILL: what a process stuck in the kernel may take before we give up on hearing of its end.
_EXIT_REPORT_S = 60.0


class Cancelled(NaruError):
    """The caller gave up; the step's container is gone."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to run. `env` wins over what the host lends; `scripts` are executable files by name in /dev/pipes."""

    args: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: str = ""
    mounts: Sequence[Mount] = ()
    network: str = "default"
    hostname: str = ""
    extra_hosts: Sequence[str] = ()
    scripts: Mapping[str, str] = field(default_factory=dict)
    is_privileged: bool = False
    resources: Resources | None = None
    rlimits: Sequence[Rlimit] = ()
    shm_size_bytes: int = DEFAULT_SHM_BYTES


class StepRunner:
    """Runs steps. `environ` is the environment to borrow from (the daemon's); an empty one lends no variables."""

    def __init__(self, tasks: Tasks, networks: Networks, directory: Path, environ: Mapping[str, str]) -> None:
        self._tasks = tasks
        self._networks = networks
        self._directory = directory
        self._environ = environ

    def run(
        self,
        step: Step,
        layers: Overlay,
        *,
        output: Callable[[bytes], None],
        cancelled: threading.Event | None = None,
        step_id: str = "",
    ) -> int:
        """Run `step` on `layers` to its end and return the exit code; `output` gets stdout and stderr as they come.

        CannotStart: the command cannot be executed. Cancelled: `cancelled` was set.
        """
        step_id = step_id or secrets.token_hex(32)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = self._directory / f"{_PREFIX}{step_id}"
        with ExitStack() as undo:
            directory.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            (directory / "rootfs").mkdir(mode=0o755)
            network = self._join(step_id, step, undo)
            borrowed = borrow(self._environ, directory)
            spec = self._spec(step_id, step, borrowed, directory, network)
            request = StartRequest(
                container_id=step_id,
                bundle=str(directory),
                spec=spec,
                overlay=with_mountpoints(layers, spec.mounts, directory),
                log=LogConfig(driver="none"),
            )
            return self._run(request, network, output, cancelled)

    def recover(self) -> None:
        """Remove what steps of a killed daemon left: their containers, sandboxes and directories."""
        for directory in self._directory.glob(f"{_PREFIX}*"):
            step_id = directory.name.removeprefix(_PREFIX)
            found = self._tasks.adopt(step_id, on_event=_ignore)
            if isinstance(found, Task):
                _end(found)
            elif isinstance(found, ExitRecord):
                self._tasks.remove(step_id)
            self._networks.leave(step_id)
            shutil.rmtree(directory, ignore_errors=True)

    def _run(
        self,
        request: StartRequest,
        network: _Network,
        output: Callable[[bytes], None],
        cancelled: threading.Event | None,
    ) -> int:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                sink = (AttachRequest(stdin=False, stdout=True, stderr=True, multiplexed=False), theirs.fileno())
                task = self._tasks.start(request, netns_fd=network.fd, attach=[sink], on_event=_ignore)
            try:
                _pump(ours, output, cancelled)
                return _wait(task, cancelled)
            finally:
                _end(task)

    def _join(self, step_id: str, step: Step, undo: ExitStack) -> _Network:
        if step.network == "host":
            return _Network(None)
        if step.network == "none":
            descriptor = self._networks.private_netns()
            undo.callback(os.close, descriptor)
            return _Network(descriptor)
        name = "bridge" if step.network == "default" else step.network
        sandbox = self._networks.join(step_id, [EndpointRequest(network=name)], [])
        undo.callback(self._networks.leave, step_id)
        gateway = next((endpoint.gateway for endpoint in sandbox.endpoints if endpoint.gateway), "")
        addresses = [endpoint.ip for endpoint in sandbox.endpoints if endpoint.ip]
        has_names = any(endpoint.has_names for endpoint in sandbox.endpoints)
        return _Network(sandbox.netns_fd, addresses, gateway, has_names=has_names)

    def _spec(self, step_id: str, step: Step, borrowed: Borrowed, directory: Path, network: _Network) -> Spec:
        hostname = step.hostname or _HOSTNAME
        environment = {**borrowed.environment, **step.env}
        capabilities = resolve(privileged=step.is_privileged)
        user = User(username=step.user) if step.user else User()
        return base_spec(
            process=Process(
                args=list(step.args),
                env=[f"{name}={value}" for name, value in environment.items()],
                cwd=step.cwd,
                user=user,
                rlimits=list(step.rlimits),
            ),
            hostname=hostname,
            cgroups_path=f"/naru/{step_id}",
            capabilities=capabilities,
            seccomp=None if step.is_privileged else default_profile(capabilities),
            privileged=step.is_privileged,
            resources=step.resources,
            shm_size_bytes=step.shm_size_bytes,
            share={"network": "host"} if network.fd is None else {},
            mounts=[
                *_etc_files(directory, hostname, step, network),
                *borrowed.mounts,
                *_scripts(directory, step.scripts),
                *step.mounts,
            ],
        )


@dataclass(frozen=True, slots=True)
class _Network:
    """The sandbox of a step; `fd` None is the host's."""

    fd: int | None
    addresses: list[str] = field(default_factory=list)
    gateway: str = ""
    has_names: bool = False


def _ignore(_event: TaskEvent) -> None:
    """Steps are waited for; their events tell nothing more."""


def _end(task: Task) -> None:
    """Kill what still runs of a step and have its shim go."""
    if task.exited is None:
        task.kill(signal.SIGKILL)
        task.wait(_EXIT_REPORT_S)
    task.delete()


def _pump(source: socket.socket, output: Callable[[bytes], None], cancelled: threading.Event | None) -> None:
    poll = select.poll()
    poll.register(source, select.POLLIN)
    while True:
        _check(cancelled)
        if not poll.poll(None if cancelled is None else _CANCEL_POLL_MS):
            continue
        data = source.recv(_READ_BYTES)
        if not data:
            return
        output(data)


def _wait(task: Task, cancelled: threading.Event | None) -> int:
    """Wait for the end, which may be long after the end of the output: a command can close its own."""
    while True:
        exited = task.wait(None if cancelled is None else _CANCEL_POLL_MS / 1000)
        if exited is not None:
            return exited.exit_code
        _check(cancelled)


def _check(cancelled: threading.Event | None) -> None:
    if cancelled is not None and cancelled.is_set():
        raise Cancelled("build cancelled")


def _etc_files(directory: Path, hostname: str, step: Step, network: _Network) -> list[Mount]:
    texts = {
        "hostname": f"{hostname}\n",
        "hosts": _hosts(hostname, step, network),
        "resolv.conf": _resolv_conf(network),
    }
    mounts = []
    for name, text in texts.items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)
        mounts.append(Mount(destination=f"/etc/{name}", type="bind", source=str(path), options=["rbind", "rprivate"]))
    return mounts


def _hosts(hostname: str, step: Step, network: _Network) -> str:
    if network.fd is None:
        return host_network_hosts(_text("/etc/hosts"), extra_hosts=step.extra_hosts)
    return container_hosts(
        hostname=hostname,
        addresses=network.addresses,
        extra_hosts=step.extra_hosts,
        host_gateway=network.gateway,
    )


def _resolv_conf(network: _Network) -> str:
    host_text = _text(HOST_PATH)
    if network.fd is None:
        return host_text
    if network.has_names:
        return own_resolv_conf(host_text).text()
    return container_resolv_conf(host_text, systemd_text=_text(SYSTEMD_PATH)).text()


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return ""


def _scripts(directory: Path, scripts: Mapping[str, str]) -> list[Mount]:
    if not scripts:
        return []
    place = directory / "pipes"
    place.mkdir(mode=0o755)
    for name, text in scripts.items():
        script = place / name
        script.write_text(text)
        script.chmod(0o755)
    return [Mount(destination=SCRIPTS, type="bind", source=str(place), options=["rbind", "ro"])]
