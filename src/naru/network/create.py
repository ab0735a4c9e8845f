"""A new network, from what was asked for to a complete record. Pure: the host's state comes in as values."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from naru.errors import Conflict, Forbidden, InvalidArgument, NotFound
from naru.network import ipam
from naru.network.record import OPTION_DEFAULT, OPTION_MTU, OPTION_NAME, Driver, Network, Subnet

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_LARGEST_DEVICE_NAME = 15  # IFNAMSIZ without the NUL
_MTU_RANGE = range(68, 65536)


def user_defined(
    name: str,
    *,
    driver: str,
    subnets: Sequence[Subnet],
    options: Mapping[str, str],
    labels: Mapping[str, str],
    internal: bool,
    attachable: bool,
    enable_ipv6: bool,
    ipam_options: Mapping[str, str],
    existing: Collection[Network],
    host_routes: Collection[ipam.AnyNetwork],
    pools: Sequence[tuple[str, int]],
) -> Network:
    """Return a user-defined bridge network beside `existing`, or say in Docker's words why it cannot be.

    Engine API, NetworkCreate
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"{name} includes invalid characters for a network name")
    if driver in (Driver.HOST, Driver.NULL):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver != Driver.BRIDGE:
        raise NotFound(f'could not find plugin {driver} in v1 plugin registry: plugin "{driver}" not found')
    if any(network.name == name for network in existing):
        raise Conflict(f"network with name {name} already exists")
    network_id = secrets.token_hex(32)
    network = Network(
        id=network_id,
        name=name,
        driver=Driver.BRIDGE,
        created=datetime.now(UTC),
        subnets=_choose_subnets(network_id, subnets, existing, host_routes, pools, enable_ipv6=enable_ipv6),
        options=dict(options),
        labels=dict(labels),
        internal=internal,
        attachable=attachable,
        enable_ipv6=enable_ipv6,
        ipam_options=dict(ipam_options),
    )
    _check_options(network, existing)
    return network


def default_bridge(
    device: str,
    *,
    mtu: int,
    subnet: str,
    existing: Collection[Network],
    host_routes: Collection[ipam.AnyNetwork],
    pools: Sequence[tuple[str, int]],
) -> Network:
    """Return the network `bridge`, which every container is on that asks for nothing else."""
    network_id = secrets.token_hex(32)
    wanted = [Subnet(subnet)] if subnet else []
    return Network(
        id=network_id,
        name="bridge",
        driver=Driver.BRIDGE,
        created=datetime.now(UTC),
        subnets=_choose_subnets(network_id, wanted, existing, host_routes, pools, enable_ipv6=False),
        options={OPTION_DEFAULT: "true", OPTION_NAME: device, OPTION_MTU: str(mtu)},
        is_predefined=True,
    )


def without_endpoints(name: str, driver: Driver) -> Network:
    """Return `host` or `none`: names that stand for sharing the host's namespace or having nothing but loopback."""
    return Network(
        id=secrets.token_hex(32),
        name=name,
        driver=driver,
        created=datetime.now(UTC),
        is_predefined=True,
    )


def _choose_subnets(
    network_id: str,
    requested: Sequence[Subnet],
    existing: Collection[Network],
    host_routes: Collection[ipam.AnyNetwork],
    pools: Sequence[tuple[str, int]],
    *,
    enable_ipv6: bool,
) -> tuple[Subnet, ...]:
    ours = [subnet.network for network in existing for subnet in network.subnets]
    chosen: dict[int, Subnet] = {}
    for subnet in requested:
        if not subnet.subnet:
            raise InvalidArgument("invalid network config: an address pool needs a subnet")
        checked = ipam.check_subnet(subnet, ours)
        version = checked.network.version
        if version in chosen:
            raise InvalidArgument("bridge driver doesn't support multiple subnets of one IP version")
        chosen[version] = checked
    if 6 in chosen and not enable_ipv6:
        raise InvalidArgument("an IPv6 subnet needs IPv6 to be enabled", hint="add --ipv6")
    if 4 not in chosen:
        free = ipam.choose_subnet([*host_routes, *ours], pools)
        chosen[4] = ipam.check_subnet(Subnet(str(free)), ours)
    if enable_ipv6 and 6 not in chosen:
        chosen[6] = ipam.check_subnet(Subnet(str(ipam.choose_ipv6_subnet(network_id))), ours)
    return tuple(chosen[version] for version in sorted(chosen))


def _check_options(network: Network, existing: Collection[Network]) -> None:
    name = network.device
    if len(name) > _LARGEST_DEVICE_NAME or not _NAME.fullmatch(name):
        raise InvalidArgument(f"invalid bridge name: {name}")
    if any(other.is_bridge and other.device == name for other in existing):
        raise Forbidden(f"cannot create network {network.name}: another network has bridge {name}")
    mtu = network.options.get(OPTION_MTU, "1500")
    if not mtu.isdigit() or int(mtu) not in _MTU_RANGE:
        raise InvalidArgument(f"invalid MTU: {mtu}")
