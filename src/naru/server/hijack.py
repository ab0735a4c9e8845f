"""Taking a client's connection away from HTTP, to be the standard streams of a process.

After the response's head the socket belongs to whoever the engine gives it to (the container's shim): we hand over a
duplicate and close ours without shutting the connection down. Engine API, ContainerAttach, "Hijacking".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from naru.errors import InvalidArgument
from naru.server.call import Call
from naru.server.errors import message_of

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"


@dataclass(frozen=True, slots=True)
class Connection:
    """What the client's side of a session is now: a descriptor, and input that was read before it was ours."""

    fd: int
    prefix: bytes


@contextmanager
def input_held(call: Call) -> Iterator[None]:
    """Leave what the client sends from now on in the socket, for the process; if this fails, HTTP reads on.

    Bytes that came in one piece with the request's end are lost in aiohttp's parser, which knows no upgrade but to
    WebSocket: a client must see our head before it sends input, and those we know do. RFC 9110, 7.8
    """
    transport = _transport(call)
    transport.pause_reading()
    try:
        yield
    except BaseException:
        transport.resume_reading()
        raise


def _transport(call: Call) -> asyncio.Transport:
    transport = call.request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client closed the connection")
    assert isinstance(transport, asyncio.Transport)
    return transport


async def hijack(call: Call, *, multiplexed: bool, session: Callable[[Connection], None]) -> web.StreamResponse:
    """Switch the connection to a raw stream and run `session` with it in a worker thread.

    Call it under `input_held`. `session` must duplicate the descriptor if it keeps it. If it raises, the client reads
    the reason as output.
    """
    transport = _transport(call)
    early = _Early()
    call.request.protocol.set_parser(early)  # type: ignore[arg-type]
    head = _head(call, multiplexed=multiplexed)
    fd = _take(transport, head)
    call.sessions.start(call["id"], _run(call, Connection(fd, early.data), session, multiplexed=multiplexed))
    return _Taken()


async def _run(call: Call, connection: Connection, session: Callable[[Connection], None], *, multiplexed: bool) -> None:
    try:
        await call.run_long(session, connection)
    except Exception as error:
        _tell(connection.fd, message_of(error), multiplexed=multiplexed)
    finally:
        os.close(connection.fd)


def _tell(fd: int, text: str, *, multiplexed: bool) -> None:
    """Write an error where the client shows output; a client that is gone does not mind."""
    data = text.encode() + b"\r\n"
    frame = b"\x01\0\0\0" + len(data).to_bytes(4, "big") if multiplexed else b""
    try:
        os.set_blocking(fd, False)
        os.write(fd, frame + data)
    except OSError:
        pass


class _Taken(web.StreamResponse):
    """Stands for a response that was written by hand; aiohttp sends nothing of it."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None

    @property
    def keep_alive(self) -> bool:
        return False


class _Early:
    """Takes over what aiohttp has read and not parsed, in place of its WebSocket reader."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None: ...


def _head(call: Call, *, multiplexed: bool) -> bytes:
    # moby knows the multiplexed type since API 1.42; older clients tell by the container's tty.
    kind = MULTIPLEXED_STREAM if multiplexed and call.version >= (1, 42) else RAW_STREAM
    if _wants_upgrade(call.request):
        return (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        ).encode()
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode()


def _wants_upgrade(request: web.Request) -> bool:
    return bool(request.headers.get("Upgrade"))


def _take(transport: asyncio.Transport, head: bytes) -> int:
    """Write the head and return the connection's descriptor; from here on HTTP has nothing to do with it."""
    if transport.get_write_buffer_size():
        raise InvalidArgument("cannot hijack a connection with answers still to be sent")
    fd = os.dup(transport.get_extra_info("socket").fileno())
    try:
        os.write(fd, head)
        os.set_blocking(fd, True)  # what asyncio made of it is no business of the new owner
    except BaseException:
        os.close(fd)
        raise
    transport.close()  # closes its own descriptor and shuts nothing down: ours keeps the connection
    return fd
