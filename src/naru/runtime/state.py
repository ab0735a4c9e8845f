"""Containers of `naru-runtime`, which remembers them between its calls, and the verbs on them.

    <root>/<id>/state.json    `Record`: written once, when the container has been created
    <root>/<id>/config.json   the spec as it was then; changes in the bundle afterwards mean nothing
    <root>/<id>/start.sock    listening socket of a process that waits to be started; gone once it has been
    <root>/<id>/lock          held (flock) by every verb that changes the container

The status is never stored: it is read off the process, the socket and the freezer. The engine does not use this
module; its shims keep their own records. OCI runtime-spec, runtime.md, State and Lifecycle.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from msgspec import Struct, json

from naru.errors import Conflict, InvalidArgument, NotFound
from naru.oci.runtime import OCI_VERSION, Spec, State, decode_spec, encode
from naru.persist.files import write_atomically
from naru.runtime import sync
from naru.runtime.cgroup import Cgroup, open_cgroup
from naru.runtime.child import await_exec
from naru.runtime.create import Stdio, create
from naru.runtime.hooks import run_all_hooks

DEFAULT_ROOT = "/run/naru-runtime"
_ID = re.compile(r"[\w+.-]{1,1024}", re.ASCII)
_END_TIMEOUT_S = 10.0


class Record(Struct):
    """What a container is, apart from its status. `start_ticks` tells its process from a later one of the same ID."""

    id: str
    bundle: str
    rootfs: str
    pid: int
    start_ticks: int
    cgroups_path: str
    created: str
    annotations: dict[str, str]


class Container:
    """A container's directory below the runtime's root, and the verbs that need nothing else."""

    def __init__(self, root: str, container_id: str) -> None:
        if not _ID.fullmatch(container_id) or container_id in (".", ".."):
            raise InvalidArgument(f"invalid container ID format: {container_id}")
        self.id = container_id
        self.directory = os.path.join(root, container_id)

    def record(self) -> Record:
        """Return the record. NotFound: no such container."""
        try:
            with open(f"{self.directory}/state.json", "rb") as file:
                return json.decode(file.read(), type=Record)
        except FileNotFoundError:
            raise NotFound(f"container does not exist: {self.id}") from None

    def spec(self) -> Spec:
        """Return the spec the container was created from."""
        with open(f"{self.directory}/config.json", "rb") as file:
            return decode_spec(file.read())

    def status(self, record: Record) -> str:
        """Return created, running, paused or stopped."""
        if record.start_ticks == 0 or start_ticks(record.pid) != record.start_ticks:
            return "stopped"
        if os.path.exists(f"{self.directory}/start.sock"):
            return "created"
        return "paused" if open_cgroup(record.cgroups_path).is_frozen() else "running"

    def state(self) -> State:
        """Return the specification's state."""
        record = self.record()
        status = self.status(record)
        return State(
            oci_version=OCI_VERSION,
            id=record.id,
            status=status,
            pid=0 if status == "stopped" else record.pid,
            bundle=record.bundle,
            annotations=record.annotations,
        )

    def cgroup(self) -> Cgroup:
        """Return the container's control group."""
        return open_cgroup(self.record().cgroups_path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the container against other verbs. NotFound: no such container."""
        try:
            fd = os.open(f"{self.directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise NotFound(f"container does not exist: {self.id}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def create_container(
    container: Container,
    spec: Spec,
    *,
    bundle: str,
    cgroups_path: str,
    stdio: Stdio | None,
    preserve_fds: int,
    use_pivot: bool,
    new_keyring: bool,
) -> tuple[Record, int | None]:
    """Create the container and record it; return the record and the console's master if there is one.

    The process is the caller's child and waits at its socket, whoever starts it. Conflict: the ID is taken.
    """
    os.makedirs(os.path.dirname(container.directory), 0o711, exist_ok=True)
    try:
        os.mkdir(container.directory, 0o700)
    except FileExistsError:
        raise Conflict(f"container with given ID already exists: {container.id}") from None
    try:
        with container.locked(), _listen(container) as listener:
            if spec.linux is not None:
                spec.linux.cgroups_path = cgroups_path
            write_atomically(f"{container.directory}/config.json", encode(spec), durable=False)
            created = create(
                spec,
                container_id=container.id,
                bundle=bundle,
                stdio=stdio,
                listener=listener,
                preserve_fds=preserve_fds,
                use_pivot=use_pivot,
                new_keyring=new_keyring,
            )
            record = Record(
                id=container.id,
                bundle=bundle,
                rootfs=os.path.join(bundle, spec.root.path if spec.root else "rootfs"),
                pid=created.pid,
                start_ticks=start_ticks(created.pid),
                cgroups_path=cgroups_path,
                created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                annotations=spec.annotations,
            )
            try:
                write_atomically(f"{container.directory}/state.json", json.encode(record), durable=False)
            except BaseException:
                created.discard()
                raise
            os.close(created.pidfd)
            return record, created.console
    except BaseException:
        shutil.rmtree(container.directory, ignore_errors=True)
        raise


@contextmanager
def _listen(container: Container) -> Iterator[socket.socket]:
    """Listen at start.sock; by a short name, because a socket's path has at most 107 bytes."""
    directory = os.open(container.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/start.sock")
        os.chmod("start.sock", 0o600, dir_fd=directory)
        listener.listen(1)
        yield listener
    finally:
        listener.close()
        os.close(directory)


def start_container(container: Container) -> list[str]:
    """Let a created container execute its program, and return warnings, of its poststart hooks.

    CannotStart: it could not. Conflict: not in status created.
    """
    with container.locked():
        record = container.record()
        status = container.status(record)
        if status != "created":
            raise Conflict(f"cannot start a container that is {status}")
        directory = os.open(container.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.connect(f"/proc/self/fd/{directory}/start.sock")
            except ConnectionRefusedError:
                raise Conflict("cannot start a container that is stopped") from None
            finally:
                os.close(directory)
            os.unlink(f"{container.directory}/start.sock")
            sync.send(channel, sync.START)
            await_exec(channel)
    hooks = container.spec().hooks
    if hooks is not None and hooks.poststart:
        return run_all_hooks("poststart", hooks.poststart, container.state())
    return []


def kill_container(container: Container, signal_number: int, *, everyone: bool = False) -> None:
    """Signal the container's process, or with `everyone` all of them. Conflict: it is not running."""
    record = container.record()
    if everyone or (_shares_pid_namespace(container) and signal_number == signal.SIGKILL):
        open_cgroup(record.cgroups_path).kill_all(signal_number)
        return
    if container.status(record) == "stopped":
        raise Conflict("container not running")
    _signal(record, signal_number)


def delete_container(container: Container, *, force: bool = False) -> list[str]:
    """Remove what is left of a stopped container; one only created, or with `force` any, is killed first.

    Returns warnings, of its poststop hooks. Conflict: it is running.
    """
    warnings: list[str] = []
    try:
        with container.locked():
            record = container.record()
            status = container.status(record)
            if status not in ("stopped", "created") and not force:
                raise Conflict(f"cannot delete container {container.id} that is not stopped: {status}")
            cgroup = open_cgroup(record.cgroups_path)
            if status != "stopped":
                _signal(record, signal.SIGKILL)
                if status == "paused":
                    cgroup.thaw()
                _await_end(record)
            cgroup.remove(kill=True)
            hooks = container.spec().hooks
            if hooks is not None and hooks.poststop:
                warnings = run_all_hooks("poststop", hooks.poststop, container.state())
            shutil.rmtree(container.directory)
    except NotFound:
        if os.path.isdir(container.directory):  # creation was cut off before there was a record
            shutil.rmtree(container.directory)
        elif not force:
            raise
    return warnings


def containers(root: str) -> list[Container]:
    """Return the containers below `root`, by name."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    return [Container(root, name) for name in names if os.path.exists(PurePath(root, name, "state.json"))]


def start_ticks(pid: int) -> int:
    """Return when `pid` was started, in clock ticks since boot; 0 if it has ended, a zombie included."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def _signal(record: Record, signal_number: int) -> None:
    """By pidfd, with the check after it is open: the number may have been given to another process."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if start_ticks(record.pid) == record.start_ticks:
            signal.pidfd_send_signal(pidfd, signal_number)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _await_end(record: Record) -> None:
    import select

    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if start_ticks(record.pid) == record.start_ticks:
            select.select([pidfd], [], [], _END_TIMEOUT_S)
    finally:
        os.close(pidfd)


def _shares_pid_namespace(container: Container) -> bool:
    """Without a PID namespace of its own, the end of init does not end the others."""
    linux = container.spec().linux
    return linux is None or not any(entry.type == "pid" and not entry.path for entry in linux.namespaces)
