"""Networks and a container's place in them. Engine API, Network, EndpointSettings, NetworkSettings."""

from __future__ import annotations

from naru.api.host import PortMap
from naru.api.wire import Wire, always, made


class EndpointIPAMConfig(Wire):
    """The addresses a user asks for."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] | None = None


class EndpointSettings(Wire):
    """One attachment: what was asked (first part) and what came of it."""

    ipam_config: EndpointIPAMConfig | None = always(None, name="IPAMConfig")
    links: list[str] | None = always(None)
    aliases: list[str] | None = always(None)
    mac_address: str = always("")
    driver_opts: dict[str, str] | None = always(None)
    gw_priority: int = always(0)
    network_id: str = always("")
    endpoint_id: str = always("")
    gateway: str = always("")
    ip_address: str = always("")
    ip_prefix_len: int = always(0)
    ipv6_gateway: str = always("")
    global_ipv6_address: str = always("")
    global_ipv6_prefix_len: int = always(0, name="GlobalIPv6PrefixLen")
    dns_names: list[str] | None = always(None)


class NetworkingConfig(Wire):
    endpoints_config: dict[str, EndpointSettings] | None = always(None)


class NetworkSettings(Wire):
    """Where a container is on its networks."""

    sandbox_id: str = always("")
    sandbox_key: str = always("")
    ports: PortMap | None = always({})
    networks: dict[str, EndpointSettings] | None = always({})


class IPAMConfig(Wire):
    """One pool; all three in CIDR or address notation."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IPAM(Wire):
    driver: str = always("default")
    options: dict[str, str] | None = always(None)
    config: list[IPAMConfig] | None = always([])


class ConfigReference(Wire):
    network: str = always("")


class EndpointResource(Wire):
    """A container in a network's inspection; addresses with their prefix length."""

    name: str = always("")
    endpoint_id: str = always("")
    mac_address: str = always("")
    ipv4_address: str = always("")
    ipv6_address: str = always("")


class SubnetStatus(Wire):
    """How many addresses of a subnet are taken or reserved, and how many endpoints can still get one."""

    ips_in_use: int = always(0, name="IPsInUse")
    dynamic_ips_available: int = always(0, name="DynamicIPsAvailable")


class IPAMStatus(Wire):
    subnets: dict[str, SubnetStatus] = always({})


class NetworkStatus(Wire):
    ipam: IPAMStatus = made(IPAMStatus, name="IPAM")


class Network(Wire):
    """A network as listed and inspected; `containers` and `status` are there when inspected."""

    name: str = always("")
    id: str = always("")
    created: str = always("")
    scope: str = always("local")
    driver: str = always("bridge")
    enable_ipv4: bool = always(True)
    enable_ipv6: bool = always(False)
    ipam: IPAM = made(IPAM, name="IPAM")
    internal: bool = always(False)
    attachable: bool = always(False)
    ingress: bool = always(False)
    config_from: ConfigReference = made(ConfigReference)
    config_only: bool = always(False)
    containers: dict[str, EndpointResource] | None = None
    options: dict[str, str] | None = always({})
    labels: dict[str, str] | None = always({})
    status: NetworkStatus | None = None


class NetworkCreateRequest(Wire):
    """`enable_ipv4` None means the default, on."""

    name: str
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: IPAM | None = None
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class NetworkCreateResponse(Wire):
    id: str = always("")
    warning: str = always("")


class NetworkConnectRequest(Wire):
    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnectRequest(Wire):
    container: str = ""
    force: bool = False


class NetworksPruneReport(Wire):
    networks_deleted: list[str] | None = always(None)
