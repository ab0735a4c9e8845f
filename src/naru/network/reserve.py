"""Host ports: which are ours, held by bound sockets so that nobody else can take them while they are published.

The kernel's translation wins before a packet gets to these sockets; what it does not take (IPv6 for a container
without it, [::1], 127.0.0.1 where route_localnet is off) arrives at them, and `relay` serves it. The sockets live in
narud: after a restart they are bound again from the records.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import NamedTuple

from naru.errors import Conflict, InvalidArgument, Unavailable
from naru.network.firewall import PROTOCOLS
from naru.network.ipam import parse_address
from naru.network.namespaces import read_sysctl
from naru.network.record import PortBinding, Publication

_WILDCARDS = ("0.0.0.0", "::")
_BACKLOG = 128
_SCTP = "sctp"


class Reserved(NamedTuple):
    """A publication and the socket that holds its host port; None for SCTP, which has no relay."""

    publication: Publication
    socket: socket.socket | None


class PortReservations:
    """The host ports of this daemon. Callers serialise."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], list[str]] = {}
        self._last_ephemeral = 0

    def reserve(
        self, bindings: Sequence[PortBinding], *, target_ip: str, target_ip6: str, default_host_ip: str = ""
    ) -> list[Reserved]:
        """Take the host ports of all `bindings`, or none.

        Conflict, in Docker's words, if one of ours or a foreign socket has one. IPv6 host addresses lead to
        `target_ip6` where the container has it, else to its IPv4 address.
        """
        reserved: list[Reserved] = []
        try:
            for binding in bindings:
                reserved += self._reserve_one(binding, target_ip, target_ip6, default_host_ip)
        except BaseException:
            self.release(reserved)
            raise
        return reserved

    def restore(self, publications: Sequence[Publication]) -> tuple[list[Reserved], list[OSError]]:
        """Take the ports of recorded publications again; those that somebody took meanwhile are the second result."""
        reserved, failures = [], []
        for publication in publications:
            try:
                reserved.append(self._take(publication))
            except OSError as error:
                failures.append(error)
        return reserved, failures

    def release(self, reserved: Sequence[Reserved]) -> None:
        """Give ports back and close their sockets."""
        for publication, holder in reserved:
            key = (publication.protocol, publication.host_port)
            addresses = self._held.get(key, [])
            if publication.host_ip in addresses:
                addresses.remove(publication.host_ip)
            if not addresses:
                self._held.pop(key, None)
            if holder:
                holder.close()

    def _reserve_one(
        self, binding: PortBinding, target_ip: str, target_ip6: str, default_host_ip: str
    ) -> list[Reserved]:
        if binding.protocol not in PROTOCOLS:
            raise InvalidArgument(f"invalid proto: {binding.protocol}")
        wanted = binding.host_ip or default_host_ip
        hosts = [str(parse_address(wanted))] if wanted else ["0.0.0.0"] + (["::"] if _has_ipv6() else [])

        def take_all(port: int) -> list[Reserved]:
            taken: list[Reserved] = []
            try:
                for host in hosts:
                    target = target_for(host, target_ip, target_ip6)
                    taken.append(self._take(Publication(binding.protocol, host, port, target, binding.container_port)))
            except BaseException:
                self.release(taken)
                raise
            return taken

        first = binding.host_port
        if first and (binding.host_port_end or first) == first:
            try:
                return take_all(first)
            except OSError as error:
                raise _refusal(error, binding.protocol, first) from error
        for port in self._candidates(binding):
            try:
                taken = take_all(port)
            except Conflict:
                continue
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise _refusal(error, binding.protocol, port) from error
            if not first:
                self._last_ephemeral = port
            return taken
        raise Unavailable("all ports are allocated")

    def _candidates(self, binding: PortBinding) -> Sequence[int]:
        if binding.host_port:
            return range(binding.host_port, (binding.host_port_end or binding.host_port) + 1)
        low, high = _ephemeral_range()
        start = self._last_ephemeral + 1 if low <= self._last_ephemeral < high else low
        return [*range(start, high + 1), *range(low, start)]

    def _take(self, publication: Publication) -> Reserved:
        key = (publication.protocol, publication.host_port)
        for other in self._held.get(key, ()):
            if _collide(other, publication.host_ip):
                host = _bracketed(publication.host_ip)
                raise Conflict(f"Bind for {host}:{publication.host_port} failed: port is already allocated")
        holder = _bind(publication)
        self._held.setdefault(key, []).append(publication.host_ip)
        return Reserved(publication, holder)


def target_for(host_ip: str, target_ip: str, target_ip6: str) -> str:
    """Return which of a container's addresses serves a host address: that of its own version, if there is one."""
    return target_ip6 or target_ip if ":" in host_ip else target_ip or target_ip6


def _bind(publication: Publication) -> socket.socket | None:
    if publication.protocol == _SCTP:
        return None
    family = socket.AF_INET6 if ":" in publication.host_ip else socket.AF_INET
    is_stream = publication.protocol == "tcp"
    holder = socket.socket(family, (socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM) | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_stream:
            # Past connections in TIME_WAIT must not keep a port from its container. Listening at once is what then
            # keeps everybody else out: two sockets with SO_REUSEADDR may share a port only while none listens.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((publication.host_ip, publication.host_port))
        if is_stream:
            holder.listen(_BACKLOG)
    except OSError as error:
        holder.close()
        error.filename = f"{_bracketed(publication.host_ip)}:{publication.host_port}"
        raise
    return holder


def _refusal(error: OSError, protocol: str, port: int) -> Conflict:
    where = error.filename or f"0.0.0.0:{port}"
    version = 6 if "[" in where else 4
    # Docker's text is Go's, whose errno strings are lower case.
    reason = (error.strerror or str(error)).lower()
    return Conflict(f"Error starting userland proxy: listen {protocol}{version} {where}: bind: {reason}")


def _collide(first: str, second: str) -> bool:
    if (":" in first) != (":" in second):
        return False
    return first == second or first in _WILDCARDS or second in _WILDCARDS


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _ephemeral_range() -> tuple[int, int]:
    low, _space, high = read_sysctl("ipv4/ip_local_port_range").partition("\t")
    return (int(low), int(high)) if low and high else (32768, 60999)


def _has_ipv6() -> bool:
    return bool(read_sysctl("ipv6/bindv6only"))
