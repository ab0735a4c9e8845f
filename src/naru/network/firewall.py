"""Our nf_tables: `naru` for IPv4, and for IPv6 where a network has it. Whole ruleset from records, ports as elements.

    table ip naru
      map published      host address . protocol . port -> container address . port
      map published_any  protocol . port                -> container address . port
      chain guard        (prerouting, raw)   bridges cannot reach the host's 127.0.0.0/8
      chain answers      (output, raw)       the relay's UDP answers begin no flow of their own
      chain prerouting   (nat)               connections from outside and from containers to published ports
      chain output       (nat)               connections of the host itself to published ports
      chain postrouting  (nat)               masquerade: to the outside, hairpin, from 127.0.0.1
      chain forward      (filter)            networks are isolated; from outside only what is published

`install` replaces the tables in one atomic batch, so there is one way for boot, for new networks and for repair
after somebody flushed the host's ruleset. Publishing adds elements: its cost does not depend on how many there are.
Connections in progress live in conntrack and notice none of it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from naru.kernel.netlink import Message
from naru.kernel.nftables import (
    CT_ESTABLISHED,
    CT_RELATED,
    HOOK_FORWARD,
    HOOK_OUTPUT,
    HOOK_POSTROUTING,
    HOOK_PREROUTING,
    NF_ACCEPT,
    NF_DROP,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFT_RETURN,
    PRIORITY_DSTNAT,
    PRIORITY_FILTER,
    PRIORITY_RAW,
    PRIORITY_SRCNAT,
    TYPE_IPV4_ADDRESS,
    TYPE_IPV6_ADDRESS,
    TYPE_PORT,
    TYPE_PROTOCOL,
    NftablesSocket,
    add_elements,
    append_rule,
    base_chain,
    concatenated_map,
    connection_state,
    counter,
    delete_elements,
    delete_table,
    destination_in,
    destination_is_local,
    from_interface,
    is_destination_translated,
    is_protocol,
    load_destination,
    load_protocol_and_port,
    load_protocol_and_source_port,
    load_source,
    map_lookup,
    masquerade,
    port_part,
    protocol_part,
    source_in,
    table,
    to_interface,
    translate_destination,
    untracked,
    verdict,
)
from naru.network.flows import StaleFlows
from naru.network.record import Network, Publication

TABLE = "naru"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_ANY = "published_any"
_EXACT = "published"
_LOOPBACK = IPv4Network("127.0.0.0/8")
_LOOPBACK6 = IPv6Network("::1/128")
_REGISTER = 8  # the first 4-byte register
_LARGEST_BATCH_BYTES = 8 << 20


class Firewall:
    """The tables of this daemon in its network namespace. Callers serialise."""

    def __init__(self) -> None:
        self._nftables = NftablesSocket()
        self._nftables.allow_large_batches(_LARGEST_BATCH_BYTES)
        self._stale_flows = StaleFlows()
        self._families: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the sockets; the tables stay, as running containers need them."""
        self._nftables.close()
        self._stale_flows.close()

    @property
    def nftables(self) -> NftablesSocket:
        """The conversation, for looking at foreign tables."""
        return self._nftables

    def install(
        self, networks: Sequence[Network], publications: Iterable[Publication], *, loopback: bool, closed: bool
    ) -> None:
        """Replace our tables by what `networks` and `publications` ask for, at once.

        `loopback`: 127.0.0.1 can be translated (route_localnet is on). `closed`: the host forwards only because we
        switched it on, so forward nothing but our own networks' traffic.
        """
        bridges = [network for network in networks if network.is_bridge]
        families = (NFPROTO_IPV4, NFPROTO_IPV6) if any(n.enable_ipv6 for n in bridges) else (NFPROTO_IPV4,)
        messages: list[Message] = []
        for family in families:
            messages += ruleset(family, bridges, loopback=loopback, closed=closed)
        publications = list(publications)
        messages += _elements(publications, families)
        stale = NFPROTO_IPV6 not in families and self._nftables.has_table(NFPROTO_IPV6, TABLE)
        self._nftables.commit(([delete_table(NFPROTO_IPV6, TABLE)] if stale else []) + messages)
        self._families = families
        # Senders that tried while somebody had flushed the tables.
        self._stale_flows.forget(publications, translated=False)

    def is_installed(self) -> bool:
        """Say whether our tables are still there."""
        return all(self._nftables.has_table(family, TABLE) for family in self._families)

    def publish(self, publications: Sequence[Publication]) -> None:
        """Make publications reachable, for senders too that tried before. OSError ENOENT: tables are missing."""
        self._nftables.commit(_elements(publications, self._families))
        self._stale_flows.forget(publications, translated=False)

    def withdraw(self, publications: Sequence[Publication]) -> bool:
        """Make publications unreachable; False if the tables are not as recorded and want an `install`."""
        keys: dict[tuple[int, str], list[bytes]] = {}
        for publication in publications:
            found = _element(publication, self._families)
            if found:
                keys.setdefault(found[:2], []).append(found[2])
        messages = []
        for (family, name), group in keys.items():
            messages += delete_elements(family, TABLE, name, group)
        try:
            self._nftables.commit(messages)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        self._stale_flows.forget(publications, translated=True)
        return True

    def remove(self) -> None:
        """Remove our tables, for a daemon that gives the host back."""
        for family in (NFPROTO_IPV4, NFPROTO_IPV6):
            if self._nftables.has_table(family, TABLE):
                self._nftables.commit([delete_table(family, TABLE)])


def ruleset(family: int, networks: Sequence[Network], *, loopback: bool, closed: bool) -> list[Message]:
    """Return the messages that replace our table of one family. Pure."""
    version = 4 if family == NFPROTO_IPV4 else 6
    bridges = [network for network in networks if network.subnet(version)]
    address, registers = (TYPE_IPV4_ADDRESS, 1) if version == 4 else (TYPE_IPV6_ADDRESS, 4)
    target = (address, TYPE_PORT)

    def rule(chain: str, *expressions: bytes) -> Message:
        return append_rule(family, TABLE, chain, *expressions)

    def chain(name: str, kind: str, hook: int, priority: int) -> Message:
        return base_chain(family, TABLE, name, kind=kind, hook=hook, priority=priority)

    messages = [
        # Adding before deleting makes the deletion succeed whether or not there was a table.
        table(family, TABLE),
        delete_table(family, TABLE),
        table(family, TABLE),
        concatenated_map(family, TABLE, _EXACT, number=1, key=(address, TYPE_PROTOCOL, TYPE_PORT), data=target),
        concatenated_map(family, TABLE, _ANY, number=2, key=(TYPE_PROTOCOL, TYPE_PORT), data=target),
        chain("guard", "filter", HOOK_PREROUTING, PRIORITY_RAW),
        chain("answers", "filter", HOOK_OUTPUT, PRIORITY_RAW),
        chain("prerouting", "nat", HOOK_PREROUTING, PRIORITY_DSTNAT),
        chain("output", "nat", HOOK_OUTPUT, PRIORITY_DSTNAT),
        chain("postrouting", "nat", HOOK_POSTROUTING, PRIORITY_SRCNAT),
        chain("forward", "filter", HOOK_FORWARD, PRIORITY_FILTER),
    ]
    if version == 4:
        # Translation comes before the kernel refuses 127.0.0.0/8 from the wire: without this rule a neighbour could
        # send to a port that is published on 127.0.0.1 only (moby 45610).
        messages.append(rule("prerouting", destination_in(_LOOPBACK), verdict(NFT_RETURN)))
        # route_localnet opens the host's loopback listeners to containers. Before translation, so that answers to
        # the host's own translated connections, whose 127.0.0.1 is restored later, are not hit.
        messages.append(rule("guard", destination_in(_LOOPBACK, negate=True), verdict(NF_ACCEPT)))
        messages += [rule("guard", from_interface(n.device), counter(), verdict(NF_DROP)) for n in bridges]
        if not loopback:
            messages.append(rule("output", destination_in(_LOOPBACK), verdict(NFT_RETURN)))
    else:
        # There is no route_localnet for IPv6: [::1] is the relay's.
        messages.append(rule("output", destination_in(_LOOPBACK6), verdict(NFT_RETURN)))
    for name in ("prerouting", "output"):
        # A key that is not in the map ends the rule, so the address-bound map is asked first, then the other.
        messages += [
            rule(
                name,
                destination_is_local(),
                load_destination(family, _REGISTER),
                load_protocol_and_port(_REGISTER + registers),
                map_lookup(_EXACT, _REGISTER, _REGISTER),
                translate_destination(family, _REGISTER, _REGISTER + registers),
            ),
            rule(
                name,
                destination_is_local(),
                load_protocol_and_port(_REGISTER),
                map_lookup(_ANY, _REGISTER, _REGISTER),
                translate_destination(family, _REGISTER, _REGISTER + registers),
            ),
        ]
    # What the host itself sends from a published port is the relay's answer to a sender whose flow is older than the
    # port. Tracked, that answer would begin an untranslated flow just after the stale one was forgotten, and the sender
    # would be the relay's for as long as it went on sending.
    udp = is_protocol(PROTOCOLS["udp"])
    exact = (load_source(family, _REGISTER), load_protocol_and_source_port(_REGISTER + registers))
    messages += [
        rule("answers", udp, *exact, map_lookup(_EXACT, _REGISTER, _REGISTER), untracked()),
        rule(
            "answers",
            udp,
            load_protocol_and_source_port(_REGISTER),
            map_lookup(_ANY, _REGISTER, _REGISTER),
            untracked(),
        ),
    ]
    messages += _postrouting(rule, bridges, version)
    messages += _forward(rule, bridges, closed=closed)
    return messages


def _postrouting(rule: Callable[..., Message], bridges: Sequence[Network], version: int) -> list[Message]:
    messages = []
    for network in bridges:
        subnet = network.subnet(version)
        assert subnet is not None
        inside, device = source_in(subnet.network), network.device
        if network.masquerades:
            messages.append(rule("postrouting", inside, to_interface(device, negate=True), counter(), masquerade()))
        # A container that reaches itself or a neighbour by a published port must see the answer come back the same way.
        hairpin = (inside, to_interface(device), is_destination_translated(), counter(), masquerade())
        messages.append(rule("postrouting", *hairpin))
        if version == 4:
            messages.append(rule("postrouting", source_in(_LOOPBACK), to_interface(device), counter(), masquerade()))
    return messages


def _forward(rule: Callable[..., Message], bridges: Sequence[Network], *, closed: bool) -> list[Message]:
    messages = [rule("forward", connection_state(CT_ESTABLISHED | CT_RELATED), verdict(NF_ACCEPT))]
    for network in bridges:
        into, out = to_interface(network.device), from_interface(network.device)
        if network.allows_traffic_between_endpoints:
            messages.append(rule("forward", out, into, verdict(NF_ACCEPT)))
        if network.internal:
            messages += [rule("forward", out, counter(), verdict(NF_DROP)), rule("forward", into, verdict(NF_DROP))]
    for network in bridges:
        into = to_interface(network.device)
        messages.append(rule("forward", into, is_destination_translated(), verdict(NF_ACCEPT)))
        messages.append(rule("forward", into, counter(), verdict(NF_DROP)))
    messages += [rule("forward", from_interface(network.device), verdict(NF_ACCEPT)) for network in bridges]
    if closed:
        messages.append(rule("forward", counter(), verdict(NF_DROP)))
    return messages


def _elements(publications: Iterable[Publication], families: Sequence[int]) -> list[Message]:
    groups: dict[tuple[int, str], list[tuple[bytes, bytes]]] = {}
    for publication in publications:
        found = _element(publication, families)
        if found:
            groups.setdefault(found[:2], []).append(found[2:])
    messages = []
    for (family, name), pairs in groups.items():
        messages += add_elements(family, TABLE, name, pairs)
    return messages


def _element(publication: Publication, families: Sequence[int]) -> tuple[int, str, bytes, bytes] | None:
    host, target = ip_address(publication.host_ip), ip_address(publication.target_ip)
    family = NFPROTO_IPV4 if host.version == 4 else NFPROTO_IPV6
    if host.version != target.version or family not in families:
        return None  # the relay's business: the kernel does not translate between versions
    key = protocol_part(PROTOCOLS[publication.protocol]) + port_part(publication.host_port)
    data = target.packed + port_part(publication.target_port)
    if host.is_unspecified:
        return family, _ANY, key, data
    return family, _EXACT, host.packed + key, data
