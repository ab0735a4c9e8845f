"""Endpoints: one attachment of a sandbox to a network, from addresses to the veth that carries them.

A veth is deleted only on `unplug` (a running container leaves a network, 28-32 ms). When a sandbox ends, its
namespace goes and the kernel takes the pair with it, later and in batches; until then `silence` keeps the old port
off the bridge.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from ipaddress import ip_address

from naru.errors import InvalidArgument
from naru.kernel.netlink import Message
from naru.kernel.rtnetlink import (
    RouteSocket,
    add_address,
    add_default_route,
    add_to_bridge,
    add_veth,
    delete_link,
    set_link,
    set_port,
    silence_port,
)
from naru.network.ipam import AnyAddress, Pool, mac_for, parse_address
from naru.network.namespaces import DEVICE_PREFIX, FIRST_INTERFACE_INDEX
from naru.network.record import Endpoint, EndpointRequest, Network


def allocate(
    network: Network, pools: Mapping[int, Pool], request: EndpointRequest, *, position: int, undo: ExitStack
) -> Endpoint:
    """Reserve addresses for the sandbox's endpoint number `position` and name everything; `undo` gives them back."""
    check_request(network, request)
    addresses: dict[int, AnyAddress] = {}
    for version, wanted in ((4, request.ip), (6, request.ip6)):
        pool = pools.get(version)
        if pool is None:
            if wanted:
                raise InvalidArgument(f"no configured subnet contains IP address {wanted}")
            continue
        address = pool.take(wanted) if wanted else pool.allocate()
        undo.callback(pool.release, address)
        addresses[version] = address
    endpoint_id = secrets.token_hex(32)
    ip, ip6 = addresses.get(4), addresses.get(6)
    any_address = ip or ip6
    if any_address is None:
        raise InvalidArgument(f"network {network.name} has no addresses")
    return Endpoint(
        network_id=network.id,
        network_name=network.name,
        endpoint_id=endpoint_id,
        interface=f"eth{position}",
        device=f"{DEVICE_PREFIX}{endpoint_id[:7]}",
        mac=_checked_mac(request.mac) if request.mac else mac_for(any_address),
        ip=str(ip or ""),
        prefix_len=pools[4].network.prefixlen if ip else 0,
        gateway=pools[4].gateway if ip and not network.internal else "",
        ip6=str(ip6 or ""),
        prefix_len6=pools[6].network.prefixlen if ip6 else 0,
        gateway6=pools[6].gateway if ip6 and not network.internal else "",
        aliases=request.aliases,
        links=request.links,
        gw_priority=request.gw_priority,
        link_local=request.link_local,
    )


def check_request(network: Network, request: EndpointRequest) -> None:
    """Refuse, in Docker's words, what only networks of one's own have."""
    for address in request.link_local:
        if not parse_address(address).is_link_local:
            raise InvalidArgument(f"invalid link local IP address: {address}")
    if not network.is_bridge:
        raise InvalidArgument(f"network {network.name} takes no endpoints")
    if network.has_names:
        return
    if request.ip or request.ip6:
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    if request.aliases:
        raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")


def gateways(endpoints: Iterable[Endpoint]) -> tuple[Endpoint | None, Endpoint | None]:
    """Return the endpoints that have the default route of IPv4 and of IPv6.

    The highest priority has it, then the first name in alphabetical order; internal networks have no gateway.
    """
    ranked = sorted(endpoints, key=lambda endpoint: (-endpoint.gw_priority, endpoint.network_name))
    return next((e for e in ranked if e.gateway), None), next((e for e in ranked if e.gateway6), None)


def outward(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """Return the endpoint that published ports lead to: where the sandbox's own traffic leaves."""
    gateway, gateway6 = gateways(endpoints)
    return gateway or gateway6


def default_routes(endpoints: Iterable[Endpoint], indexes: Mapping[str, int]) -> list[Message]:
    """The messages, for the sandbox's namespace, that make its default routes, in place of those that are there.

    `indexes` are those of its interfaces, by name; a container that may can have taken one away.
    """
    gateway, gateway6 = gateways(endpoints)
    messages = []
    if gateway and gateway.interface in indexes:
        messages.append(add_default_route(ip_address(gateway.gateway), indexes[gateway.interface]))
    if gateway6 and gateway6.interface in indexes:
        messages.append(add_default_route(ip_address(gateway6.gateway6), indexes[gateway6.interface]))
    return messages


def new_veth(endpoint: Endpoint, netns_fd: int, *, mtu: int) -> Message:
    """The message, for the host's namespace, that makes the endpoint's veth with its peer in `netns_fd`."""
    return add_veth(
        endpoint.device,
        peer_netns_fd=netns_fd,
        peer_name=endpoint.interface,
        peer_index=indexes_of_new([endpoint])[endpoint.interface],
        mtu=mtu,
    )


def plug_host_side(network: Network, bridge_index: int, endpoint: Endpoint, *, mtu: int) -> list[Message]:
    """The messages, for the host's namespace, that attach the endpoint's veth, of `mtu` so far, to its bridge."""
    return [
        add_to_bridge(endpoint.device, bridge_index, mtu=None if network.mtu == mtu else network.mtu),
        set_port(endpoint.device, hairpin=True, isolated=not network.allows_traffic_between_endpoints),
    ]


def plug_inside(network: Network, endpoint: Endpoint, index: int, *, mtu: int) -> list[Message]:
    """The messages, for the sandbox's namespace, that give the peer, which has `index` there, its addresses."""
    mac = bytes.fromhex(endpoint.mac.replace(":", ""))
    messages = [set_link(index, mac=mac, mtu=None if network.mtu == mtu else network.mtu)]
    if endpoint.ip:
        messages.append(add_address(index, ip_address(endpoint.ip), endpoint.prefix_len))
    if endpoint.ip6:
        messages.append(add_address(index, ip_address(endpoint.ip6), endpoint.prefix_len6))
    for address in map(ip_address, endpoint.link_local):
        messages.append(add_address(index, address, 16 if address.version == 4 else 64))
    return messages


def silence(route: RouteSocket, devices: list[str]) -> None:
    """Take ports off their bridge at once, so that a reused address is not sent to its former owner."""
    with contextlib.suppress(OSError):  # gone with the namespace already
        route.transact([silence_port(device) for device in devices])


def unplug(route: RouteSocket, device: str) -> None:
    """Delete a veth, and its peer with it; no error if there is none. Takes some 30 ms."""
    try:
        route.transact([delete_link(device)])
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def indexes_of_new(endpoints: Iterable[Endpoint]) -> dict[str, int]:
    """The indexes that interfaces have in a new namespace, made in this order: the kernel counts up.

    In one that lost an interface it goes on counting, whatever index is asked for: there, look.
    """
    return {
        endpoint.interface: FIRST_INTERFACE_INDEX + int(endpoint.interface.removeprefix("eth"))
        for endpoint in endpoints
    }


def _checked_mac(mac: str) -> str:
    try:
        packed = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    except ValueError:
        packed = b""
    if len(packed) != 6 or packed[0] & 1:
        raise InvalidArgument(f"invalid MAC address: {mac}")
    return ":".join(f"{byte:02x}" for byte in packed)
