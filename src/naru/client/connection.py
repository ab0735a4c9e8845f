"""An Engine API client: requests, JSON answers, JSON streams and raw streams, with errors as kinds.

Blocking, on the standard library's cheapest modules only: the CLI lives for milliseconds and pays for every import.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping

from naru.client.address import Address
from naru.client.http import Broken, Response, Wire
from naru.errors import (
    Conflict,
    Forbidden,
    InvalidArgument,
    NaruError,
    NotFound,
    Unauthorized,
    Unavailable,
    Unsupported,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from naru.client.http import Body

    Query = Mapping[str, Any]

API_VERSION = (1, 51)
_KINDS: dict[int, type[NaruError]] = {
    400: InvalidArgument,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    501: Unsupported,
    503: Unavailable,
}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")


def dial(address: Address) -> socket.socket:
    """Return a connected socket. Unavailable: nobody answers there, or we may not connect."""
    try:
        if address.ssh is not None:
            from naru.client import ssh

            return ssh.dial(address.ssh)
        if address.path:
            raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                raw.connect(address.path)
            except OSError:
                raw.close()
                raise
            return raw
        raw = socket.create_connection((address.host, address.port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls is None:
            return raw
        from naru.client import tls

        return tls.Secured(raw, tls.context(address.tls), address.host)
    except PermissionError as error:
        raise Unavailable(
            f"permission denied while trying to connect to the naru daemon socket at {address.text}",
            hint="run it as root, or join the group that owns the socket",
        ) from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise Unavailable(f"Cannot connect to the naru daemon at {address.text}. Is narud running?") from error
    except OSError as error:
        raise Unavailable(f"error during connect: {address.text}: {_reason(error, address)}") from error


def _reason(error: OSError, address: Address) -> str:
    if address.tls is not None:
        from naru.client.tls import reason

        return reason(error)
    return error.strerror or str(error)


class Client:
    """An Engine API client. Every method raises the kind of error that the answer's status means."""

    def __init__(
        self,
        address: Address,
        *,
        revive: Callable[[Address], None] | None = None,
        environment: Mapping[str, str] = os.environ,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`revive` is called, once, when nobody answers at `address`; if it returns, we try again.

        `headers` go with every request.
        """
        self.address = address
        self.headers = dict(headers or {})
        self._revive = revive
        self._idle: Wire | None = None
        self._version = API_VERSION
        self._is_agreed = False
        asked = environment.get("DOCKER_API_VERSION", "").lstrip("v")
        if asked:
            self._version, self._is_agreed = _version(asked) or API_VERSION, True

    @property
    def version(self) -> str:
        """The API version in use: ours, lowered to the daemon's once that has answered."""
        return f"{self._version[0]}.{self._version[1]}"

    def get(self, path: str, query: Query | None = None) -> Any:
        """GET and decode JSON."""
        return self._json("GET", path, query)

    def post(
        self, path: str, query: Query | None = None, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """POST a JSON body and decode the JSON answer (None for an empty one)."""
        return self._json("POST", path, query, body, headers)

    def delete(self, path: str, query: Query | None = None) -> Any:
        """DELETE and decode JSON."""
        return self._json("DELETE", path, query)

    def ping(self) -> Mapping[str, str]:
        """Return the headers of /_ping, names in lower case."""
        with self.open("GET", "/_ping", versioned=False) as response:
            response.read()
            self._agree(response)
            return response.headers

    def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Any]:
        """Yield each JSON document of the answer as it arrives. Broken: the stream ended inside a document."""
        with self.open(method, path, query, body=body, headers=headers) as response:
            yield from documents(iter(response.some, b""))

    def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        versioned: bool = True,
    ) -> Response:
        """Send a request and return the answer, its body unread.

        `body`: None; bytes, a reader or an iterator of bytes, sent as they are; anything else goes as JSON.
        """
        sent = {**self.headers, **(headers or {})}
        payload: Body
        if body is None or isinstance(body, bytes) or hasattr(body, "read") or isinstance(body, Iterator):
            payload = body
        else:
            payload = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        can_repeat = payload is None or isinstance(payload, bytes)
        if versioned and not can_repeat and not self._is_agreed:
            self.ping()
        while True:
            target = (f"/v{self.version}{path}" if versioned else path) + _query_string(query)
            response = self._exchange(method, target, sent, payload)
            lowered = versioned and response.status == 400 and self._agree(response)
            if response.status < 300 or response.status == 304:  # 304: it was so already
                return response
            text = response.read()
            if not (lowered and can_repeat):
                raise _error(response, text)

    def hijack(self, path: str, query: Query | None = None, body: Any = None) -> tuple[socket.socket, bytes]:
        """POST and take the connection over as a raw stream; also return what was already read of it."""
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        return self.open("POST", path, query, body=body if body is not None else b"", headers=upgrade).upgraded()

    def _json(
        self, method: str, path: str, query: Query | None, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        with self.open(method, path, query, body=body, headers=headers) as response:
            text = response.read()
        try:
            return json.loads(text) if text.strip() else None
        except ValueError as error:
            raise NaruError(f"the daemon's answer to {method} {path} is not JSON: {error}") from error

    def _exchange(self, method: str, target: str, headers: Mapping[str, str], body: Body) -> Response:
        wire = self._wire()
        try:
            wire.send(method, target, headers, body)
            return Response(wire, method, self._keep)
        except (Broken, OSError) as error:
            wire.close()
            reason = _reason(error, self.address) if isinstance(error, OSError) else str(error)
            if self.address.ssh is not None:
                from naru.client import ssh

                reason = ssh.reason(self.address.ssh)
            raise Unavailable(f"error during connect: {self.address.text}: {reason}") from error

    def _wire(self) -> Wire:
        wire, self._idle = self._idle, None
        if wire is not None:
            if not wire.is_stale:
                return wire
            wire.close()
        try:
            return Wire(dial(self.address))
        except Unavailable:
            if self._revive is None:
                raise
            revive, self._revive = self._revive, None
            revive(self.address)
            return Wire(dial(self.address))

    def _keep(self, wire: Wire) -> None:
        if self._idle is None:
            self._idle = wire
        else:
            wire.close()

    def _agree(self, response: Response) -> bool:
        """Lower our version to the daemon's if that is older; True if it was lowered."""
        theirs = _version(response.headers.get("api-version", ""))
        if theirs is None or self._is_agreed:
            return False
        self._is_agreed = True
        if theirs >= self._version:
            return False
        self._version = theirs
        return True


def documents(parts: Iterator[bytes]) -> Iterator[Any]:
    """Yield the JSON documents that follow each other in `parts`, wherever those are cut."""
    import codecs

    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    scan = json.JSONDecoder().raw_decode
    pending = ""
    for part in parts:
        pending = (pending + decode(part)).lstrip()
        while pending:
            try:
                document, end = scan(pending)
            except ValueError:
                break
            yield document
            pending = pending[end:].lstrip()
    if pending:
        raise Broken(f"the daemon's stream ended inside a message: {pending[:80]}")


def quoted(name: str) -> str:
    """Return `name` for use as one part of a path."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in name.encode())


def _query_string(query: Query | None) -> str:
    pairs: list[str] = []
    for name, value in (query or {}).items():
        if value is None or value is False or value == "" or value == [] or value == {}:
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        pairs += [f"{name}={quoted(_text(one))}" for one in values]
    return "?" + "&".join(pairs) if pairs else ""


def _text(value: Any) -> str:
    if value is True:
        return "1"
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _version(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def _error(response: Response, body: bytes) -> NaruError:
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace").strip() or response.reason or f"status {response.status}"
    return _KINDS.get(response.status, NaruError)(f"Error response from daemon: {message.strip()}")
