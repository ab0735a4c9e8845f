"""The bridge driver: a network's device on the host, its addresses and settings, and the host's forwarding switch."""

from __future__ import annotations

import errno
import hashlib
import os
from ipaddress import ip_interface

from naru.kernel.rtnetlink import RouteSocket, add_address, add_bridge, delete_address, delete_link, set_up
from naru.network.namespaces import read_sysctl, write_sysctl
from naru.network.record import Network


def ensure(route: RouteSocket, network: Network) -> int:
    """Make the network's bridge as recorded, whatever was there of it before, and return its index."""
    name = network.device
    link = route.link(name)
    if link is None:
        try:
            route.transact([add_bridge(name, mac=_mac(network), mtu=network.mtu)])
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        link = route.link(name)
        if link is None:
            raise OSError(errno.ENODEV, f"bridge {name}: {os.strerror(errno.ENODEV)}")
    write_sysctl(f"ipv6/conf/{name}/accept_dad", "0")
    write_sysctl(f"ipv6/conf/{name}/accept_ra", "0")
    write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "0" if network.enable_ipv6 else "1")
    wanted = {
        ip_interface(f"{subnet.gateway}/{subnet.network.prefixlen}") for subnet in network.subnets if subnet.gateway
    }
    present = set(route.addresses(link.number))
    foreign = [address for address in present - wanted if not address.is_link_local]
    route.transact(
        [delete_address(link.number, address.ip, address.network.prefixlen) for address in foreign]
        + [add_address(link.number, address.ip, address.network.prefixlen) for address in wanted - present]
        + ([] if link.is_up else [set_up(link.number)])
    )
    return link.number


def remove(route: RouteSocket, name: str) -> None:
    """Remove a bridge device; no error if there is none."""
    try:
        route.transact([delete_link(name)])
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def allow_loopback_source(network: Network) -> bool:
    """Let 127.0.0.1 on the host be translated into this bridge; False where the host's settings are read-only.

    Only the bridge needs it. It would also let containers reach 127.0.0.1 of the host: `firewall` drops that.
    """
    return write_sysctl(f"ipv4/conf/{network.device}/route_localnet", "1")


def enable_forwarding(networks: list[Network]) -> bool:
    """Switch on forwarding as far as `networks` need it; True if the host was not forwarding IPv4 before."""
    changed = False
    leads_out = any(network.is_bridge and not network.internal for network in networks)
    if leads_out and read_sysctl("ipv4/ip_forward") == "0":
        changed = write_sysctl("ipv4/ip_forward", "1")
    if any(network.enable_ipv6 for network in networks) and read_sysctl("ipv6/conf/all/forwarding") == "0":
        # A forwarding host ignores router advertisements unless told otherwise: keep the uplink's default route.
        for interface in os.listdir("/proc/sys/net/ipv6/conf"):
            if read_sysctl(f"ipv6/conf/{interface}/accept_ra") == "1":
                write_sysctl(f"ipv6/conf/{interface}/accept_ra", "2")
        write_sysctl("ipv6/conf/all/forwarding", "1")
    return changed


def _mac(network: Network) -> bytes:
    return b"\x02\x42" + hashlib.sha256(network.id.encode()).digest()[:4]
