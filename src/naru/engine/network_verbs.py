"""The Engine API's network operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from naru.api.network import (
    IPAM,
    EndpointResource,
    EndpointSettings,
    IPAMConfig,
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkDisconnectRequest,
    NetworksPruneReport,
)
from naru.api.network import Network as WireNetwork
from naru.engine.clock import rfc3339
from naru.engine.connect import connect, disconnect
from naru.engine.container import Container
from naru.engine.parts import Parts
from naru.engine.prune import is_pruned, parse_until
from naru.errors import Conflict, Forbidden, InvalidArgument, NotFound
from naru.network.record import Network, Subnet

Filters = Mapping[str, Sequence[str]]
_PREDEFINED = ("bridge", "host", "none")


class NetworkVerbs:
    """Network operations over the engine's parts."""

    parts: Parts

    def network_list(self, *, filters: Filters | None = None) -> list[WireNetwork]:
        """Engine API, NetworkList."""
        filters = filters or {}
        known = {"driver", "id", "label", "name", "scope", "type", "dangling"}
        for key in filters:
            if key not in known:
                raise InvalidArgument(f"invalid filter '{key}'")
        return [self._wire(network) for network in self.parts.networks.list() if self._is_listed(network, filters)]

    def _is_listed(self, network: Network, filters: Filters) -> bool:
        tests: dict[str, Callable[[str], bool]] = {
            "driver": lambda value: value == network.driver,
            "id": lambda value: network.id.startswith(value),
            "name": lambda value: value in network.name,
            "scope": lambda value: value == "local",
            "type": lambda value: (value == "builtin") == (network.name in _PREDEFINED),
            "dangling": lambda value: (value in ("true", "1")) != bool(self._members(network)),
        }
        for key, test in tests.items():
            values = filters.get(key)
            if values and not any(test(value) for value in values):
                return False
        return is_pruned(network.labels, network.created, {"label": filters.get("label", ())}, None)

    def network_inspect(self, id: str, *, verbose: bool = False, scope: str = "") -> WireNetwork:
        """Engine API, NetworkInspect."""
        network = self.parts.networks.get(id)
        shown = self._wire(network)
        shown.containers = self._members(network)
        return shown

    def network_create(self, request: NetworkCreateRequest) -> NetworkCreateResponse:
        """Engine API, NetworkCreate."""
        if request.name in _PREDEFINED or request.name == "default":
            raise Forbidden(f"operation is not permitted on predefined {request.name} network")
        if request.driver not in ("", "bridge"):
            raise InvalidArgument(
                f'error looking up network plugin {request.driver}: plugin "{request.driver}" not found'
            )
        subnets = [
            Subnet(
                subnet=config.subnet,
                gateway=config.gateway,
                ip_range=config.ip_range,
                reserved=config.auxiliary_addresses or {},
            )
            for config in (request.ipam.config if request.ipam else None) or []
        ]
        network = self.parts.networks.create(
            request.name,
            subnets=subnets,
            attachable=request.attachable,
            options=request.options or {},
            labels=request.labels or {},
            internal=request.internal,
            enable_ipv6=bool(request.enable_ipv6),
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
            raise Conflict(f"error while removing network: network {network.name} has active endpoints ({names})")
        self.parts.networks.remove(network.id)
        self.parts.events.publish("network", "destroy", network.id, {"name": network.name, "type": network.driver})

    def network_prune(self, *, filters: Filters | None = None) -> NetworksPruneReport:
        """Engine API, NetworkPrune."""
        filters = filters or {}
        until = parse_until(filters)
        deleted = []
        for network in self.parts.networks.list():
            if network.name in _PREDEFINED or self._members(network):
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
            enable_ipv6=network.enable_ipv6,
            ipam=IPAM(
                config=[
                    IPAMConfig(subnet=pool.subnet, gateway=pool.gateway, ip_range=pool.ip_range)
                    for pool in network.subnets
                ]
            ),
            internal=network.internal,
            attachable=network.attachable,
            options=dict(network.options),
            labels=dict(network.labels),
        )
