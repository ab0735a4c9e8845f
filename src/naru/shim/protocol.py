"""What narud and a shim say to each other: typed messages over a SEQPACKET socket, with file descriptors.

One message is one packet: a byte that says where the JSON is (`J` in the packet, `M` in a memfd that travels as the
last descriptor, for messages beyond `_INLINE_MAX`), then the JSON. Every request has an id and gets exactly one
`Answer` with that id; events come unasked and are never answered. unix(7), memfd_create(2)

A shim's directory, `run_dir/<container id>/`, is written by the shim alone:

    shim.json    `Birth`, before anything is created, so that a restarted narud finds every shim
    shim.sock    where any later narud connects (0600)
    exit.json    `ExitRecord`, once, by rename, before anyone is told
    shim.log     a traceback, if the shim itself failed
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec
from msgspec import Struct

from naru.errors import (
    CannotStart,
    Conflict,
    Corrupt,
    Forbidden,
    InvalidArgument,
    NaruError,
    NotFound,
    Unavailable,
    Unsupported,
)
from naru.logs.delivery import Delivery
from naru.oci.runtime import Process, Resources
from naru.runtime.rootfs import Overlay

BIRTH_FILE = "shim.json"
SOCKET_FILE = "shim.sock"
EXIT_FILE = "exit.json"
FAILURE_FILE = "shim.log"

# SEQPACKET refuses a packet larger than the send buffer, 212,992 bytes unless the host says otherwise.
_INLINE_MAX = 128 << 10
# SCM_MAX_FD. unix(7)
_MAX_FDS = 253


class LogConfig(Struct, frozen=True):
    """Where a container's output is kept.

    `driver` is Docker's; all but "none" keep the same file. `max_size_bytes` rotates;
    `max_files` counts the current file too. `attributes` are written into every line as Docker's `attrs`. `delivery`
    is how the output gets to a log server; what is kept then is the way there, and what `docker logs` reads.
    """

    driver: str = "none"
    path: str = ""
    max_size_bytes: int | None = None
    max_files: int = 1
    compress: bool = False
    attributes: dict[str, str] = {}
    delivery: Delivery | None = None


class AttachRequest(Struct, frozen=True):
    """One client's wish to see output and give input; its descriptor travels beside it.

    `multiplexed` puts Docker's 8-byte header before each piece of output; never on a terminal. `prefix` is input that
    was read from the client before the descriptor was handed over. `detach_keys` works on a terminal only.
    `attach_id` comes back in `AttachClosed`.
    """

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    multiplexed: bool = True
    detach_keys: bytes = b""
    prefix: bytes = b""
    attach_id: str = ""


class ConsoleSize(Struct, frozen=True):
    """A terminal's size in characters."""

    width: int
    height: int


# --- birth --------------------------------------------------------------------------------------------------------


class Start(Struct, kw_only=True):
    """Fork a shim, and create and start the bundle's container under it; `cgroup` is what its config.json says.

    Sent to the launcher's socket. Descriptors: the shim's end of a SEQPACKET pair, on which the `Answer` (of id 0,
    with `Started`) comes and everything else is said; the network namespace if `has_netns`; then the sinks'.
    """

    container_id: str
    run_dir: str
    bundle: str
    cgroup: str
    overlay: Overlay | None = None
    init: bool = False
    log: LogConfig = LogConfig()
    open_stdin: bool = False
    stdin_once: bool = False
    has_netns: bool = False
    attach: list[AttachRequest] = []


# --- requests -----------------------------------------------------------------------------------------------------


class Exec(Struct, tag=True, kw_only=True):
    """Start one more process in the container. Descriptors: the sinks'."""

    exec_id: str
    process: Process
    attach: list[AttachRequest] = []


class Attach(Struct, tag=True):
    """Add one sink to the container's output. Descriptors: the sink's."""

    request: AttachRequest


class Kill(Struct, tag=True):
    """Send a signal to the container's init, or to the exec's process if `exec_id` is given."""

    signal: int
    exec_id: str = ""


class Resize(Struct, tag=True):
    """Set the terminal's size, of the exec's process if `exec_id` is given."""

    size: ConsoleSize
    exec_id: str = ""


class Pause(Struct, tag=True):
    pass


class Resume(Struct, tag=True):
    pass


class ReadStats(Struct, tag=True):
    pass


class ListProcesses(Struct, tag=True):
    pass


class Update(Struct, tag=True):
    resources: Resources


class ReadStatus(Struct, tag=True):
    pass


class ReadExec(Struct, tag=True):
    exec_id: str


class Delete(Struct, tag=True):
    """Forget the exited container: remove the shim's directory and end the shim."""


Request: TypeAlias = (
    Exec | Attach | Kill | Resize | Pause | Resume | ReadStats | ListProcesses | Update | ReadStatus | ReadExec | Delete
)


class Ask(Struct):
    """A request with its id."""

    id: int
    request: Request


# --- answers ------------------------------------------------------------------------------------------------------


class Failure(Struct, frozen=True):
    """A NaruError as it travels."""

    kind: str
    message: str
    hint: str = ""
    exit_code: int = 0


class Started(Struct, frozen=True):
    """The container's (or the exec's) process as the host sees it."""

    pid: int
    started_at: datetime


class ExecStatus(Struct, frozen=True):
    """`exit_code` is None while the process runs."""

    exec_id: str
    pid: int
    exit_code: int | None = None


class Status(Struct, frozen=True):
    """All a narud that was away must know, even if the container has ended since."""

    started: Started
    paused: bool
    exit: Exited | None
    execs: list[ExecStatus]


class Answer(Struct, tag=True):
    """The result of the request `id`: `failure`, or `result` (JSON of what that request promises; null if nothing)."""

    id: int
    failure: Failure | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")


# --- events and files ---------------------------------------------------------------------------------------------


class Exited(Struct, tag=True, frozen=True):
    """The container is over: its processes are gone, its output is flushed, its cgroup is removed.

    `exit_code` is the shell's (128 + signal if killed). `reason` is set when no exit status could be learnt.
    """

    container_id: str
    exit_code: int
    finished_at: datetime
    signal: int = 0
    oom_killed: bool = False
    reason: str = ""


class ExecExited(Struct, tag=True, frozen=True):
    container_id: str
    exec_id: str
    exit_code: int


class OomKilled(Struct, tag=True, frozen=True):
    """The kernel killed a process of the container for want of memory; the container may well go on."""

    container_id: str


class AttachClosed(Struct, tag=True, frozen=True):
    """A sink is no longer served: `detached` by keys, or its peer or the process ended."""

    container_id: str
    exec_id: str
    attach_id: str
    detached: bool


class LogNews(Struct, tag=True, frozen=True):
    """The delivery of the container's log has trouble, or none any more, in words."""

    container_id: str
    news: str


TaskEvent: TypeAlias = Exited | ExecExited | OomKilled | AttachClosed | LogNews


class Birth(Struct):
    """Who serves a container, and what to clear away if it dies: written before the container is created, and again
    with its init. Each pid comes with its start time, which tells a reused pid.
    """

    container_id: str
    pid: int
    start_ticks: int
    bundle: str = ""
    cgroup: str = ""
    init_pid: int = 0
    init_start_ticks: int = 0


class ExitRecord(Struct):
    """What is left of a task: the truth about its end, its execs' codes included."""

    exited: Exited
    execs: list[ExecStatus] = []


# --- errors -------------------------------------------------------------------------------------------------------

_KINDS: dict[str, type[NaruError]] = {
    kind.__name__: kind
    for kind in (
        CannotStart,
        Conflict,
        Corrupt,
        Forbidden,
        InvalidArgument,
        NaruError,
        NotFound,
        Unavailable,
        Unsupported,
    )
}


def failure_of(error: Exception) -> Failure:
    """Return `error` as a Failure; anything that is not a NaruError keeps only its text."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    if isinstance(error, CannotStart):
        return Failure("CannotStart", f"{error}{notes}", error.hint, error.exit_code)
    if isinstance(error, NaruError):
        kind = type(error).__name__
        return Failure(kind if kind in _KINDS else "NaruError", f"{error}{notes}", error.hint)
    return Failure("NaruError", f"{error or type(error).__name__}{notes}")


def error_of(failure: Failure) -> NaruError:
    """Return the NaruError that `failure_of` took apart."""
    kind = _KINDS.get(failure.kind, NaruError)
    if kind is CannotStart:
        return CannotStart(failure.message, exit_code=failure.exit_code, hint=failure.hint)
    return kind(failure.message, hint=failure.hint)


# --- packets ------------------------------------------------------------------------------------------------------

_encoder = msgspec.json.Encoder()
ask_decoder = msgspec.json.Decoder(Ask)
news_decoder: msgspec.json.Decoder[Answer | TaskEvent] = msgspec.json.Decoder(Answer | TaskEvent)


def encode(value: object) -> msgspec.Raw:
    """Return `value` as an Answer's result."""
    return msgspec.Raw(_encoder.encode(value))


def send(connection: socket.socket, message: Struct, fds: Sequence[int] = (), *, flags: int = 0) -> None:
    """Send one message with duplicates of `fds`; the caller keeps its own.

    OSError: EPIPE or ECONNRESET if the peer is gone, EAGAIN with MSG_DONTWAIT if its queue is full.
    """
    body = _encoder.encode(message)
    if len(body) <= _INLINE_MAX:
        _send_packet(connection, b"J" + body, fds, flags)
        return
    memory = os.memfd_create("naru-message", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(body)
        _send_packet(connection, b"M", [*fds, memory], flags)
    finally:
        os.close(memory)


def _send_packet(connection: socket.socket, packet: bytes, fds: Sequence[int], flags: int) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([packet], rights, flags | socket.MSG_NOSIGNAL)


def receive(connection: socket.socket) -> tuple[bytes, list[int]] | None:
    """Return the next message's JSON and its descriptors (close-on-exec, now the caller's), or None at the end."""
    packet, ancillary, flags, _ = connection.recvmsg(
        _INLINE_MAX + 1, socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not packet:
        return None
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        for fd in fds:
            os.close(fd)
        raise Unavailable("shim protocol: a message lost descriptors or bytes; is the limit of open files reached?")
    if packet[:1] == b"J":
        return packet[1:], list(fds)
    with open(fds.pop(), "rb") as file:
        file.seek(0)
        return file.read(), list(fds)
