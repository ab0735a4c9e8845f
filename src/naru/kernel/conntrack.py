"""Connection tracking: find the kernel's flows of a protocol and make it forget some.

A tracked UDP flow keeps the translation (or the lack of one) it began with, so a port that is published or
withdrawn takes effect for an existing sender only when its flow is forgotten. linux/netfilter/nfnetlink_conntrack.h
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from naru.kernel.netlink import NETLINK_NETFILTER, Message, NetlinkSocket, attribute, attributes, be32, nested, u8

_NFNL_SUBSYS_CTNETLINK = 1
_CT_GET, _CT_DELETE = 1, 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ID, _CTA_ZONE, _CTA_FILTER = 1, 2, 12, 18, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_FILTER_PROTOCOL = 1 << 3  # CTA_FILTER_F_CTA_PROTO_NUM
_NFGENMSG = struct.Struct("=BBH")


class Flow(NamedTuple):
    """One tracked flow: where its first packet was sent, and who answers it."""

    destination: IPv4Address | IPv6Address
    destination_port: int
    answering: IPv4Address | IPv6Address
    answering_port: int
    family: int
    identity: bytes


class ConntrackSocket(NetlinkSocket):
    """A conntrack conversation in the namespace of the thread that opens it."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def flows(self, family: int, protocol: int) -> list[Flow]:
        """Return the flows of one transport protocol, filtered by the kernel where it can (5.8 and later)."""
        body = _NFGENMSG.pack(family, 0, 0)
        body += nested(_CTA_FILTER, attribute(1, struct.pack("=I", _FILTER_PROTOCOL)))
        body += nested(_CTA_TUPLE_ORIG, nested(_CTA_TUPLE_PROTO, u8(1, protocol)))
        found = []
        for reply in self.dump(Message(_NFNL_SUBSYS_CTNETLINK << 8 | _CT_GET, 0, body, "conntrack dump")):
            flow = _flow(reply.body, protocol)
            if flow:
                found.append(flow)
        return found

    def forget(self, family: int, protocol: int, is_meant: Callable[[Flow], bool]) -> int:
        """Delete the flows that `is_meant` picks and return how many there were."""
        forgotten = 0
        for flow in self.flows(family, protocol):
            if not is_meant(flow):
                continue
            body = _NFGENMSG.pack(flow.family, 0, 0) + flow.identity
            try:
                self.transact([Message(_NFNL_SUBSYS_CTNETLINK << 8 | _CT_DELETE, 0, body, "conntrack delete")])
            except OSError as error:
                if error.errno != errno.ENOENT:  # timed out by itself
                    raise
            else:
                forgotten += 1
        return forgotten


def _flow(body: bytes, protocol: int) -> Flow | None:
    parts = attributes(body[_NFGENMSG.size :])
    original, reply = attributes(parts[_CTA_TUPLE_ORIG]), attributes(parts[_CTA_TUPLE_REPLY])
    transport, answer = attributes(original[_CTA_TUPLE_PROTO]), attributes(reply[_CTA_TUPLE_PROTO])
    if transport[1][0] != protocol or 3 not in transport or 2 not in answer:
        return None
    family = body[0]
    source_kind, destination_kind = (1, 2) if family == socket.AF_INET else (3, 4)
    addresses, answer_addresses = attributes(original[_CTA_TUPLE_IP]), attributes(reply[_CTA_TUPLE_IP])
    identity = nested(_CTA_TUPLE_ORIG, parts[_CTA_TUPLE_ORIG])
    if _CTA_ID in parts:
        identity += be32(_CTA_ID, struct.unpack(">I", parts[_CTA_ID])[0])
    if _CTA_ZONE in parts:
        identity += attribute(_CTA_ZONE, parts[_CTA_ZONE])
    return Flow(
        destination=ip_address(addresses[destination_kind]),
        destination_port=struct.unpack(">H", transport[3])[0],
        answering=ip_address(answer_addresses[source_kind]),
        answering_port=struct.unpack(">H", answer[2])[0],
        family=family,
        identity=identity,
    )
