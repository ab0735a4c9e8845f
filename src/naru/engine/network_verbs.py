"""The Engine API's network operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from naru.api.network import (
    IPAM,
    ConfigReference,
    EndpointResource,
    EndpointSettings,
    IPAMConfig,
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkDisconnectRequest,
    NetworksPruneReport,
    NetworkStatus,
    SubnetStatus,
)
from naru.api.network import Network as WireNetwork
from naru.engine.clock import rfc3339
from naru.engine.connect import connect, disconnect
from naru.engine.container import Container
from naru.engine.parts import Parts
from naru.engine.prune import AGE_AND_LABELS, check_filters, is_pruned, parse_until, truth
from naru.errors import Forbidden, InvalidArgument, NotFound
from naru.network.create import NetworkRequest
from naru.network.record import Network, Subnet

Filters = Mapping[str, Sequence[str]]
_PREDEFINED = ("bridge", "host", "none")
_LIST_FILTERS = ("driver", "id", "label", "name", "scope", "type", "dangling")
# Each row: a filter, its values, and what is said of another, in Docker's words.
_FILTER_VALUES = (
    ("type", ("builtin", "custom"), "invalid filter: 'type'='{}'"),
    (
        "dangling",
        ("true", "1", "false", "0"),
        'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")',
    ),
)


class NetworkVerbs:
    """Network operations over the engine's parts."""

    parts: Parts

    def network_list(self, *, filters: Filters | None = None) -> list[WireNetwork]:
        """Engine API, NetworkList."""
        filters = filters or {}
        _check_filters(filters)
        is_dangling = truth(filters, "dangling")
        return [
            self._wire(network)
            for network in self.parts.networks.list()
            if self._is_listed(network, filters) and is_dangling in (None, self._is_dangling(network))
        ]

    def _is_dangling(self, network: Network) -> bool:
        return network.name not in _PREDEFINED and not self._members(network)

    def _is_listed(self, network: Network, filters: Filters) -> bool:
        tests: dict[str, Callable[[str], bool]] = {
            "driver": lambda value: value == network.driver,
            "id": lambda value: network.id.startswith(value),
            "name": lambda value: value in network.name,
            "scope": lambda value: value == "local",
            "type": lambda value: (value == "builtin") == (network.name in _PREDEFINED),
        }
        for key, test in tests.items():
            values = filters.get(key)
            if values and not any(test(value) for value in values):
                return False
        return is_pruned(network.labels, network.created, {"label": filters.get("label", ())}, None)

    def network_inspect(self, id: str, *, verbose: bool = False, scope: str = "") -> WireNetwork:
        """Engine API, NetworkInspect."""
        network = self.parts.networks.get(id)
        if scope not in ("", "local"):
            raise NotFound(f"network {id} not found")
        shown = self._wire(network)
        shown.containers = self._members(network)
        shown.status = NetworkStatus()
        for subnet, (in_use, available) in self.parts.networks.occupancy(network.id).items():
            shown.status.ipam.subnets[subnet] = SubnetStatus(ips_in_use=in_use, dynamic_ips_available=available)
        return shown

    def network_create(self, request: NetworkCreateRequest) -> NetworkCreateResponse:
        """Engine API, NetworkCreate."""
        if request.name in _PREDEFINED or request.name == "default":
            raise Forbidden(f"operation is not permitted on predefined {request.name} network")
        if request.driver in ("host", "null"):
            raise Forbidden(f'only one instance of "{request.driver}" network is allowed')
        if request.driver not in ("", "bridge"):
            raise InvalidArgument(
                f'error looking up network plugin {request.driver}: plugin "{request.driver}" not found'
            )
        _check_create(request)
        ipam = request.ipam or IPAM()
        network = self.parts.networks.create(
            NetworkRequest(
                name=request.name,
                subnets=tuple(
                    Subnet(
                        subnet=config.subnet,
                        gateway=config.gateway,
                        ip_range=config.ip_range,
                        reserved=config.auxiliary_addresses or {},
                    )
                    for config in ipam.config or []
                ),
                options=request.options or {},
                labels=request.labels or {},
                ipam_options=ipam.options or {},
                internal=request.internal,
                attachable=request.attachable,
                enable_ipv4=request.enable_ipv4 is not False,
                enable_ipv6=request.enable_ipv6,
                is_config_only=request.config_only,
                config_from=request.config_from.network if request.config_from else "",
            )
        )
        self.parts.events.publish("network", "create", network.id, {"name": network.name, "type": network.driver})
        return NetworkCreateResponse(id=network.id)

    def network_connect(self, id: str, request: NetworkConnectRequest) -> None:
        """Engine API, NetworkConnect."""
        network = self.parts.networks.get(id)
        with self.parts.containers.locked(request.container) as container:
            if connect(self.parts, container, network, request.endpoint_config or EndpointSettings()):
                self._tell("connect", network, container)

    def network_disconnect(self, id: str, request: NetworkDisconnectRequest) -> None:
        """Engine API, NetworkDisconnect. `force` means endpoints of containers that are gone; here are none."""
        network = self.parts.networks.get(id)
        try:
            with self.parts.containers.locked(request.container) as container:
                disconnect(self.parts, container, network)
                self._tell("disconnect", network, container)
        except NotFound as error:
            raise NotFound(f"endpoint {request.container} not found") if request.force else error

    def _tell(self, action: str, network: Network, container: Container) -> None:
        attributes = {"container": container.id, "name": network.name, "type": network.driver}
        self.parts.events.publish("network", action, network.id, attributes)

    def network_delete(self, id: str) -> None:
        """Engine API, NetworkDelete."""
        network = self.parts.networks.get(id)
        if network.name in _PREDEFINED:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        members = self._members(network)
        if members:
            names = ", ".join(member.name for member in members.values())
            raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({names})")
        self.parts.networks.remove(network.id)
        self.parts.events.publish("network", "destroy", network.id, {"name": network.name, "type": network.driver})

    def network_prune(self, *, filters: Filters | None = None) -> NetworksPruneReport:
        """Engine API, NetworkPrune."""
        filters = filters or {}
        check_filters(filters, AGE_AND_LABELS)
        until = parse_until(filters)
        deleted = []
        for network in self.parts.networks.list():
            if network.name in _PREDEFINED or network.is_config_only or self._members(network):
                continue
            if is_pruned(network.labels, network.created, filters, until):
                self.network_delete(network.id)
                deleted.append(network.name)
        return NetworksPruneReport(networks_deleted=deleted or None)

    def _members(self, network: Network) -> dict[str, EndpointResource]:
        found = {}
        for container in self.parts.containers.all():
            for endpoint in container.endpoints:
                if endpoint.network_id == network.id:
                    found[container.id] = EndpointResource(
                        name=container.name,
                        endpoint_id=endpoint.endpoint_id,
                        mac_address=endpoint.mac,
                        ipv4_address=f"{endpoint.ip}/{endpoint.prefix_len}" if endpoint.ip else "",
                        ipv6_address=f"{endpoint.ip6}/{endpoint.prefix_len6}" if endpoint.ip6 else "",
                    )
        return found

    def _wire(self, network: Network) -> WireNetwork:
        return WireNetwork(
            name=network.name,
            id=network.id,
            created=rfc3339(network.created),
            driver=network.driver,
            enable_ipv4=network.enable_ipv4,
            enable_ipv6=network.enable_ipv6,
            ipam=IPAM(
                driver=network.ipam_driver,
                options=None if network.is_predefined else dict(network.ipam_options),
                config=[
                    IPAMConfig(
                        subnet=pool.subnet,
                        gateway=pool.gateway,
                        ip_range=pool.ip_range,
                        auxiliary_addresses=dict(pool.reserved) or None,
                    )
                    for pool in network.subnets
                ],
            ),
            config_only=network.is_config_only,
            config_from=ConfigReference(network=network.config_from),
            internal=network.internal,
            attachable=network.attachable,
            options=dict(network.options),
            labels=dict(network.labels),
        )


def _check_filters(filters: Filters) -> None:
    for key in filters:
        if key not in _LIST_FILTERS:
            raise InvalidArgument(f"invalid filter '{key}'")
    for key, allowed, words in _FILTER_VALUES:
        for value in filters.get(key, ()):
            if value not in allowed:
                raise InvalidArgument(words.format(value))


def _check_create(request: NetworkCreateRequest) -> None:
    """Refuse, in Docker's words, what needs a swarm or a plugin."""
    if request.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if request.scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if request.scope not in ("", "local"):
        raise InvalidArgument(f"invalid network scope {request.scope}: without a swarm there is only local")
    driver = request.ipam.driver if request.ipam else ""
    if driver not in ("", "default"):
        raise NotFound(f'plugin "{driver}" not found')
