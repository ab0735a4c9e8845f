"""Connections to log servers: where they are, and writing to them for as long as it is worth it.

A server that is slow is waited for, one that is gone is an OSError. What has been handed to the kernel counts as sent;
to lose less of it, a server that has closed its end is noticed before the next write, not after it.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import time
from typing import Protocol

from msgspec import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

_CONNECT_TIMEOUT_S = 10.0
# How often a write that waits asks whether to go on.
_TURN_S = 0.2
# A peer that has acknowledged nothing for so long is gone; the kernel's own patience is some 15 minutes. tcp(7)
_UNACKNOWLEDGED_MS = 30_000

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HOST_AND_PORT = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::(\d*))?")


class Patience(Protocol):
    """Whoever waits asks this whether it is still worth it. `check` raises GiveUp when it is not."""

    def check(self) -> None: ...


class Address(Struct, frozen=True):
    """`scheme` is unix, unixgram, udp, tcp, or tls; `host` a path for the first two."""

    scheme: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        return self.host if self.scheme.startswith("unix") else f"{self.host}:{self.port}"


class TlsFiles(Struct, frozen=True):
    """Where certificates are. Without `ca` the host's own authorities are trusted."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    verifies: bool = True


class AddressParts(Struct, frozen=True):
    """`scheme://host:port/path`, taken apart; what is not there is empty, or 0."""

    scheme: str
    host: str
    port: int
    path: str


def split_address(text: str) -> AddressParts:
    """Return `text` taken apart; behind unix and unixgram there is only a path. ValueError: it is no address.

    Half a megabyte lighter than urllib, which every courier would carry.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError("missing protocol scheme")
    scheme, rest = found[1].lower(), found[2]
    if scheme.startswith("unix"):
        return AddressParts(scheme, "", 0, rest)
    where, slash, path = rest.partition("/")
    place = _HOST_AND_PORT.fullmatch(where)
    if place is None or int(place[3] or 0) > 0xFFFF:
        raise ValueError(f"invalid host or port: {where}")
    return AddressParts(scheme, place[1] or place[2], int(place[3] or 0), slash + path)


class Connection:
    """One open connection. `send` and `receive` raise OSError when it is of no use any more; then `close` it."""

    def __init__(
        self, peer: socket.socket, patience: Patience, nothing_now: tuple[type[OSError], ...] = (BlockingIOError,)
    ) -> None:
        """Own `peer`. Without a timeout its `recv` raises one of `nothing_now`, if it has nothing."""
        self._peer = peer
        self._patience = patience
        self._nothing_now = nothing_now
        self.is_stream = peer.type == socket.SOCK_STREAM
        self._peer.settimeout(_TURN_S)

    def send(self, data: bytes) -> None:
        """Hand all of `data` to the kernel: one message, or the next bytes of a stream."""
        if self.is_stream:
            self._check_peer()
        view = memoryview(data)
        while view:
            try:
                view = view[self._peer.send(view) :]
            except TimeoutError:
                self._patience.check()
        # On this host a datagram's refusal is there at once, and would otherwise be reported for the next one.
        if not self.is_stream and (error := self._peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            raise OSError(error, os.strerror(error))

    def send_file(self, data: bytes) -> None:
        """Send `data`, too large for a datagram, as a sealed file that travels with an empty one."""
        memory = os.memfd_create("naru-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(data)
            _seal_all(memory)
            socket.send_fds(self._peer, [b""], [memory])
        finally:
            os.close(memory)

    def receive(self, size: int, timeout_s: float) -> bytes:
        """Return what the server says next. TimeoutError: it says nothing for so long."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                data = self._peer.recv(size)
            except TimeoutError:
                self._patience.check()
                if time.monotonic() > until:
                    raise TimeoutError(errno.ETIMEDOUT, "the server does not answer") from None
                continue
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
            return data

    def close(self) -> None:
        self._peer.close()

    def _check_peer(self) -> None:
        """Notice that the server has closed: it says nothing unless asked, so what is readable is the end.

        Or, within TLS, records that are not data.
        """
        poll = select.poll()  # select(2) knows no descriptor beyond 1023
        poll.register(self._peer, select.POLLIN)
        if not poll.poll(0):
            return
        self._peer.settimeout(0)
        try:
            while self._peer.recv(4096):
                pass
        except self._nothing_now:
            return
        finally:
            self._peer.settimeout(_TURN_S)
        raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")


def connect(address: Address, patience: Patience, tls: TlsFiles | None = None) -> Connection:
    """Return a connection. OSError: the server cannot be reached, or is not who it should be."""
    match address.scheme:
        case "unix" | "unixgram":
            kind = socket.SOCK_STREAM if address.scheme == "unix" else socket.SOCK_DGRAM
            return Connection(_opened(socket.AF_UNIX, kind, address.host), patience)
        case "udp":
            return Connection(_by_name(address, socket.SOCK_DGRAM), patience)
    peer = _by_name(address, socket.SOCK_STREAM)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
    if address.scheme != "tls":
        return Connection(peer, patience)
    try:
        import ssl

        wrapped = tls_context(tls or TlsFiles()).wrap_socket(peer, server_hostname=address.host)
        return Connection(wrapped, patience, (ssl.SSLWantReadError,))
    except BaseException:
        peer.close()
        raise


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a client's context. OSError: a file cannot be read, or is no certificate or key."""
    import ssl  # 4 MB that only TLS needs

    context = ssl.create_default_context(cafile=files.ca or None)
    if not files.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.certificate and files.key:
        context.load_cert_chain(files.certificate, files.key)
    return context


def _by_name(address: Address, kind: int) -> socket.socket:
    error: OSError = OSError(errno.EHOSTUNREACH, f"{address.host} has no address")
    for family, _, _, _, where in socket.getaddrinfo(address.host, address.port, type=kind):
        try:
            return _opened(family, kind, where)
        except OSError as failed:
            error = failed
    raise error


def _opened(family: int, kind: int, where: object) -> socket.socket:
    peer = socket.socket(family, kind)
    try:
        peer.settimeout(_CONNECT_TIMEOUT_S)
        peer.connect(where)  # type: ignore[arg-type]
    except BaseException:
        peer.close()
        raise
    return peer


def _seal_all(memory: int) -> None:
    """Let nobody change a memfd any more. fcntl(2), File Sealing"""
    import fcntl

    fcntl.fcntl(
        memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    )
