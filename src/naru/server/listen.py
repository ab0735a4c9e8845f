"""Where the API is reachable: unix sockets, TCP with or without TLS, sockets handed over by systemd.

An address is written as for Docker: `unix:///run/naru/naru.sock`, `tcp://127.0.0.1:2376`, `fd://`. Plain TCP gives
whoever reaches it root on this host, so it is the caller's business to warn. systemd.socket(5), sd_listen_fds(3)
"""

from __future__ import annotations

import grp
import logging
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress

from aiohttp import web

from naru.errors import Conflict, InvalidArgument
from naru.server.tls import Tls, TlsSite

__all__ = ["Tls", "serve", "sockets", "systemd_sockets", "tcp_sockets", "unix_socket"]

SOCKET_MODE = 0o660
SOCKET_GROUPS = ("naru", "docker")
DEFAULT_TLS_PORT = 2376
DEFAULT_TCP_PORT = 2375
FIRST_SYSTEMD_FD = 3

# Longer than any client keeps an unused connection, so that it is never us who closes under its feet.
KEEPALIVE_S = 120.0
SHUTDOWN_S = 2.0

# What Go's server takes, and with it Docker's: build arguments and credentials of many registries are long.
MAX_HEAD_BYTES = 1 << 20


async def serve(app: web.Application, addresses: Sequence[str], *, tls: Tls | None = None) -> web.AppRunner:
    """Listen on every address and return the running server; `cleanup()` it to stop."""
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        logger=logging.Logger("naru.server.http", logging.CRITICAL),  # it would log each malformed request, whole
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
        handle_signals=False,
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
    )
    await runner.setup()
    try:
        for address in addresses:
            for sock in sockets(address, has_tls=tls is not None):
                if tls is not None and sock.family != socket.AF_UNIX:
                    await TlsSite(runner, sock, tls.context()).start()
                else:
                    await web.SockSite(runner, sock, backlog=1024).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


def sockets(address: str, *, has_tls: bool = False) -> list[socket.socket]:
    """Return the bound sockets of `address`. InvalidArgument: not an address. Conflict: someone listens there."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = ("unix", address) if address.startswith("/") else ("tcp", address)
    match scheme:
        case "unix":
            return [unix_socket(rest)]
        case "tcp":
            return tcp_sockets(rest, DEFAULT_TLS_PORT if has_tls else DEFAULT_TCP_PORT)
        case "fd":
            return systemd_sockets()
    raise InvalidArgument(f"invalid bind address ({address}): unknown scheme {scheme}")


def unix_socket(path: str) -> socket.socket:
    """Return a socket bound to `path`, for root and the group `naru` or `docker`; a dead one there is replaced."""
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    _remove_dead_socket(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        # No connection can come in before listen(), so nobody gets in between bind and these two.
        os.chmod(path, SOCKET_MODE)
        os.chown(path, -1, _socket_group())
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_dead_socket(path: str) -> None:
    """Make room at `path`. Conflict: somebody answers there, or it is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Conflict(f"cannot listen on {path}: it exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        else:
            raise Conflict(f"cannot listen on {path}: another daemon answers there")
    with suppress(FileNotFoundError):
        os.unlink(path)


def _socket_group() -> int:
    """Return the group that may use the socket; -1, no change, if there is none."""
    for name in SOCKET_GROUPS:
        with suppress(KeyError):
            return grp.getgrnam(name).gr_gid
    return -1


def tcp_sockets(address: str, default_port: int) -> list[socket.socket]:
    """Return a socket for each address `address` ("host:port", "[::1]:port", ":port") resolves to."""
    host, _, port = address.rstrip("/").rpartition(":") if _has_port(address) else (address, "", "")
    if port and not port.isdecimal():
        raise InvalidArgument(f"invalid bind address (tcp://{address}): {port} is not a port")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port or default_port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as err:
        raise InvalidArgument(f"invalid bind address (tcp://{address}): {err.strerror}") from err
    bound: list[socket.socket] = []
    try:
        for family, _kind, _protocol, _name, where in found:
            bound.append(_tcp_socket(family, where))
    except BaseException as err:
        for sock in bound:
            sock.close()
        if isinstance(err, OSError):
            raise Conflict(f"cannot listen on tcp://{address}: {(err.strerror or str(err)).lower()}") from err
        raise
    return bound


def _has_port(address: str) -> bool:
    return address.rpartition("]")[2].count(":") == 1


def _tcp_socket(family: int, where: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 has a socket of its own
        sock.bind(where)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


def systemd_sockets() -> list[socket.socket]:
    """Return the listening sockets systemd passed to this process. InvalidArgument: none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise InvalidArgument("no sockets found via socket activation: make sure the service was started by systemd")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    found = [socket.socket(fileno=fd) for fd in range(FIRST_SYSTEMD_FD, FIRST_SYSTEMD_FD + count)]
    for sock in found:
        sock.set_inheritable(False)
    return found
