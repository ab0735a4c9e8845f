"""HTTP/1.1 as a client of one server needs it: a request, an answer, and the bare connection afterwards.

Why not `http.client`: it imports `email` and `ssl`, 25 ms here (Python 3.11, `-I -S`) in a program that lives 20; and
its buffer keeps the first bytes of a connection that is upgraded to a raw stream. RFC 9112; nothing else is spoken.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping

from naru.errors import Unavailable

_CHUNK_BYTES = 64 << 10
_HEAD_LIMIT_BYTES = 256 << 10

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Source(Protocol):
        """Anything to read a request's body from."""

        def read(self, size: int, /) -> bytes: ...

    Body = bytes | Source | Iterator[bytes] | None


class Broken(Unavailable):
    """The server closed or broke the connection in the middle of a message."""


class Wire:
    """A connected socket with what was received and not yet used. Owns the socket."""

    __slots__ = ("_held", "answers", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answers = 0
        self._held = b""

    def send(self, method: str, target: str, headers: Mapping[str, str], body: Body = None) -> None:
        """Send one request. A body of unknown length goes in chunks.

        A server may answer and hang up before it has read everything: that is not an error here, its answer says why.
        """
        sent = {"Host": "naru", "User-Agent": "naru", **headers}
        if body is None:
            if method != "GET":
                sent["Content-Length"] = "0"
        elif isinstance(body, bytes):
            sent["Content-Length"] = str(len(body))
        else:
            sent["Transfer-Encoding"] = "chunked"
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        try:
            if body is None or isinstance(body, bytes):
                self.sock.sendall(head + (body or b""))
                return
            self.sock.sendall(head)
            for piece in _pieces(body):
                self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass

    def line(self) -> bytes:
        """Return the next line, without its end."""
        while True:
            line, separator, rest = self._held.partition(b"\n")
            if separator:
                self._held = rest
                return line.rstrip(b"\r")
            if len(self._held) > _HEAD_LIMIT_BYTES:
                raise Broken("the server sent an endless line")
            self._held += self._receive()

    def some(self, limit: int = _CHUNK_BYTES) -> bytes:
        """Return up to `limit` bytes as soon as there are any; b"" at the end of the connection."""
        if self._held:
            data, self._held = self._held[:limit], self._held[limit:]
            return data
        try:
            return self.sock.recv(limit)
        except ConnectionError as error:
            raise Broken(f"the connection broke: {error.strerror}") from error

    def take(self) -> tuple[socket.socket, bytes]:
        """Return the socket, now the caller's, and what had been received of the raw stream."""
        held, self._held = self._held, b""
        return self.sock, held

    @property
    def is_stale(self) -> bool:
        """True if the server has closed this idle connection, or says what nobody asked."""
        self.sock.setblocking(False)
        try:
            self.sock.recv(1)
            return True
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        finally:
            self.sock.setblocking(True)

    @property
    def is_at_hand(self) -> bool:
        """True if something was received and not used: poll says nothing about it."""
        pending = getattr(self.sock, "pending", None)  # TLS
        return bool(self._held) or (pending is not None and pending() > 0)

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def _receive(self) -> bytes:
        try:
            data = self.sock.recv(_CHUNK_BYTES)
        except ConnectionError as error:
            raise Broken(f"the connection broke: {error.strerror}") from error
        if not data:
            raise Broken("the server closed the connection")
        return data


class Response:
    """An answer whose body is still to be read. Close it, or read it to its end."""

    def __init__(self, wire: Wire, method: str, release: Callable[[Wire], None]) -> None:
        """Read the head from `wire`; `release` gets the wire back when the body is at its end and more may follow."""
        self._wire: Wire | None = wire
        self._release = release
        status_line = wire.line()
        wire.answers += 1
        version, _, rest = status_line.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise Broken("the server does not speak HTTP")
        self.status = int(rest[:3])
        self.reason = rest[4:].decode("latin-1")
        self.headers = _headers(wire)
        self._is_chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length", "")
        self._left: int | None = int(length) if length.isdigit() and not self._is_chunked else None
        self._keeps_alive = version != b"HTTP/1.0" and "close" not in self.headers.get("connection", "").lower()
        if method == "HEAD" or self.status in (204, 304):
            self._is_chunked, self._left = False, 0
        if self._is_chunked:
            self._left = 0
        elif self._left == 0 and self.status != 101:
            self._finish()

    def upgraded(self) -> tuple[socket.socket, bytes]:
        """Take over the connection as a raw stream."""
        assert self._wire is not None
        wire, self._wire = self._wire, None
        return wire.take()

    def some(self, limit: int = _CHUNK_BYTES) -> bytes:
        """Return the next bytes of the body as soon as there are any; b"" at its end. Broken: cut short."""
        wire = self._wire
        if wire is None:
            return b""
        if self._is_chunked and self._left == 0 and not self._next_chunk(wire):
            return b""
        if self._left is None:
            data = wire.some(limit)
            if not data:
                self._keeps_alive = False
                self._finish()
            return data
        data = wire.some(min(limit, self._left))
        if not data:
            self.close()
            raise Broken("the server closed the connection in the middle of an answer")
        self._left -= len(data)
        if self._left == 0:
            if self._is_chunked:
                wire.line()
            else:
                self._finish()
        return data

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer only at the end of the body; by default all that is left."""
        parts: list[bytes] = []
        while size != 0 and (data := self.some(size if size > 0 else _CHUNK_BYTES)):
            parts.append(data)
            size -= len(data) if size > 0 else 0
        return b"".join(parts)

    @property
    def is_at_hand(self) -> bool:
        """True if the body, or some of it, is here already."""
        return self._wire is None or self._wire.is_at_hand

    def fileno(self) -> int:
        """Return the connection's descriptor, for poll; meaningful only while nothing of the body `is_at_hand`."""
        assert self._wire is not None
        return self._wire.sock.fileno()

    def close(self) -> None:
        """Close the connection if the body was not read to its end."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next_chunk(self, wire: Wire) -> bool:
        size = wire.line().split(b";", 1)[0]
        try:
            self._left = int(size, 16)
        except ValueError:
            raise Broken("the server sent a malformed chunk") from None
        if self._left:
            return True
        while wire.line():
            pass  # trailers
        self._finish()
        return False

    def _finish(self) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        if self._keeps_alive:
            self._release(wire)
        else:
            wire.close()


def _headers(wire: Wire) -> dict[str, str]:
    headers: dict[str, str] = {}
    while line := wire.line():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return headers


def _pieces(body: Source | Iterator[bytes]) -> Iterator[bytes]:
    if isinstance(body, Iterator):
        yield from (piece for piece in body if piece)
        return
    while piece := body.read(_CHUNK_BYTES):
        yield piece
