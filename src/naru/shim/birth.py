"""Making a container: the work of the process that is forked beside every spare shim.

It runs through all of the runtime, and every object that a forked Python touches becomes a private copy, 3 MB in all,
which this process takes with it when it ends. The shim itself only receives the result.

    narud ──Start, descriptors──► creator ──clone──► init
    narud ◄──Answer──────────────┘   │ ends: init becomes the child of the shim, a subreaper
                        shim ◄──Handover, descriptors
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from naru.errors import InvalidArgument, NaruError
from naru.oci.runtime import Linux, Namespace, Process, Spec, State, decode_spec
from naru.runtime.capability import DEFAULT_CAPABILITIES
from naru.runtime.cgroup import Cgroup
from naru.runtime.create import create, plan
from naru.runtime.rootfs import Overlay
from naru.runtime.seccomp_default import default_profile
from naru.runtime.stdio import Stdio
from naru.shim import protocol, record
from naru.shim.json_log import open_log
from naru.shim.protocol import SOCKET_FILE, Answer, AttachRequest, Birth, LogConfig, Start, Started
from naru.shim.streams import open_streams

_BACKLOG = 8


class Handover(Struct):
    """What the shim must know of its container. `roles` says what each descriptor of the message is.

    control, listener, pidfd: always. stdin, stdout, stderr or console; log; oom: what there is. Then the clients.
    """

    container_id: str
    directory: str
    bundle: str
    cgroup: str
    started: Started
    log: LogConfig
    stdin_once: bool
    clients: list[AttachRequest]
    roles: list[str]


handover_decoder = msgspec.json.Decoder(Handover)
start_decoder = msgspec.json.Decoder(Start)


def warm_up() -> None:
    """Plan a container as Docker's default ones are, touching nothing: what that loads and caches is then inherited."""
    profile = default_profile(DEFAULT_CAPABILITIES)
    spec = Spec(process=Process(args=["true"]), linux=Linux(namespaces=[Namespace(type="mount")], seccomp=profile))
    nowhere = Overlay(base="/", lower=("lower",), upper="upper", work="work")
    state = State(id="", status="creating", bundle="")
    plan(spec, bundle="/", overlay=nowhere, cgroup=None, state=state, new=frozenset({"mount"}), joins={})


def bear(request: Start, fds: list[int], shim: socket.socket, shim_pid: int) -> None:
    """Create and start the container, answer narud (on the first of `fds`), and hand everything to the shim.

    Descriptors stay open here: the caller ends when this returns.
    """
    control = socket.socket(fileno=fds.pop(0))
    with ExitStack() as undo:
        try:
            handover, given = _bear(request, fds, shim_pid, undo)
        except Exception as error:  # narud decides what it means
            undo.close()
            with suppress(OSError):
                protocol.send(control, Answer(0, failure=protocol.failure_of(error)))
            return
        # narud first: once the shim has the connection it may speak of the container's end. If narud is gone, the next
        # one finds the container.
        with suppress(OSError):
            protocol.send(control, Answer(0, result=protocol.encode(handover.started)))
        protocol.send(shim, handover, [control.fileno(), *given])
        undo.pop_all()


def _bear(request: Start, fds: list[int], shim_pid: int, undo: ExitStack) -> tuple[Handover, list[int]]:
    spec = read_spec(request.bundle)
    assert spec.process is not None
    directory = os.path.join(request.run_dir, request.container_id)
    record.remove(directory)  # of a shim that is done: narud starts no container twice
    os.makedirs(directory, 0o700)
    undo.callback(record.remove, directory)
    given = {"listener": _listen(directory)}
    birth = Birth(request.container_id, shim_pid, record.start_ticks(shim_pid), request.bundle, request.cgroup)
    record.write(directory, birth)
    if request.log.driver != "none":
        given["log"] = open_log(request.log.path)
    inherited = {"network": fds.pop(0)} if request.has_netns else {}
    stdio, theirs = None, ExitStack()
    if not spec.process.terminal:
        numbers, ends = open_streams(stdin=request.open_stdin, theirs=theirs, ours=ExitStack())
        stdio = Stdio(*numbers)
        given |= ends.by_name()
    if spec.process.oom_score_adj is None:
        spec.process.oom_score_adj = 0  # not the shim's own
    created = create(
        spec,
        container_id=request.container_id,
        bundle=request.bundle,
        stdio=stdio,
        overlay=request.overlay,
        inherited=inherited,
        init=request.init,
    )
    created.start()  # undoes what `create` did if it fails
    started = Started(created.pid, datetime.now(UTC))
    undo.callback(created.cgroup.remove, kill=True)
    theirs.close()
    given["pidfd"] = created.pidfd
    if created.console is not None:
        given["console"] = created.console
    if (oom := _watch_memory(created.cgroup)) is not None:
        given["oom"] = oom
    birth.init_pid, birth.init_start_ticks = created.pid, record.start_ticks(created.pid)
    record.write(directory, birth)
    handover = Handover(
        container_id=request.container_id,
        directory=directory,
        bundle=request.bundle,
        cgroup=request.cgroup,
        started=started,
        log=request.log,
        stdin_once=request.stdin_once,
        clients=request.attach,
        roles=["control", *given],
    )
    return handover, [*given.values(), *fds]


def read_spec(bundle: str) -> Spec:
    """Return the bundle's config.json. InvalidArgument: not a runtime spec, or without a process."""
    with open(os.path.join(bundle, "config.json"), "rb") as file:
        spec = decode_spec(file.read())
    if spec.process is None or spec.linux is None:
        raise InvalidArgument(f"{bundle}/config.json: no process or no linux section")
    return spec


def _listen(directory: str) -> int:
    """Return a socket that listens in `directory`, to this user alone."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Through the directory's descriptor: a socket's path may have 107 bytes at most. unix(7)
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{parent}/{SOCKET_FILE}")
    finally:
        os.close(parent)
    os.chmod(os.path.join(directory, SOCKET_FILE), 0o600)
    listener.listen(_BACKLOG)
    return listener.detach()


def _watch_memory(cgroup: Cgroup) -> int | None:
    try:
        return cgroup.oom_fd()
    except (OSError, NaruError):
        return None  # no memory controller: nothing will be told
