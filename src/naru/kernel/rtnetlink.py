"""rtnetlink: devices, addresses and routes as messages to batch, and dumps of what is there.

Message builders are pure; `RouteSocket` carries them. Only what container networks need. rtnetlink(7)
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network
from typing import NamedTuple

from naru.kernel.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    NetlinkSocket,
    attribute,
    attributes,
    nested,
    string,
    text,
    u8,
    u32,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26

IFF_UP = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_LINKINFO, IFLA_STATS64, IFLA_NET_NS_FD = 18, 23, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_INFO_PEER = 1
IFLA_BRPORT_STATE, IFLA_BRPORT_MODE, IFLA_BRPORT_FLUSH, IFLA_BRPORT_ISOLATED = 1, 4, 24, 33
BR_STATE_DISABLED = 0
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN = 254
RTPROT_BOOT, RTN_UNICAST = 3, 1

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network


class Link(NamedTuple):
    """A device: `number` is its index, `master` that of the bridge it is a port of, or 0; `kind` is "" for hardware."""

    number: int
    name: str
    kind: str
    master: int
    is_up: bool
    mac: bytes
    mtu: int
    statistics: bytes


class Counters(NamedTuple):
    """Traffic of a device since it was made, from the device's own point of view."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


class RouteSocket(NetlinkSocket):
    """An rtnetlink conversation in the namespace of the thread that opens it."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def links(self) -> list[Link]:
        """Return every device."""
        return [_link(reply.body) for reply in self.dump(Message(RTM_GETLINK, 0, _ifinfo(), "RTM_GETLINK"))]

    def link(self, name: str) -> Link | None:
        """Return the device `name`, or None."""
        try:
            request = Message(RTM_GETLINK, 0, _ifinfo() + text(IFLA_IFNAME, name), f"RTM_GETLINK {name}")
            return _link(self.query(request).body)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def addresses(self, index: int | None = None) -> list[Interface]:
        """Return the addresses of the device `index`, or of all devices."""
        found: list[Interface] = []
        for reply in self.dump(Message(RTM_GETADDR, 0, _IFADDR.pack(0, 0, 0, 0, 0), "RTM_GETADDR")):
            family, prefix_len, _flags, _scope, owner = _IFADDR.unpack_from(reply.body)
            parts = attributes(reply.body[_IFADDR.size :])
            packed = parts.get(IFA_LOCAL, parts.get(IFA_ADDRESS))
            if index in (None, owner) and packed is not None and family in (socket.AF_INET, socket.AF_INET6):
                found.append(
                    IPv4Interface((packed, prefix_len))
                    if family == socket.AF_INET
                    else IPv6Interface((packed, prefix_len))
                )
        return found

    def routes(self) -> list[tuple[Network, int]]:
        """Return the unicast routes of the main table as (destination, device index), default routes left out."""
        found: list[tuple[Network, int]] = []
        for reply in self.dump(Message(RTM_GETROUTE, 0, _RTMSG.pack(*[0] * 9), "RTM_GETROUTE")):
            family, length, _src, _tos, table, _protocol, _scope, kind, _flags = _RTMSG.unpack_from(reply.body)
            parts = attributes(reply.body[_RTMSG.size :])
            if RTA_TABLE in parts:
                table = struct.unpack("=I", parts[RTA_TABLE])[0]
            if table != RT_TABLE_MAIN or kind != RTN_UNICAST or not length or RTA_DST not in parts:
                continue
            if family in (socket.AF_INET, socket.AF_INET6):
                device = struct.unpack("=I", parts[RTA_OIF])[0] if RTA_OIF in parts else 0
                found.append((ip_network((parts[RTA_DST], length)), device))
        return found


def counters(link: Link) -> Counters:
    """Decode the traffic counters of a link from a dump. struct rtnl_link_stats64"""
    if len(link.statistics) < 64:
        return Counters(*[0] * 8)
    return Counters(*struct.unpack_from("=8Q", link.statistics))


def add_bridge(name: str, *, mac: bytes, mtu: int) -> Message:
    """Make a bridge, down; EEXIST if the name is taken. A set `mac` does not change as ports come and go."""
    return Message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        _ifinfo()
        + text(IFLA_IFNAME, name)
        + u32(IFLA_MTU, mtu)
        + attribute(IFLA_ADDRESS, mac)
        + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge")),
        f"RTM_NEWLINK {name}",
    )


def add_veth(name: str, *, peer_netns_fd: int, peer_name: str, peer_index: int, mtu: int) -> Message:
    """Make a veth pair in one step: this end here and up, the peer inside `peer_netns_fd` and down.

    The peer's index is ours to choose in a namespace of our own, so its set-up needs no look-up. veth(4)
    """
    # A peer that asks to be up is refused (ENOTCONN): the pair is not one yet when the kernel would raise it.
    peer = _ifinfo(index=peer_index) + text(IFLA_IFNAME, peer_name) + u32(IFLA_NET_NS_FD, peer_netns_fd)
    peer += u32(IFLA_MTU, mtu)
    info = nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer))
    body = _ifinfo(flags=IFF_UP, change=IFF_UP) + text(IFLA_IFNAME, name) + u32(IFLA_MTU, mtu)
    body += nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth"), info)
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"RTM_NEWLINK {name}")


def add_to_bridge(name: str, bridge_index: int, *, mtu: int | None = None) -> Message:
    """Make the device `name` a port of a bridge."""
    body = _ifinfo() + text(IFLA_IFNAME, name) + u32(IFLA_MASTER, bridge_index)
    if mtu is not None:
        body += u32(IFLA_MTU, mtu)
    return Message(RTM_NEWLINK, 0, body, f"RTM_NEWLINK {name} (to bridge)")


def set_link(index: int, *, mac: bytes, mtu: int | None = None) -> Message:
    """Give the device `index` a MAC address and bring it up."""
    body = _ifinfo(index=index, flags=IFF_UP, change=IFF_UP) + attribute(IFLA_ADDRESS, mac)
    if mtu is not None:
        body += u32(IFLA_MTU, mtu)
    return Message(RTM_NEWLINK, 0, body, f"RTM_NEWLINK {index}")


def set_port(name: str, *, hairpin: bool, isolated: bool = False) -> Message:
    """Set up a bridge port: `hairpin` frames may go back out of it; `isolated` ports cannot reach each other.

    With br_netfilter a container's connection to its own published port turns round inside the bridge.
    """
    return _bridge_port(name, u8(IFLA_BRPORT_MODE, hairpin), u8(IFLA_BRPORT_ISOLATED, isolated))


def silence_port(name: str) -> Message:
    """Stop the bridge from using a port and forget the addresses learned on it: no wait, unlike deleting the veth."""
    return _bridge_port(name, u8(IFLA_BRPORT_STATE, BR_STATE_DISABLED), attribute(IFLA_BRPORT_FLUSH, b""))


def _bridge_port(name: str, *settings: bytes) -> Message:
    # By name in one batch with the veth's creation. The AF_BRIDGE form of RTM_SETLINK would need its index first.
    slave = nested(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), nested(IFLA_INFO_SLAVE_DATA, *settings))
    return Message(RTM_NEWLINK, 0, _ifinfo() + text(IFLA_IFNAME, name) + slave, f"RTM_NEWLINK {name} (bridge port)")


def set_up(index: int) -> Message:
    """Bring the device `index` up."""
    return Message(RTM_NEWLINK, 0, _ifinfo(index=index, flags=IFF_UP, change=IFF_UP), f"RTM_NEWLINK {index} up")


def delete_link(name: str) -> Message:
    """Remove a device. A veth takes 28-32 ms (synchronize_net): never on a container's way out."""
    return Message(RTM_DELLINK, 0, _ifinfo() + text(IFLA_IFNAME, name), f"RTM_DELLINK {name}")


def add_address(index: int, address: Address, prefix_len: int) -> Message:
    """Give the device `index` an address; no error if it is there. IPv6 without duplicate detection (1-2 s)."""
    packed = address.packed
    is_ipv4 = address.version == 4
    family, flags = (socket.AF_INET, 0) if is_ipv4 else (socket.AF_INET6, IFA_F_NODAD)
    body = _IFADDR.pack(family, prefix_len, flags, 0, index)
    body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    if is_ipv4 and prefix_len < 31:
        broadcast = int(address) | (1 << (32 - prefix_len)) - 1
        body += attribute(IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, f"RTM_NEWADDR {address}/{prefix_len}")


def delete_address(index: int, address: Address, prefix_len: int) -> Message:
    """Take an address from the device `index`."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _IFADDR.pack(family, prefix_len, 0, 0, index) + attribute(IFA_LOCAL, address.packed)
    return Message(RTM_DELADDR, 0, body, f"RTM_DELADDR {address}/{prefix_len}")


def add_default_route(gateway: Address, index: int) -> Message:
    """Send everything without a better route to `gateway` through the device `index`."""
    family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
    body = _RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0)
    body += attribute(RTA_GATEWAY, gateway.packed) + u32(RTA_OIF, index)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"RTM_NEWROUTE default via {gateway}")


def _ifinfo(*, index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)


def _link(body: bytes) -> Link:
    _family, _type, index, flags, _change = _IFINFO.unpack_from(body)
    parts = attributes(body[_IFINFO.size :])
    info = attributes(parts.get(IFLA_LINKINFO, b""))
    return Link(
        number=index,
        name=string(parts.get(IFLA_IFNAME, b"")),
        kind=string(info.get(IFLA_INFO_KIND, b"")),
        master=struct.unpack("=I", parts[IFLA_MASTER])[0] if IFLA_MASTER in parts else 0,
        is_up=bool(flags & IFF_UP),
        mac=parts.get(IFLA_ADDRESS, b""),
        mtu=struct.unpack("=I", parts[IFLA_MTU])[0] if IFLA_MTU in parts else 0,
        statistics=parts.get(IFLA_STATS64, b""),
    )
