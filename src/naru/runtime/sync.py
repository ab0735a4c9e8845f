"""The conversation between the runtime and the process it made, over one SEQPACKET socket pair.

    parent (shim, naru-runtime)              child (container init, or an exec)
      | clone3 ─────────────────────────────────► | namespaces, root (or, with the hooks below, not yet)
      | puts the child into its cgroups           |
      | JOINED ─────────────────────────────────► |
      | ◄─────────────────────────────── MOVED+fd | (only an exec: a sibling in the PID namespace goes on in its place)
      | PROCEED ────────────────────────────────► |
      | ◄───────────────────────────────── HOOKS  | (only if the spec has prestart or createRuntime hooks)
      | PROCEED ────────────────────────────────► | everything else
      | ◄──────────────────────────── CONSOLE+fd  | (only with a terminal)
      | ◄───────────────────────────────── READY  | everything but execve is done
      | START ──────────────────────────────────► | execve; end of file at the parent says it worked
      | ◄────────────────────────────── FAILED+…  | at any point instead; the child then exits

A runtime that exits between create and start gives the child a listening socket as well: START then comes over a
connection to it. A message is one byte, followed for JOINED and MOVED by the child's process ID as
the host counts, and for FAILED by a `Failure` in JSON.
"""

from __future__ import annotations

import socket

import msgspec

JOINED = b"J"
MOVED = b"M"
PROCEED = b"P"
START = b"S"
HOOKS = b"H"
CONSOLE = b"C"
READY = b"R"
FAILED = b"F"

_MESSAGE_MAX = 16384


class Failure(msgspec.Struct):
    """Why the child gave up: the step by its own description, and what a shell would say as exit code."""

    step: str
    reason: str
    exit_code: int = 128

    def __str__(self) -> str:
        return f"{self.step}: {self.reason}" if self.step else self.reason


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Failure)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the parent's and the child's end, both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def send(channel: socket.socket, message: bytes, fd: int | None = None) -> None:
    """Send one message, with a copy of `fd` if given. BrokenPipeError: the other side is gone."""
    if fd is None:
        channel.send(message, socket.MSG_NOSIGNAL)
    else:
        socket.send_fds(channel, [message], [fd], socket.MSG_NOSIGNAL)


def send_failure(channel: socket.socket, failure: Failure) -> None:
    """Tell the parent why; a parent that is gone does not want to know."""
    failure.reason = failure.reason[:4096]
    try:
        channel.send(FAILED + _encoder.encode(failure), socket.MSG_NOSIGNAL)
    except OSError:
        pass


def receive(channel: socket.socket) -> tuple[bytes, int | None]:
    """Return the next message and the descriptor that came with it, which the caller owns; b"" at end of file."""
    try:
        data, fds, _flags, _address = socket.recv_fds(channel, _MESSAGE_MAX, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", None
    return data, fds[0] if fds else None


def failure(message: bytes) -> Failure:
    """Return the Failure in a FAILED message."""
    return _decoder.decode(message[1:])


def expect(channel: socket.socket, message: bytes) -> bytes:
    """Wait for `message` and return what follows its first byte. EOFError: the other side is gone."""
    received, _fd = receive(channel)
    if received[:1] != message:
        raise EOFError("the runtime has ended")
    return received[1:]
