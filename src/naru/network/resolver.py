"""The containers' DNS server: what 127.0.0.11:53 answers in every container on a network of one's own.

One thread serves all containers from sockets inside their namespaces (`dns_socket`). Names of containers are answered
at once from `names`; everything else goes on to the container's servers (`nameservers`) by the protocol it came
by, as it is, and so does the answer: sizes, truncation and DNSSEC stay between the client and the server. No socket
blocks, so a server that is slow delays only who asked it. A container whose networks are all internal gets no answer
about the world outside: names that go out could carry data out (CVE-2024-29018).
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from naru.kernel import netns
from naru.network.dns_message import PORT, Malformed, Query, is_refusal, read
from naru.network.dns_socket import open_sockets
from naru.network.dns_stream import DnsStream
from naru.network.names import Names
from naru.network.nameservers import HostNameservers, Nameserver, asked_for

_log = logging.getLogger(__name__)
_DATAGRAM_BYTES = 65536
_TURNS = 64  # then the others get theirs
# glibc waits 5 s for us and musl 2.5 s before they ask again: the second server must have had its chance by then.
_SERVER_TIMEOUT_S = 2.0
_CLIENT_IDLE_S = 10.0
# What one container, and all together, may have under way: each needs a descriptor of narud's.
_QUERIES_A_SITE = 128
_QUERIES = 512
_CLIENTS_A_SITE = 32


@dataclass(slots=True, eq=False)
class _Site:
    """One container's DNS server."""

    sandbox_id: str
    netns_fd: int
    datagrams: socket.socket
    listener: socket.socket
    servers: tuple[Nameserver, ...]
    can_forward: bool
    clients: set[_Client] = field(default_factory=set)
    exchanges: set[_Exchange] = field(default_factory=set)

    @property
    def ports(self) -> tuple[int, int]:
        return self.datagrams.getsockname()[1], self.listener.getsockname()[1]


@dataclass(slots=True, eq=False)
class _Client:
    """A container's TCP connection to us."""

    site: _Site
    stream: DnsStream


@dataclass(slots=True, eq=False)
class _Exchange:
    """A query that we passed on: `untried` servers are left to ask when this one fails."""

    site: _Site
    query: Query
    data: bytes
    reply: Callable[[bytes], None]
    is_stream: bool
    untried: list[Nameserver]
    end: socket.socket | None = None
    stream: DnsStream | None = None


class Resolver:
    """Serves containers until they are removed. Starts its thread with the first one."""

    def __init__(self, names: Names, host: HostNameservers) -> None:
        self._names = names
        self._host = host
        self._lock = threading.Lock()
        self._sites: dict[str, _Site] = {}
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._handlers: dict[int, Callable[[int], None]] = {}
        # In the order of their ends, as all of a kind are given the same time.
        self._deadlines: dict[_Exchange, float] = {}
        self._idle: dict[_Client, float] = {}
        self._closing = False
        self._thread: threading.Thread | None = None

    def serve(
        self,
        sandbox_id: str,
        netns_fd: int,
        *,
        dns: tuple[str, ...],
        can_forward: bool,
        ports: tuple[int, int],
    ) -> tuple[int, int]:
        """Answer at 127.0.0.11 in a namespace, or change how it is done; return the ports behind it. Callers serialise.

        `dns` are the servers of `--dns`, if any; without `can_forward` nothing is asked outside. `ports` are those of
        a daemon before us, or zeros.
        """
        site = self._sites.get(sandbox_id)
        if site:
            site.can_forward = can_forward
            return site.ports
        datagrams, listener = open_sockets(netns_fd, ports)
        site = _Site(sandbox_id, os.dup(netns_fd), datagrams, listener, asked_for(dns), can_forward)
        with self._lock:
            self._sites[sandbox_id] = site
            self._watch(datagrams, partial(self._receive, site))
            self._watch(listener, partial(self._accept, site))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dns", daemon=True)
                self._thread.start()
        return site.ports

    def remove(self, sandbox_id: str) -> None:
        """Stop answering in a namespace, and let go of it. Harmless to repeat."""
        with self._lock:
            site = self._sites.pop(sandbox_id, None)
            if site is None:
                return
            for exchange in list(site.exchanges):
                self._end(exchange)
            for client in list(site.clients):
                self._hang_up(client)
            for end in (site.datagrams, site.listener):
                self._forget(end)
                end.close()
            os.close(site.netns_fd)

    def close(self) -> None:
        """Stop the thread and let go of every namespace."""
        self._closing = True
        os.eventfd_write(self._wake, 1)
        if self._thread:
            self._thread.join()
        for sandbox_id in list(self._sites):
            self.remove(sandbox_id)
        self._epoll.close()
        os.close(self._wake)

    def _run(self) -> None:
        while True:
            with self._lock:
                timeout_s = self._time_left_s()
            ready = self._epoll.poll(timeout_s)
            with self._lock:
                if self._closing:
                    return
                for descriptor, mask in ready:
                    handler = self._handlers.get(descriptor)
                    if handler is None:  # removed since the event, or the wake-up
                        continue
                    try:
                        handler(mask)
                    except Exception:
                        _log.exception("DNS for a container failed")
                self._end_overdue()

    # Clients

    def _receive(self, site: _Site, _mask: int) -> None:
        for _turn in range(_TURNS):
            try:
                data, client = site.datagrams.recvfrom(_DATAGRAM_BYTES)
            except OSError:
                return
            self._answer(site, data, partial(_send_to, site.datagrams, client), is_stream=False)

    def _accept(self, site: _Site, _mask: int) -> None:
        for _turn in range(_TURNS):
            try:
                end, _address = site.listener.accept()
            except OSError:  # nobody waiting, or out of descriptors: the next event tries again
                return
            if len(site.clients) >= _CLIENTS_A_SITE:
                self._hang_up(next(iter(site.clients)))
            client = _Client(site, DnsStream(end, self._epoll))
            site.clients.add(client)
            self._idle[client] = time.monotonic() + _CLIENT_IDLE_S
            self._watch(end, partial(self._converse, client))

    def _converse(self, client: _Client, mask: int) -> None:
        messages = client.stream.turn(mask)
        if messages is None:
            self._hang_up(client)
            return
        for data in messages:
            self._idle.pop(client, None)
            self._idle[client] = time.monotonic() + _CLIENT_IDLE_S
            self._answer(client.site, data, partial(self._tell, client), is_stream=True)

    def _tell(self, client: _Client, data: bytes) -> None:
        if client in client.site.clients and not client.stream.send(data):
            self._hang_up(client)

    def _hang_up(self, client: _Client) -> None:
        client.site.clients.discard(client)
        self._idle.pop(client, None)
        self._forget(client.stream.end)
        client.stream.end.close()

    # Answers

    def _answer(self, site: _Site, data: bytes, reply: Callable[[bytes], None], *, is_stream: bool) -> None:
        try:
            query = read(data, is_stream=is_stream)
        except Malformed as error:
            if error.answer:
                reply(error.answer)
            return
        if query.address:
            name = self._names.find_name(site.sandbox_id, query.address)
            if name:
                reply(query.pointer(name))
                return
        elif query.name:
            found = self._names.find(site.sandbox_id, query.name)
            if found:
                reply(query.addresses([address for e in found for address in (e.ip, e.ip6) if address]))
                return
        is_full = len(site.exchanges) >= _QUERIES_A_SITE or len(self._deadlines) >= _QUERIES
        if is_full or not site.can_forward:
            reply(query.failure())
            return
        untried = list(site.servers or self._host.servers())
        exchange = _Exchange(site, query, data, reply, is_stream, untried)
        site.exchanges.add(exchange)
        self._ask_next(exchange)

    def _ask_next(self, exchange: _Exchange) -> None:
        """Pass the query on to the next server that takes it; with none left, answer that it failed."""
        self._let_go(exchange)
        while exchange.untried:
            server = exchange.untried.pop(0)
            try:
                exchange.end = _connected(server, exchange.site.netns_fd, is_stream=exchange.is_stream)
            except OSError:  # no route there, or no descriptor left
                continue
            self._deadlines[exchange] = time.monotonic() + _SERVER_TIMEOUT_S
            if exchange.is_stream:
                exchange.stream = DnsStream(exchange.end, self._epoll)
                self._watch(exchange.end, partial(self._answered_by_stream, exchange))
                exchange.stream.send(exchange.data)
                return
            self._watch(exchange.end, partial(self._answered, exchange))
            try:
                exchange.end.send(exchange.data)
            except OSError:
                self._let_go(exchange)
                continue
            return
        self._finish(exchange, exchange.query.failure())

    def _answered(self, exchange: _Exchange, _mask: int) -> None:
        if exchange.end is None:
            return
        try:
            data = exchange.end.recv(_DATAGRAM_BYTES)
        except OSError as error:
            if error.errno != errno.EAGAIN:  # nobody listens there
                self._ask_next(exchange)
            return
        if exchange.query.is_answered_by(data):
            self._take(exchange, data)

    def _answered_by_stream(self, exchange: _Exchange, mask: int) -> None:
        if exchange.stream is None:
            return
        messages = exchange.stream.turn(mask)
        if messages is None:
            self._ask_next(exchange)
            return
        for data in messages:
            if exchange.query.is_answered_by(data):
                self._take(exchange, data)
                return

    def _take(self, exchange: _Exchange, data: bytes) -> None:
        if exchange.untried and is_refusal(data):
            self._ask_next(exchange)
        else:
            self._finish(exchange, data)

    def _finish(self, exchange: _Exchange, data: bytes) -> None:
        self._end(exchange)
        exchange.reply(data)

    def _end(self, exchange: _Exchange) -> None:
        self._let_go(exchange)
        exchange.site.exchanges.discard(exchange)

    def _let_go(self, exchange: _Exchange) -> None:
        self._deadlines.pop(exchange, None)
        if exchange.end is not None:
            self._forget(exchange.end)
            exchange.end.close()
        exchange.end = exchange.stream = None

    # Time

    def _time_left_s(self) -> float:
        first = min([*list(self._deadlines.values())[:1], *list(self._idle.values())[:1]], default=None)
        return -1 if first is None else max(0.0, first - time.monotonic())

    def _end_overdue(self) -> None:
        now = time.monotonic()
        while self._deadlines and next(iter(self._deadlines.values())) <= now:
            self._ask_next(next(iter(self._deadlines)))
        while self._idle and next(iter(self._idle.values())) <= now:
            self._hang_up(next(iter(self._idle)))

    def _watch(self, end: socket.socket, handler: Callable[[int], None]) -> None:
        self._handlers[end.fileno()] = handler
        self._epoll.register(end, select.EPOLLIN)

    def _forget(self, end: socket.socket) -> None:
        if self._handlers.pop(end.fileno(), None):
            self._epoll.unregister(end)


def _connected(server: Nameserver, netns_fd: int, *, is_stream: bool) -> socket.socket:
    """Return a socket of its own for one query, so that its port is one that nobody can guess."""
    if server.is_hosts:
        return _connect(server.address, is_stream)
    return netns.run_inside(netns_fd, partial(_connect, server.address, is_stream))


def _connect(address: str, is_stream: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM
    with ExitStack() as undo:
        end = undo.enter_context(socket.socket(family, kind | socket.SOCK_NONBLOCK))
        number = end.connect_ex((address, PORT))
        if number not in (0, errno.EINPROGRESS):
            raise OSError(number, os.strerror(number), address)
        undo.pop_all()
        return end


def _send_to(datagrams: socket.socket, client: tuple[str, int], data: bytes) -> None:
    try:
        datagrams.sendto(data, client)
    except OSError:  # its buffer is full, or it is gone: it asks again
        return
