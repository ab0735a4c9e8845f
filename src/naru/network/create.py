"""A new network, from what was asked for to a complete record. Pure: the host's state comes in as values."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from naru.errors import Conflict, Forbidden, InvalidArgument, NotFound
from naru.network import ipam
from naru.network.record import (
    DEFAULT_NETWORK,
    FALSE_WORDS,
    OPTION_DEFAULT,
    OPTION_ICC,
    OPTION_MASQUERADE,
    OPTION_MTU,
    OPTION_NAME,
    TRUE_WORDS,
    Driver,
    Network,
    Subnet,
)

_DEVICE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_LARGEST_DEVICE_NAME = 15  # IFNAMSIZ without the NUL
_MTU_RANGE = range(68, 65536)
# What would change something if it were there, so that to ignore it would be wrong. Others are ignored, as in Docker.
_NOT_OFFERED = (
    "com.docker.network.bridge.inhibit_ipv4",
    "com.docker.network.bridge.trusted_host_interfaces",
    "com.docker.network.container_iface_prefix",
    "com.docker.network.host_ipv4",
    "com.docker.network.host_ipv6",
)
_GATEWAY_MODES = ("com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6")


class NetworkRequest(Struct, frozen=True):
    """A wish for a network; without a subnet of a version that is enabled it gets one of ours.

    `enable_ipv6` None means: if there is a subnet of IPv6.
    `config_from` names a network that `is_config_only`: its configuration is taken, and none may be given beside it.
    """

    name: str
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    options: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    ipam_options: Mapping[str, str] = {}
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool | None = None
    is_config_only: bool = False
    config_from: str = ""


def user_defined(
    request: NetworkRequest,
    *,
    existing: Collection[Network],
    host_routes: Collection[ipam.AnyNetwork],
    pools: Sequence[tuple[str, int]],
) -> Network:
    """Return a user-defined network beside `existing`, or say in Docker's words why it cannot be.

    Engine API, NetworkCreate
    """
    if not request.name.strip() or request.name.strip() != request.name or not request.name.isprintable():
        raise InvalidArgument(f"{request.name!r} includes invalid characters for a network name")
    if request.driver in (Driver.HOST, Driver.NULL):
        raise Forbidden(f'only one instance of "{request.driver}" network is allowed')
    if request.driver != Driver.BRIDGE:
        raise NotFound(
            f'could not find plugin {request.driver} in v1 plugin registry: plugin "{request.driver}" not found'
        )
    if any(network.name == request.name for network in existing):
        raise Conflict(f"network with name {request.name} already exists")
    if request.config_from:
        request = _configured(request, existing)
    network = Network(
        id=secrets.token_hex(32),
        name=request.name,
        driver=Driver.NULL if request.is_config_only else Driver.BRIDGE,
        created=datetime.now(UTC),
        subnets=request.subnets,
        options=dict(request.options),
        labels=dict(request.labels),
        internal=request.internal,
        attachable=request.attachable,
        enable_ipv4=request.enable_ipv4,
        enable_ipv6=_wants_ipv6(request),
        ipam_options=dict(request.ipam_options),
        is_config_only=request.is_config_only,
        config_from=request.config_from,
    )
    if network.is_config_only:
        return network
    _check_options(network, existing)
    subnets = _choose_subnets(network, existing, host_routes, pools)
    return msgspec.structs.replace(network, subnets=subnets)


def _wants_ipv6(request: NetworkRequest) -> bool:
    if request.enable_ipv6 is not None:
        return request.enable_ipv6
    return any(":" in subnet.subnet for subnet in request.subnets)


def _configured(request: NetworkRequest, existing: Collection[Network]) -> NetworkRequest:
    """Return a request with the configuration of the network that it names."""
    source = next((n for n in existing if request.config_from in (n.name, n.id)), None)
    if source is None or not source.is_config_only:
        raise NotFound(f'configuration network "{request.config_from}" does not exist')
    if request.is_config_only or request.subnets or request.options or request.ipam_options:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration network"
        )
    return msgspec.structs.replace(
        request,
        subnets=source.subnets,
        options=source.options,
        labels={**source.labels, **request.labels},
        ipam_options=source.ipam_options,
        enable_ipv4=source.enable_ipv4,
        enable_ipv6=source.enable_ipv6,
        internal=request.internal or source.internal,
        attachable=request.attachable or source.attachable,
        config_from=source.name,
    )


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
    network = Network(
        id=secrets.token_hex(32),
        name=DEFAULT_NETWORK,
        driver=Driver.BRIDGE,
        created=datetime.now(UTC),
        subnets=(Subnet(subnet),) if subnet else (),
        options={
            OPTION_DEFAULT: "true",
            OPTION_ICC: "true",
            OPTION_MASQUERADE: "true",
            OPTION_NAME: device,
            OPTION_MTU: str(mtu),
        },
        is_predefined=True,
    )
    return msgspec.structs.replace(network, subnets=_choose_subnets(network, existing, host_routes, pools))


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
    network: Network,
    existing: Collection[Network],
    host_routes: Collection[ipam.AnyNetwork],
    pools: Sequence[tuple[str, int]],
) -> tuple[Subnet, ...]:
    """Return the subnets that `network` asks for, checked, and one of ours for a version that has none."""
    ours = [subnet.network for other in existing if other.is_bridge for subnet in other.subnets]
    chosen: dict[int, Subnet] = {}
    for subnet in network.subnets:
        if not subnet.subnet:
            raise InvalidArgument("invalid network config: an address pool needs a subnet")
        checked = ipam.check_subnet(subnet, ours)
        version = checked.network.version
        if version in chosen:
            raise InvalidArgument("bridge driver doesn't support multiple subnets of one IP version")
        chosen[version] = checked
    if not network.enable_ipv4 and not network.enable_ipv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    if 4 in chosen and not network.enable_ipv4:
        raise InvalidArgument("an IPv4 subnet needs IPv4 to be enabled")
    if 6 in chosen and not network.enable_ipv6:
        raise InvalidArgument("an IPv6 subnet needs IPv6 to be enabled", hint="add --ipv6")
    if network.enable_ipv4 and 4 not in chosen:
        free = ipam.choose_subnet([*host_routes, *ours], pools)
        chosen[4] = ipam.check_subnet(Subnet(str(free)), ours)
    if network.enable_ipv6 and 6 not in chosen:
        chosen[6] = ipam.check_subnet(Subnet(str(ipam.choose_ipv6_subnet(network.id))), ours)
    return tuple(chosen[version] for version in sorted(chosen))


def _check_options(network: Network, existing: Collection[Network]) -> None:
    name = network.device
    if len(name) > _LARGEST_DEVICE_NAME or not _DEVICE_NAME.fullmatch(name):
        raise InvalidArgument(f"invalid bridge name: {name}")
    if any(other.is_bridge and other.device == name for other in existing):
        raise Forbidden(f"cannot create network {network.name}: another network has bridge {name}")
    mtu = network.options.get(OPTION_MTU) or "1500"
    if not mtu.isdecimal() or int(mtu) not in _MTU_RANGE:
        raise InvalidArgument(f"invalid MTU number: {mtu}")
    for option in (OPTION_ICC, OPTION_MASQUERADE):
        value = network.options.get(option, "true")
        if value not in TRUE_WORDS + FALSE_WORDS:
            reason = f'strconv.ParseBool: parsing "{value}": invalid syntax'
            raise InvalidArgument(f"failed to parse {option} value: {value} ({reason})")
    for option in _NOT_OFFERED:
        if network.options.get(option, "") not in ("", *FALSE_WORDS):
            raise InvalidArgument(f"network option {option} is not offered by this engine")
    for option in _GATEWAY_MODES:
        if network.options.get(option, "nat") not in ("", "nat"):
            raise InvalidArgument(f"network option {option} is not offered by this engine but for nat")
