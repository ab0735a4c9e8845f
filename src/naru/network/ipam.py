"""IPAM: which subnet a network gets, and which address an endpoint gets. Pure; `Networks` records the result.

The gateway is taken first, then Docker's auxiliary addresses; endpoints get the lowest free address.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from naru.errors import Conflict, Forbidden, InvalidArgument, Unavailable
from naru.network.record import Subnet

AnyAddress = IPv4Address | IPv6Address
AnyNetwork = IPv4Network | IPv6Network

# Docker's predefined local address pools: (range to cut from, prefix length of each cut).
DEFAULT_POOLS: tuple[tuple[str, int], ...] = (
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
)


class Pool:
    """The addresses of one subnet and who has them. Not locked: its owner serialises."""

    def __init__(self, subnet: Subnet) -> None:
        self.network: AnyNetwork = subnet.network
        self.gateway = subnet.gateway
        self._name = subnet.subnet
        span = ip_network(subnet.ip_range) if subnet.ip_range else self.network
        last = int(self.network.broadcast_address)
        spare = 1 if self.network.version == 4 and self.network.prefixlen < 31 else 0
        self._first = max(int(span.network_address), int(self.network.network_address) + 1)
        self._last = min(int(span.broadcast_address), last - spare)
        self._next = self._first
        self._used: set[int] = set()
        self._freed: list[int] = []
        if subnet.gateway:
            self.take(subnet.gateway)
        for address in subnet.reserved.values():
            self.take(address)

    def take(self, address: str) -> AnyAddress:
        """Reserve one address. InvalidArgument if it is outside the subnet, Conflict if somebody has it."""
        parsed = parse_address(address)
        if parsed.version != self.network.version or parsed not in self.network:
            raise InvalidArgument(f"no configured subnet contains IP address {address}")
        if int(parsed) in self._used:
            raise Conflict("Address already in use")
        self._used.add(int(parsed))
        return parsed

    def allocate(self) -> AnyAddress:
        """Reserve the lowest free address of the range. Unavailable when all are taken."""
        while self._freed:
            candidate = heapq.heappop(self._freed)
            if candidate not in self._used:
                return self._hand_out(candidate)
        while self._next <= self._last:
            candidate = self._next
            self._next += 1
            if candidate not in self._used:
                return self._hand_out(candidate)
        raise Unavailable(
            f"no available IPv{self.network.version} addresses on this network's address pools: {self._name}"
        )

    def release(self, address: str | AnyAddress) -> None:
        """Give one address back; no error if nobody has it."""
        value = int(ip_address(address))
        if value not in self._used:
            return
        self._used.discard(value)
        if self._first <= value < self._next:
            heapq.heappush(self._freed, value)

    def occupancy(self) -> tuple[int, int]:
        """Return how many addresses are taken or reserved, and how many `allocate` can still hand out."""
        first, last = int(self.network.network_address), int(self.network.broadcast_address)
        reserved = {first} | ({last} if self.network.version == 4 else set())
        taken = sum(self._first <= value <= self._last for value in self._used)
        return len(self._used | reserved), max(0, self._last - self._first + 1 - taken)

    def _hand_out(self, value: int) -> AnyAddress:
        self._used.add(value)
        return IPv4Address(value) if self.network.version == 4 else IPv6Address(value)


def choose_subnet(taken: Iterable[AnyNetwork], pools: Sequence[tuple[str, int]] = DEFAULT_POOLS) -> IPv4Network:
    """Return the first predefined subnet that overlaps nothing of `taken` (host routes and other networks)."""
    occupied = [network for network in taken if network.version == 4]
    for span, prefix_len in pools:
        for candidate in IPv4Network(span).subnets(new_prefix=prefix_len):
            if not any(candidate.overlaps(network) for network in occupied):
                return candidate
    raise Unavailable(
        "all predefined address pools have been fully subnetted", hint="remove unused networks or give a --subnet"
    )


def choose_ipv6_subnet(network_id: str) -> IPv6Network:
    """Return a unique local /64 whose 40 random bits are the network ID's first. RFC 4193, section 3.2.2"""
    return IPv6Network((b"\xfd" + bytes.fromhex(network_id[:10]) + bytes(10), 64))


def check_subnet(subnet: Subnet, others: Iterable[AnyNetwork]) -> Subnet:
    """Return `subnet` in canonical form with its gateway filled in, or say what is wrong with it.

    Forbidden: it overlaps one of `others`, the subnets of this engine's networks. The host's own routes may be
    covered on purpose (a VPN's range, say), so they are only avoided when we choose.
    """
    try:
        network = ip_network(subnet.subnet, strict=False)
    except ValueError:
        raise InvalidArgument(f"invalid subnet {subnet.subnet}: invalid CIDR block notation") from None
    if network.num_addresses < 4:
        raise InvalidArgument(f"invalid subnet {network}: no room for a gateway and an endpoint")
    if any(network.overlaps(other) for other in others if other.version == network.version):
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
    span = network
    if subnet.ip_range:
        try:
            span = ip_network(subnet.ip_range, strict=False)
        except ValueError:
            raise InvalidArgument(f"invalid ip-range {subnet.ip_range}: invalid CIDR block notation") from None
        if span.version != network.version or not _holds(network, span):
            raise InvalidArgument(f"invalid ip-range {span}: not in subnet {network}")
    # Docker takes the range's first address when there is a range, so that old address plans keep working.
    first = span.network_address + 1 if span.network_address == network.network_address else span.network_address
    gateway = parse_address(subnet.gateway.split("/")[0]) if subnet.gateway else first
    for name, address in [("gateway", gateway), *((k, parse_address(v)) for k, v in subnet.reserved.items())]:
        if address.version != network.version or address not in network:
            raise InvalidArgument(f"invalid {name} address {address}: not in subnet {network}")
    return Subnet(str(network), str(gateway), str(span) if subnet.ip_range else "", subnet.reserved)


def parse_address(address: str) -> AnyAddress:
    """Parse an address that a client sent."""
    try:
        return ip_address(address)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {address}") from None


def mac_for(address: AnyAddress) -> str:
    """Return Docker's MAC for an address: 02:42 and its last four bytes, so that a reused address keeps its MAC."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed[-4:])


def _holds(network: AnyNetwork, part: AnyNetwork) -> bool:
    return part.network_address in network and part.broadcast_address in network
