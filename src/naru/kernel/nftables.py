"""nf_tables: tables, chains, maps, elements and rules as messages, sent as one atomic batch.

Builders are pure and carry no policy; `NftablesSocket` sends them. Expressions load into 4-byte registers (8 and up)
or 16-byte ones (1-4), the kernel's two views of the same 64 bytes. Set key types are encoded so that nft(8) prints
back what is here in its own syntax. linux/netfilter/nf_tables.h; nft(8)
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from naru.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    Message,
    NetlinkSocket,
    Reply,
    attribute,
    attribute_list,
    attributes,
    be32,
    nested,
    string,
    text,
)

NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 = 1, 2, 10
HOOK_PREROUTING, HOOK_FORWARD, HOOK_OUTPUT, HOOK_POSTROUTING = 0, 2, 3, 4
PRIORITY_RAW, PRIORITY_DSTNAT, PRIORITY_FILTER, PRIORITY_SRCNAT = -300, -100, 0, 100
NF_DROP, NF_ACCEPT, NFT_RETURN = 0, 1, -5
CT_ESTABLISHED, CT_RELATED = 2, 4  # bits of `ct state`
NFNLGRP_NFTABLES = 7

NFNL_SUBSYS_NFTABLES = 10
_NEWTABLE, _GETTABLE, _DELTABLE = 0, 1, 2
_NEWCHAIN, _GETCHAIN = 3, 4
_NEWRULE, _GETRULE, _DELRULE = 6, 7, 8
_NEWSET = 9
_NEWSETELEM, _GETSETELEM, _DELSETELEM = 12, 13, 14
_NEWGEN = 15
_BATCH_BEGIN, _BATCH_END = 16, 17
_SET_IS_MAP = 0x8
_NFTA_TABLE_NAME = 1
_REGISTER = 1
_CMP_EQ, _CMP_NEQ = 0, 1
_NFGENMSG = struct.Struct("=BBH")
# nft's own numbers for data types, six bits each in a concatenation.
TYPE_IPV4_ADDRESS, TYPE_IPV6_ADDRESS, TYPE_PROTOCOL, TYPE_PORT = 7, 8, 12, 13
_ELEMENTS_A_MESSAGE = 500  # a nested attribute is at most 64 KiB


class Chain(NamedTuple):
    """A chain as found in the kernel; `hook` is None for one that others jump to."""

    family: int
    table: str
    name: str
    hook: int | None
    policy: int


class Rule(NamedTuple):
    """A rule as found in the kernel: its handle, our mark if it has one, its expressions as (name, attributes)."""

    handle: int
    comment: str
    expressions: list[tuple[str, bytes]]


class NftablesSocket(NetlinkSocket):
    """An nf_tables conversation in the namespace of the thread that opens it."""

    def __init__(self, *, groups: int = 0) -> None:
        super().__init__(NETLINK_NETFILTER, groups=groups)

    def commit(self, messages: Sequence[Message]) -> None:
        """Apply all `messages` or none. OSError names the first that was refused."""
        self.transact_atomically(_edge(_BATCH_BEGIN), messages, _edge(_BATCH_END))

    def has_table(self, family: int, table: str) -> bool:
        """Say whether a table exists."""
        try:
            self.query(_message(_GETTABLE, 0, family, text(_NFTA_TABLE_NAME, table), f"table {table}"))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def chains(self, family: int) -> list[Chain]:
        """Return the chains of every table of `family`."""
        found = []
        for reply in self.dump(_message(_GETCHAIN, 0, family, b"", "chains")):
            parts = attributes(reply.body[4:])
            hook = attributes(parts[4]).get(1) if 4 in parts else None
            found.append(
                Chain(
                    reply.body[0],
                    string(parts[1]),
                    string(parts[3]),
                    None if hook is None else struct.unpack(">I", hook)[0],
                    struct.unpack(">I", parts[5])[0] if 5 in parts else NF_ACCEPT,
                )
            )
        return found

    def rules(self, family: int, table: str, chain: str) -> list[Rule]:
        """Return the rules of one chain, in order."""
        found = []
        body = text(1, table) + text(2, chain)
        for reply in self.dump(_message(_GETRULE, 0, family, body, f"rules of {table} {chain}")):
            parts = attributes(reply.body[4:])
            if string(parts[1]) != table or string(parts[2]) != chain:
                continue
            expressions = []
            for _kind, element in attribute_list(parts.get(4, b"")):
                inner = attributes(element)
                expressions.append((string(inner[1]), inner.get(2, b"")))
            handle = struct.unpack(">Q", parts[3])[0]
            found.append(Rule(handle, _comment(parts.get(7, b"")), expressions))
        return found

    def elements(self, family: int, table: str, name: str) -> dict[bytes, bytes]:
        """Return a map's elements, key to data."""
        found = {}
        body = text(1, table) + text(2, name)
        for reply in self.dump(_message(_GETSETELEM, 0, family, body, f"elements of {table} {name}")):
            for _kind, element in attribute_list(attributes(reply.body[4:]).get(3, b"")):
                parts = attributes(element)
                key = attributes(parts[1])[1]
                found[key] = attributes(parts[2])[1] if 2 in parts else b""
        return found


def event_table(reply: Reply) -> str | None:
    """Name the table that a multicast event is about; None for the marker that ends a change."""
    if reply.type >> 8 != NFNL_SUBSYS_NFTABLES or reply.type & 0xFF == _NEWGEN:
        return None
    return string(attributes(reply.body[4:]).get(1, b""))


def is_table_deletion(reply: Reply) -> bool:
    """Say whether an event reports a table's removal."""
    return reply.type == NFNL_SUBSYS_NFTABLES << 8 | _DELTABLE


# Objects


def table(family: int, name: str) -> Message:
    """Make a table; no error if it exists."""
    return _message(_NEWTABLE, NLM_F_CREATE, family, text(1, name) + be32(2, 0), f"add table {name}")


def delete_table(family: int, name: str) -> Message:
    """Remove a table and all in it. ENOENT if there is none."""
    return _message(_DELTABLE, 0, family, text(1, name), f"delete table {name}")


def base_chain(family: int, table: str, name: str, *, kind: str, hook: int, priority: int) -> Message:
    """Make a chain that packets enter from `hook`, accepting what no rule decides."""
    body = text(1, table) + text(3, name) + nested(4, be32(1, hook), be32(2, priority)) + be32(5, NF_ACCEPT)
    return _message(_NEWCHAIN, NLM_F_CREATE, family, body + text(7, kind), f"add chain {table} {name}")


def concatenated_map(
    family: int, table: str, name: str, *, number: int, key: Sequence[int], data: Sequence[int]
) -> Message:
    """Make a map from one concatenation of types to another; `number` is its id within the batch."""
    body = text(1, table) + text(2, name) + be32(3, _SET_IS_MAP)
    body += be32(4, _concatenation(key)) + be32(5, sum(_register_bytes(kind) for kind in key))
    body += be32(6, _concatenation(data)) + be32(7, sum(_register_bytes(kind) for kind in data)) + be32(10, number)
    return _message(_NEWSET, NLM_F_CREATE, family, body, f"add map {table} {name}")


def add_elements(family: int, table: str, name: str, elements: Iterable[tuple[bytes, bytes]]) -> list[Message]:
    """Add (key, data) pairs to a map. EEXIST if a key is there with other data."""
    return _elements(_NEWSETELEM, NLM_F_CREATE, family, table, name, list(elements), "add")


def delete_elements(family: int, table: str, name: str, keys: Iterable[bytes]) -> list[Message]:
    """Remove keys from a map. ENOENT if one is not there, and then the whole batch fails."""
    return _elements(_DELSETELEM, 0, family, table, name, [(key, b"") for key in keys], "delete")


def append_rule(family: int, table: str, chain: str, *expressions: bytes) -> Message:
    """Add a rule at the end of a chain."""
    body = text(1, table) + text(2, chain) + nested(4, *expressions)
    return _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family, body, f"add rule {table} {chain}")


def insert_rule(family: int, table: str, chain: str, *expressions: bytes, comment: str) -> Message:
    """Put a rule at the head of a chain, marked with `comment` as nft(8) would."""
    marked = comment.encode() + b"\0"
    body = text(1, table) + text(2, chain) + nested(4, *expressions)
    body += attribute(7, bytes((0, len(marked))) + marked)
    return _message(_NEWRULE, NLM_F_CREATE, family, body, f"insert rule {table} {chain}")


def delete_rule(family: int, table: str, chain: str, handle: int) -> Message:
    """Remove the rule `handle` of a chain."""
    body = text(1, table) + text(2, chain) + attribute(3, struct.pack(">Q", handle))
    return _message(_DELRULE, 0, family, body, f"delete rule {table} {chain} handle {handle}")


# Expressions: what matches falls through to the next, what does not ends the rule.


def from_interface(name: str, *, negate: bool = False) -> bytes:
    """Match packets that came in by the device `name`."""
    return _meta(6, _REGISTER) + _compare(name.encode().ljust(16, b"\0"), negate)


def to_interface(name: str, *, negate: bool = False) -> bytes:
    """Match packets that leave by the device `name`."""
    return _meta(7, _REGISTER) + _compare(name.encode().ljust(16, b"\0"), negate)


def source_in(network: IPv4Network | IPv6Network) -> bytes:
    """Match the source address."""
    return _address_in(12 if network.version == 4 else 8, network, negate=False)


def destination_in(network: IPv4Network | IPv6Network, *, negate: bool = False) -> bytes:
    """Match the destination address."""
    return _address_in(16 if network.version == 4 else 24, network, negate)


def destination_is_local() -> bytes:
    """Match packets to one of this host's own addresses, whichever it is. fib(8)"""
    return _expression("fib", be32(1, _REGISTER), be32(2, 3), be32(3, 2)) + _compare(struct.pack("=I", 2), False)


def connection_state(bits: int) -> bytes:
    """Match connections in one of the states of `bits`."""
    return _expression("ct", be32(2, 0), be32(1, _REGISTER)) + _has_bits(bits)


def is_destination_translated() -> bytes:
    """Match connections whose destination was changed (`ct status dnat`)."""
    return _expression("ct", be32(2, 2), be32(1, _REGISTER)) + _has_bits(0x20)


def load_destination(family: int, register: int) -> bytes:
    """Load the destination address into 4-byte registers from `register` on."""
    offset, length = (16, 4) if family == NFPROTO_IPV4 else (24, 16)
    return _payload(1, offset, length, register)


def load_protocol_and_port(register: int) -> bytes:
    """Load the transport protocol into `register` and the destination port into the next."""
    return _meta(16, register) + _payload(2, 2, 2, register + 1)


def is_protocol(number: int) -> bytes:
    """Match one transport protocol (`meta l4proto`)."""
    return _meta(16, _REGISTER) + _compare(bytes((number,)), False)


def destination_port(port: int) -> bytes:
    """Match the transport protocol's destination port; it must be one that has ports."""
    return _payload(2, 2, 2, _REGISTER) + _compare(struct.pack(">H", port), False)


def load_value(register: int, data: bytes) -> bytes:
    """Put a constant into `register`."""
    return _expression("immediate", be32(1, register), _value(2, data))


def load_source(family: int, register: int) -> bytes:
    """Load the source address into 4-byte registers from `register` on."""
    offset, length = (12, 4) if family == NFPROTO_IPV4 else (8, 16)
    return _payload(1, offset, length, register)


def load_protocol_and_source_port(register: int) -> bytes:
    """Load the transport protocol into `register` and the source port into the next."""
    return _meta(16, register) + _payload(2, 0, 2, register + 1)


def map_lookup(name: str, source: int, destination: int) -> bytes:
    """Look the registers from `source` on up in a map and load its data; a key that is not there ends the rule."""
    return _expression("lookup", text(1, name), be32(2, source), be32(3, destination))


def translate_destination(family: int, address_register: int, port_register: int) -> bytes:
    """Send the connection to the address and port in two registers."""
    return _expression("nat", be32(1, 1), be32(2, family), be32(3, address_register), be32(5, port_register))


def masquerade() -> bytes:
    """Give the connection the source address of the device it leaves by."""
    return _expression("masq")


def untracked() -> bytes:
    """Keep the packet out of connection tracking; only in chains of raw priority."""
    return _expression("notrack")


def counter() -> bytes:
    """Count what gets here."""
    return _expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))


def verdict(code: int) -> bytes:
    """End with NF_ACCEPT, NF_DROP or NFT_RETURN."""
    return _expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, code))))


def is_unconditional_refusal(rule: Rule) -> bool:
    """Say whether a rule found in the kernel drops or rejects whatever gets to it."""
    deciding = [(name, body) for name, body in rule.expressions if name not in ("counter", "log")]
    if len(deciding) != 1:
        return False
    name, body = deciding[0]
    if name == "immediate":
        code = attributes(attributes(attributes(body).get(2, b"")).get(2, b"")).get(1)
        return code == struct.pack(">I", NF_DROP)
    return name == "reject"


def _address_in(offset: int, network: IPv4Network | IPv6Network, negate: bool) -> bytes:
    mask = network.netmask.packed
    masked = _expression(
        "bitwise",
        be32(1, _REGISTER),
        be32(2, _REGISTER),
        be32(3, len(mask)),
        _value(4, mask),
        _value(5, bytes(len(mask))),
    )
    return _payload(1, offset, len(mask), _REGISTER) + masked + _compare(network.network_address.packed, negate)


def _has_bits(bits: int) -> bytes:
    masked = _expression(
        "bitwise",
        be32(1, _REGISTER),
        be32(2, _REGISTER),
        be32(3, 4),
        _value(4, struct.pack("=I", bits)),
        _value(5, bytes(4)),
    )
    return masked + _compare(bytes(4), True)


def _meta(key: int, register: int) -> bytes:
    return _expression("meta", be32(2, key), be32(1, register))


def _payload(header: int, offset: int, length: int, register: int) -> bytes:
    return _expression("payload", be32(1, register), be32(2, header), be32(3, offset), be32(4, length))


def _compare(data: bytes, negate: bool) -> bytes:
    return _expression("cmp", be32(1, _REGISTER), be32(2, _CMP_NEQ if negate else _CMP_EQ), _value(3, data))


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parts))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


# Keys and data of concatenated maps: each part padded to a 4-byte register.


def address_part(address: IPv4Address | IPv6Address) -> bytes:
    """An address as part of a key or of data."""
    return address.packed


def protocol_part(number: int) -> bytes:
    """A transport protocol as part of a key."""
    return struct.pack("=B3x", number)


def port_part(port: int) -> bytes:
    """A port as part of a key or of data."""
    return struct.pack(">H2x", port)


def _register_bytes(kind: int) -> int:
    return 16 if kind == TYPE_IPV6_ADDRESS else 4


def _concatenation(kinds: Sequence[int]) -> int:
    encoded = 0
    for kind in kinds:
        encoded = encoded << 6 | kind
    return encoded


def _elements(
    kind: int, flags: int, family: int, table: str, name: str, pairs: list[tuple[bytes, bytes]], verb: str
) -> list[Message]:
    messages = []
    for start in range(0, len(pairs), _ELEMENTS_A_MESSAGE):
        encoded = [
            nested(1, _value(1, key), _value(2, data) if data else b"")
            for key, data in pairs[start : start + _ELEMENTS_A_MESSAGE]
        ]
        body = text(1, table) + text(2, name) + nested(3, *encoded)
        messages.append(_message(kind, flags, family, body, f"{verb} element {table} {name}"))
    return messages


def _comment(userdata: bytes) -> str:
    if len(userdata) > 2 and userdata[0] == 0:
        return string(userdata[2 : 2 + userdata[1]])
    return ""


def _message(kind: int, flags: int, family: int, body: bytes, label: str) -> Message:
    return Message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, _NFGENMSG.pack(family, 0, 0) + body, f"nftables {label}")


def _edge(kind: int) -> Message:
    return Message(kind, 0, _NFGENMSG.pack(0, 0, socket.htons(NFNL_SUBSYS_NFTABLES)), "nftables batch")
