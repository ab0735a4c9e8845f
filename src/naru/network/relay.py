"""The userland relay: carries what arrives at a reserved host port to the container, in one thread for all ports.

The kernel translates nearly everything before it gets here. What is left: [::1], IPv6 clients of a container that
has only IPv4, and 127.0.0.1 where route_localnet cannot be set. As with any such relay the container sees the host as
the client, and a connection ends with the daemon.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 64 << 10
_CHUNKS_A_TURN = 16  # then the others get theirs
_ACCEPTS_A_TURN = 64
_DATAGRAMS_A_TURN = 64
_UDP_IDLE_S = 90.0  # long enough for slow request-reply protocols; conntrack keeps answered flows 120 s
_UDP_FLOWS_A_PORT = 1024
_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_IP_PKTINFO = 8
_AGAIN = (errno.EAGAIN, errno.EINPROGRESS)


@dataclass(slots=True, eq=False)
class _Port:
    listener: socket.socket
    target: tuple[str, int]
    is_stream: bool
    connections: set[_Connection] = field(default_factory=set)
    flows: dict[tuple[object, ...], _UdpFlow] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Direction:
    source: socket.socket
    sink: socket.socket
    pending: bytes = b""
    is_finished: bool = False


@dataclass(slots=True, eq=False)
class _Connection:
    port: _Port
    client: socket.socket
    server: socket.socket
    directions: tuple[_Direction, _Direction]


@dataclass(slots=True, eq=False)
class _UdpFlow:
    port: _Port
    client: tuple[object, ...]
    answer_from: list[tuple[int, int, bytes]]
    server: socket.socket
    last_used: float


class Relay:
    """Serves listening and datagram sockets until they are removed. Starts its thread with the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._handlers: dict[int, Callable[[], None]] = {}
        self._ports: dict[int, _Port] = {}
        self._unfinished: set[_Connection] = set()
        self._closing = False
        self._thread: threading.Thread | None = None

    def add(self, listener: socket.socket, target: tuple[str, int]) -> None:
        """Carry what comes to the non-blocking `listener` (a listening TCP or a UDP socket) to `target`."""
        is_stream = listener.type == socket.SOCK_STREAM
        port = _Port(listener, target, is_stream)
        if not is_stream:
            # To answer from the address that was asked, on a host with several.
            if listener.family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                listener.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        with self._lock:
            self._ports[listener.fileno()] = port
            self._handlers[listener.fileno()] = partial(self._accept if is_stream else self._receive, port)
            self._epoll.register(listener, select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="port-relay", daemon=True)
                self._thread.start()

    def remove(self, listeners: Iterable[socket.socket]) -> None:
        """Stop serving `listeners` and drop their connections; the caller then closes the sockets."""
        with self._lock:
            for listener in listeners:
                port = self._ports.pop(listener.fileno(), None)
                if port is None:
                    continue
                self._forget(listener)
                for connection in list(port.connections):
                    self._drop(connection)
                for flow in list(port.flows.values()):
                    self._expire(flow)

    def close(self) -> None:
        """Stop the thread and drop every connection; listeners stay the caller's."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        if self._thread:
            self._thread.join()
        self.remove([port.listener for port in list(self._ports.values())])
        self._epoll.close()
        os.close(self._wake)

    def _run(self) -> None:
        next_expiry = time.monotonic() + _UDP_IDLE_S
        while True:
            has_flows = any(port.flows for port in self._ports.copy().values())
            timeout = 0.0 if self._unfinished else _UDP_IDLE_S / 4 if has_flows else -1
            ready = self._epoll.poll(timeout)
            with self._lock:
                if self._closing:
                    return
                for connection in list(self._unfinished):
                    self._carry(connection)
                for descriptor, _mask in ready:
                    handler = self._handlers.get(descriptor)
                    if handler is None:  # removed since the event, or the wake-up
                        continue
                    try:
                        handler()
                    except Exception:
                        _log.exception("relay of a published port failed")
                now = time.monotonic()
                if now >= next_expiry:
                    self._expire_idle(now)
                    next_expiry = now + _UDP_IDLE_S / 4

    # TCP

    def _accept(self, port: _Port) -> None:
        for _turn in range(_ACCEPTS_A_TURN):
            try:
                client, _address = port.listener.accept()
            except OSError:  # nobody waiting, or gone again, or out of descriptors: the next event tries again
                return
            client.setblocking(False)
            server = socket.socket(
                socket.AF_INET6 if ":" in port.target[0] else socket.AF_INET,
                socket.SOCK_STREAM | socket.SOCK_NONBLOCK,
            )
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = server.connect_ex(port.target)
            connection = _Connection(port, client, server, (_Direction(client, server), _Direction(server, client)))
            port.connections.add(connection)
            if number not in (0, errno.EINPROGRESS):
                self._drop(connection)
                continue
            for end in (client, server):
                self._watch(end, partial(self._carry, connection))

    def _carry(self, connection: _Connection) -> None:
        self._unfinished.discard(connection)
        if connection not in connection.port.connections:
            return
        try:
            finished_turn = [_pump(direction) for direction in connection.directions]
            if not all(finished_turn):
                self._unfinished.add(connection)
        except OSError:  # reset by one side: the other is told the same way
            self._drop(connection)
            return
        if all(direction.is_finished for direction in connection.directions):
            self._drop(connection, is_orderly=True)

    def _drop(self, connection: _Connection, *, is_orderly: bool = False) -> None:
        connection.port.connections.discard(connection)
        self._unfinished.discard(connection)
        for end in (connection.client, connection.server):
            self._forget(end)
            if not is_orderly:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()

    # UDP

    def _receive(self, port: _Port) -> None:
        for _turn in range(_DATAGRAMS_A_TURN):
            try:
                data, ancillary, _flags, client = port.listener.recvmsg(_CHUNK_BYTES, 256)
            except OSError:
                return
            flow = port.flows.get(client)
            if flow is None:
                flow = self._open_flow(port, client, _answer_from(ancillary))
            flow.last_used = time.monotonic()
            try:
                flow.server.send(data)
            except OSError:  # full, or an ICMP answer to an earlier one: datagrams may get lost
                continue

    def _open_flow(
        self, port: _Port, client: tuple[object, ...], answer_from: list[tuple[int, int, bytes]]
    ) -> _UdpFlow:
        if len(port.flows) >= _UDP_FLOWS_A_PORT:
            self._expire(next(iter(port.flows.values())))
        server = socket.socket(
            socket.AF_INET6 if ":" in port.target[0] else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        )
        server.connect(port.target)
        flow = _UdpFlow(port, client, answer_from, server, time.monotonic())
        port.flows[client] = flow
        self._watch(server, partial(self._answer, flow))
        return flow

    def _answer(self, flow: _UdpFlow) -> None:
        # Edge-triggered: read until there is no more, bounded by what the socket buffer holds.
        while flow.server.fileno() >= 0:
            try:
                data = flow.server.recv(_CHUNK_BYTES)
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:
                    continue
                return
            flow.last_used = time.monotonic()
            try:
                flow.port.listener.sendmsg([data], flow.answer_from, 0, flow.client)
            except OSError:
                continue

    def _expire(self, flow: _UdpFlow) -> None:
        flow.port.flows.pop(flow.client, None)
        self._forget(flow.server)
        flow.server.close()

    def _expire_idle(self, now: float) -> None:
        for port in self._ports.values():
            for flow in [flow for flow in port.flows.values() if now - flow.last_used > _UDP_IDLE_S]:
                self._expire(flow)

    def _watch(self, end: socket.socket, handler: Callable[[], None]) -> None:
        self._handlers[end.fileno()] = handler
        self._epoll.register(end, _EDGES)

    def _forget(self, end: socket.socket) -> None:
        if self._handlers.pop(end.fileno(), None):
            self._epoll.unregister(end)


def _pump(direction: _Direction) -> bool:
    """Move bytes until a side has to wait; False if it only stopped to give others their turn."""
    if direction.is_finished:
        return True
    for _turn in range(_CHUNKS_A_TURN):
        try:
            if not direction.pending:
                direction.pending = direction.source.recv(_CHUNK_BYTES)
                if not direction.pending:
                    direction.is_finished = True
                    _shut_down(direction.sink)
                    return True
            sent = direction.sink.send(direction.pending)
        except OSError as error:
            if error.errno in _AGAIN:
                return True
            raise
        direction.pending = direction.pending[sent:]
    return False


def _shut_down(sink: socket.socket) -> None:
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise


def _answer_from(ancillary: Sequence[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Turn the note of where a datagram came in into the wish to send its answer from there."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            _index, local, _destination = struct.unpack("=I4s4s", data)
            return [(level, kind, struct.pack("=I4s4s", 0, local, bytes(4)))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return [(level, kind, data)]
    return []
