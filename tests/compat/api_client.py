"""An Engine API client that sees the bytes: one request a connection, its own version, half-closing, hijacking."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

Query = Mapping[str, object] | Sequence[tuple[str, object]]


@dataclass(frozen=True)
class Answer:
    """What came back. Of a stream that does not end, what came until enough of it had."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """The JSON values of a stream."""
        return [json.loads(line) for line in self.body.replace(b"\x1e", b"\n").splitlines() if line.strip()]

    @property
    def message(self) -> str:
        return str(self.json["message"])


class Connection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def __init__(self, path: str, timeout_s: float = 30) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def target(path: str, query: Query = ()) -> str:
    """Return a request's target; values that are no strings are written as JSON."""
    pairs = query.items() if isinstance(query, Mapping) else query
    written = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in pairs]
    return quote(path, safe="/:@") + (f"?{urlencode(written)}" if written else "")


class Client:
    """Requests of one API version, or of none (`version=""`)."""

    def __init__(self, socket_path: str, version: str) -> None:
        self.socket_path = socket_path
        self.version = version
        self.prefix = f"/v{version}" if version else ""

    def call(
        self,
        method: str,
        path: str,
        query: Query = (),
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        enough: Sequence[bytes] = (),
        timeout_s: float = 30,
    ) -> Answer:
        """Return the answer; once all of `enough` is in what came, a stream is read to the end of the line."""
        with contextlib.closing(Connection(self.socket_path, timeout_s)) as connection:
            response = self._request(connection, method, path, query, body, headers)
            if enough:
                content = b""
                while not (all(part in content for part in enough) and content.endswith(b"\n")):
                    data = response.read1(65536)
                    if not data:
                        break
                    content += data
            else:
                content = response.read()
            return _answer(response, content)

    def _request(
        self,
        connection: Connection,
        method: str,
        path: str,
        query: Query,
        body: object,
        headers: Mapping[str, str] | None,
    ) -> http.client.HTTPResponse:
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection.request(method, self.prefix + target(path, query), body=body, headers=sent)  # type: ignore[arg-type]
        return connection.getresponse()

    @contextlib.contextmanager
    def open(
        self, method: str, path: str, query: Query = (), *, body: object = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield an answer whose body is still to be read."""
        with contextlib.closing(Connection(self.socket_path)) as connection:
            yield self._request(connection, method, path, query, body, None)

    @contextlib.contextmanager
    def hijack(
        self, method: str, path: str, query: Query = (), *, body: object = None, upgrade: bool = True
    ) -> Iterator[tuple[Answer, socket.socket]]:
        """Yield the answer's head and the connection, which is now a stream (if the answer is no error)."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {self.prefix}{target(path, query)} HTTP/1.1", "Host: docker"]
        if upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        if body is not None or method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(30)
            sock.connect(self.socket_path)
            sock.sendall("\r\n".join([*lines, "", ""]).encode() + content)
            status, headers = read_head(sock)
            length = int(headers.get("content-length", "0"))
            yield Answer(status, headers, receive(sock, length) if length else b""), sock


def read_head(sock: socket.socket) -> tuple[int, dict[str, str]]:
    """Return the status and headers of an answer, and leave what follows in the socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, f"the connection ended in the head: {head!r}"
        head += byte
    first, *rest = head.decode().split("\r\n")
    pairs = (line.partition(":") for line in rest if line)
    return int(first.split()[1]), {key.lower(): value.strip() for key, _, value in pairs}


def receive(sock: socket.socket, size: int | None = None) -> bytes:
    """Return `size` bytes, or all to the end."""
    content = b""
    while size is None or len(content) < size:
        data = sock.recv(65536 if size is None else size - len(content))
        if not data:
            break
        content += data
    return content


def unframed(content: bytes) -> dict[int, bytes]:
    """Return what a multiplexed stream carries, by stream."""
    found: dict[int, bytes] = {}
    while content:
        stream, size = content[0], int.from_bytes(content[4:8], "big")
        assert content[1:4] == b"\0\0\0" and len(content) >= 8 + size, f"no frame: {content[:20]!r}"
        found[stream] = found.get(stream, b"") + content[8 : 8 + size]
        content = content[8 + size :]
    return found


def _answer(response: http.client.HTTPResponse, content: bytes) -> Answer:
    return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, content)
