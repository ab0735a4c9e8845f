"""What the network package remembers and hands out: networks, endpoints, sandboxes, port bindings.

Records are kept as JSON in the daemon's database:

    networks             one row per network
    network_sandboxes    one row per joined sandbox, with its endpoints and publications
    network_forwarding   the boot in which we switched the host's forwarding on, if we did

Addresses are text here, as on the wire; `ipam` and `firewall` parse them.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

import msgspec
from msgspec import Struct

from naru.persist.database import Database

# Bridge driver options, spelled as Docker's clients send them.
OPTION_NAME = "com.docker.network.bridge.name"
OPTION_MTU = "com.docker.network.driver.mtu"
OPTION_ICC = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
OPTION_DEFAULT = "com.docker.network.bridge.default_bridge"
# Docker's words for a boolean are Go's.
TRUE_WORDS = ("1", "t", "T", "true", "TRUE", "True")
FALSE_WORDS = ("0", "f", "F", "false", "FALSE", "False")

SCHEMA = """
CREATE TABLE IF NOT EXISTS networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS network_sandboxes (id TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS network_forwarding (boot_id TEXT NOT NULL);
"""


class Driver(StrEnum):
    """Docker's names for how a network is made."""

    BRIDGE = "bridge"
    HOST = "host"
    NULL = "null"


class Subnet(Struct, frozen=True):
    """One IPAM pool: `ip_range` narrows what is handed out by itself; `reserved` are Docker's auxiliary addresses."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    reserved: dict[str, str] = {}

    @property
    def network(self) -> IPv4Network | IPv6Network:
        """The subnet, parsed."""
        return ip_network(self.subnet)


class Network(Struct, frozen=True):
    """A network. `is_predefined` ones (bridge, host, none) cannot be removed.

    One that `is_config_only` has no device and no endpoints: others are made from it (`config_from` names it).
    """

    id: str
    name: str
    driver: Driver
    created: datetime
    subnets: tuple[Subnet, ...] = ()
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False
    is_predefined: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = {}
    enable_ipv4: bool = True
    is_config_only: bool = False
    config_from: str = ""

    @property
    def is_bridge(self) -> bool:
        """Whether it has a device, addresses and endpoints of ours."""
        return self.driver is Driver.BRIDGE

    @property
    def device(self) -> str:
        """The bridge device; user-defined networks get one named after their ID unless they ask for a name."""
        return self.options.get(OPTION_NAME) or f"{DEVICE_PREFIX}{self.id[:12]}"

    @property
    def mtu(self) -> int:
        """The MTU of the bridge and of every endpoint."""
        return int(self.options.get(OPTION_MTU) or 1500)

    @property
    def allows_traffic_between_endpoints(self) -> bool:
        """Docker's icc."""
        return _flag(self.options, OPTION_ICC)

    @property
    def has_names(self) -> bool:
        """Whether sandboxes on it know each other by name."""
        return self.is_bridge and self.name != DEFAULT_NETWORK

    @property
    def masquerades(self) -> bool:
        """Whether endpoints reach the outside under the host's address."""
        return not self.internal and _flag(self.options, OPTION_MASQUERADE)

    def subnet(self, version: int) -> Subnet | None:
        """The pool of one IP version, if the network has it."""
        return next((subnet for subnet in self.subnets if subnet.network.version == version), None)


DEVICE_PREFIX = "nr-"
DEFAULT_NETWORK = "bridge"


class EndpointRequest(Struct, frozen=True):
    """A wish to be on a network, with the addresses asked for.

    `links` are (name, alias): what the sandbox alone calls others. The endpoint with the highest `gw_priority` has the
    default route and the published ports.
    """

    network: str
    ip: str | None = None
    mac: str | None = None
    aliases: tuple[str, ...] = ()
    ip6: str | None = None
    links: tuple[tuple[str, str], ...] = ()
    gw_priority: int = 0
    link_local: tuple[str, ...] = ()


class Endpoint(Struct, frozen=True):
    """One attachment of a sandbox to a network: `interface` inside the sandbox, `device` on the host."""

    network_id: str
    network_name: str
    endpoint_id: str
    interface: str
    device: str
    mac: str
    ip: str = ""
    prefix_len: int = 0
    gateway: str = ""
    ip6: str = ""
    prefix_len6: int = 0
    gateway6: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    gw_priority: int = 0
    link_local: tuple[str, ...] = ()

    @property
    def has_names(self) -> bool:
        """Whether sandboxes on its network know each other by name: on every network but the default one."""
        return self.network_name != DEFAULT_NETWORK


class PortBinding(Struct, frozen=True):
    """A container port and where on the host it is to be reached.

    `host_ip` "" means every address, IPv4 and IPv6. `host_port` None means any free one; with `host_port_end` the
    first free one of that range. In answers all three are as they became, one binding for each host address.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int | None = None
    host_port_end: int | None = None


class Publication(Struct, frozen=True):
    """A port binding in force: connections to host_ip:host_port reach target_ip:target_port."""

    protocol: str
    host_ip: str
    host_port: int
    target_ip: str
    target_port: int


class Sandbox(Struct, frozen=True):
    """A container's network namespace with its endpoints.

    `netns_fd` belongs to Networks until `leave`; it is -1 for a sandbox of the records that is not restored yet.
    """

    id: str
    netns_fd: int
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PortBinding, ...] = ()


class Naming(Struct, frozen=True):
    """What a sandbox is called, and the DNS servers it asked for instead of the host's."""

    name: str = ""
    hostname: str = ""
    dns: tuple[str, ...] = ()


class SandboxRecord(Struct, frozen=True):
    """What must survive the daemon of a sandbox.

    `is_changing` is set while a running sandbox is connected or disconnected: a daemon that finds it was killed then.
    `dns_ports` are those that its DNS server has inside, UDP's and TCP's.
    """

    id: str
    name: str
    endpoints: tuple[Endpoint, ...] = ()
    publications: tuple[Publication, ...] = ()
    hostname: str = ""
    dns: tuple[str, ...] = ()
    is_changing: bool = False
    dns_ports: tuple[int, int] = (0, 0)

    @property
    def ports(self) -> tuple[PortBinding, ...]:
        """The publications in the shape that callers ask for them."""
        return tuple(
            PortBinding(entry.target_port, entry.protocol, entry.host_ip, entry.host_port)
            for entry in self.publications
        )


class Records:
    """The tables; callers hold the lock of `Networks`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.ensure(SCHEMA)

    def networks(self) -> list[Network]:
        """Every recorded network."""
        rows = self._database.query("SELECT record FROM networks")
        return [msgspec.json.decode(row["record"], type=Network) for row in rows]

    def sandboxes(self) -> list[SandboxRecord]:
        """Every recorded sandbox."""
        rows = self._database.query("SELECT record FROM network_sandboxes")
        return [msgspec.json.decode(row["record"], type=SandboxRecord) for row in rows]

    def save_network(self, network: Network) -> None:
        """Record or replace a network."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO networks (id, name, record) VALUES (?, ?, ?)",
                (network.id, network.name, msgspec.json.encode(network)),
            )

    def delete_network(self, network_id: str) -> None:
        """Forget a network."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM networks WHERE id = ?", (network_id,))

    def save_sandbox(self, record: SandboxRecord) -> None:
        """Record or replace a sandbox."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO network_sandboxes (id, record) VALUES (?, ?)",
                (record.id, msgspec.json.encode(record)),
            )

    def delete_sandbox(self, sandbox_id: str) -> None:
        """Forget a sandbox."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM network_sandboxes WHERE id = ?", (sandbox_id,))

    def remember_forwarding(self, boot_id: str) -> None:
        """Record that we switched IPv4 forwarding on in this boot of the host."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM network_forwarding")
            connection.execute("INSERT INTO network_forwarding (boot_id) VALUES (?)", (boot_id,))

    def forwarding_since(self) -> str:
        """The boot in which we switched forwarding on, or ""."""
        rows = self._database.query("SELECT boot_id FROM network_forwarding")
        return str(rows[0]["boot_id"]) if rows else ""


def _flag(options: dict[str, str], name: str) -> bool:
    return options.get(name, "true") not in FALSE_WORDS
