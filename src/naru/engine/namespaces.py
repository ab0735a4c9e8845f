"""Which namespaces a container makes, shares or joins: `--network`, `--pid`, `--ipc`, `--uts`, `--cgroupns`.

A container's network namespace is its *sandbox*: joined by endpoints, shared by `container:X`, held by a descriptor
and never by a mount, so that it goes when its last user goes.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field

import msgspec

from naru.api.network import EndpointSettings, NetworkingConfig
from naru.engine.container import Container, Containers
from naru.engine.links import endpoint_links
from naru.errors import Conflict, InvalidArgument
from naru.network.networks import Networks
from naru.network.record import DEFAULT_NETWORK, Endpoint, EndpointRequest, Naming, PortBinding

_MODES = {"pid": "pid_mode", "ipc": "ipc_mode", "uts": "uts_mode", "cgroup": "cgroupns_mode"}
_NS_FILE = {"pid": "pid", "ipc": "ipc", "uts": "uts"}


@dataclass(frozen=True, slots=True)
class Joined:
    """A network namespace ready for a start: its descriptor (None: the host's), and whether that is ours to close."""

    fd: int | None
    is_ours: bool = True
    endpoints: list[Endpoint] = field(default_factory=list)
    ports: list[PortBinding] = field(default_factory=list)


def shared_namespaces(container: Container, containers: Containers) -> dict[str, str]:
    """Return namespace type → "host" or the `/proc/N/ns/…` of the container it is shared with.

    InvalidArgument: an unknown mode. Conflict: the other container is not running.
    """
    share: dict[str, str] = {}
    for kind, attribute in _MODES.items():
        mode: str = getattr(container.host_config, attribute)
        if mode == "host":
            share[kind] = "host"
        elif mode.startswith("container:") and kind in _NS_FILE:
            other = running_peer(mode, containers)
            if kind == "ipc":
                check_shareable(other)
            share[kind] = f"/proc/{other.pid}/ns/{_NS_FILE[kind]}"
        elif mode not in ("", "private", "shareable", "none"):
            raise InvalidArgument(f"invalid {kind.upper()} mode: {mode}")
    if container.host_config.network_mode == "host":
        share["network"] = "host"
    return share


def running_peer(mode: str, containers: Containers) -> Container:
    """Return the container that `container:X` means. NotFound: none. Conflict: it is not running."""
    other = containers.get(mode.removeprefix("container:"))
    if not other.is_running:
        raise Conflict(f"container {other.id} is not running")
    return other


def join_network(container: Container, networks: Networks, containers: Containers, undo: ExitStack) -> Joined:
    """Give `container` its network namespace; leaving it again is registered with `undo`."""
    mode = container.host_config.network_mode
    if mode == "host":
        return Joined(None)
    if mode.startswith("container:"):
        try:
            other = running_peer(mode, containers)
        except Conflict:
            name = containers.get(mode.removeprefix("container:")).id
            raise Conflict(f"cannot join network of a non running container: {name}") from None
        return Joined(os.open(f"/proc/{other.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    naming = Naming(container.name, container.config.hostname, tuple(container.host_config.dns or ()))
    sandbox = networks.join(container.id, endpoint_requests(container), requested_ports(container), naming=naming)
    undo.callback(networks.leave, container.id)
    return Joined(sandbox.netns_fd, False, list(sandbox.endpoints), list(sandbox.ports))


def attachments(container: Container, networks: Networks) -> NetworkingConfig:
    """Return the networks that a new container is to be on, by name: that of `--network` first, then the others asked.

    NotFound: there is no such network. InvalidArgument: it cannot be on several, in Docker's words.
    """
    mode = container.host_config.network_mode
    if mode.startswith("container:"):
        return NetworkingConfig()
    asked = dict(container.networking.endpoints_config or {})
    main = network_key(mode)
    found: dict[str, EndpointSettings] = {}
    for name in dict.fromkeys([main, *(network_key(name) for name in asked)]):
        network = networks.get(name)
        spellings = [key for key in asked if network_key(key) in (network.name, network.id, name)]
        settings = asked[spellings[0]] if spellings else EndpointSettings()
        endpoint_request(network.name, settings, container)
        found.setdefault(network.name, msgspec.structs.replace(settings, network_id=network.id))
    if len(found) > 1 and "none" in found:
        raise InvalidArgument(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    if len(found) > 1 and "host" in found:
        raise InvalidArgument("container cannot be disconnected from host network or connected to host network")
    return NetworkingConfig(endpoints_config=found)


def network_key(mode: str) -> str:
    """Return the network that a network mode stands for."""
    return DEFAULT_NETWORK if mode in ("", "default") else mode


def endpoint_requests(container: Container) -> list[EndpointRequest]:
    """Return the attachments that the container is to have; none for one without a network."""
    asked = container.networking.endpoints_config or {}
    if container.config.network_disabled or "none" in asked:
        return []
    return [endpoint_request(name, settings, container) for name, settings in asked.items()]


def endpoint_request(name: str, settings: EndpointSettings, container: Container) -> EndpointRequest:
    """Return what `settings` ask of the network `name`. InvalidArgument: something that is not offered."""
    wanted = settings.ipam_config
    for option in settings.driver_opts or {}:
        if option.startswith("com.docker.network.endpoint."):
            raise InvalidArgument(f"endpoint option {option} is not offered by this engine")
    is_main = name == network_key(container.host_config.network_mode)
    return EndpointRequest(
        network=name,
        ip=(wanted.ipv4_address if wanted else "") or None,
        ip6=(wanted.ipv6_address if wanted else "") or None,
        mac=settings.mac_address or (container.config.mac_address if is_main else "") or None,
        aliases=tuple(settings.aliases or ()),
        links=endpoint_links(settings),
        gw_priority=settings.gw_priority,
        link_local=tuple((wanted.link_local_ips if wanted else None) or ()),
    )


def hostname_of(container: Container, containers: Containers) -> str:
    """Return the container's hostname: its own, or that of whom it shares it with."""
    mode = container.host_config.network_mode
    if container.config.hostname:
        return container.config.hostname
    if mode == "host" or container.host_config.uts_mode == "host":
        return socket.gethostname()
    if mode.startswith("container:"):
        other = containers.get(mode.removeprefix("container:"))
        return other.config.hostname or other.id[:12]
    return container.id[:12]


def requested_ports(container: Container) -> list[PortBinding]:
    """Return the ports to publish, one entry for each binding. InvalidArgument: not a port."""
    found: list[PortBinding] = []
    for port, bindings in (container.host_config.port_bindings or {}).items():
        number, protocol = parse_port(port)
        for binding in bindings or []:
            first, last = _host_range(binding.host_port)
            found.append(
                PortBinding(
                    container_port=number,
                    protocol=protocol,
                    host_ip=binding.host_ip,
                    host_port=first,
                    host_port_end=last,
                )
            )
    if container.host_config.publish_all_ports:
        published = {(binding.container_port, binding.protocol) for binding in found}
        exposed = [parse_port(port) for port in container.config.exposed_ports or {}]
        found += [
            PortBinding(container_port=number, protocol=protocol)
            for number, protocol in exposed
            if (number, protocol) not in published
        ]
    return found


def parse_port(text: str) -> tuple[int, str]:
    """Return `80/tcp` as (80, "tcp"). InvalidArgument: anything else."""
    number, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if not number.isdigit() or not 0 < int(number) < 65536 or protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid port specification: {text}")
    return int(number), protocol


def _host_range(text: str) -> tuple[int | None, int | None]:
    first, _, last = text.partition("-")
    if not text or text == "0":
        return None, None
    if not first.isdigit() or (last and not last.isdigit()) or int(last or first) > 65535:
        raise InvalidArgument(f"invalid port specification: {text}")
    return int(first), int(last) if last else None


def check_shared(container: Container, containers: Containers) -> None:
    """Refuse to share a namespace with a container that is not there. NotFound; InvalidArgument: nothing to share."""
    host = container.host_config
    for mode in (host.network_mode, host.pid_mode, host.ipc_mode):
        if mode.startswith("container:"):
            other = containers.get(mode.removeprefix("container:"))
            if mode == host.ipc_mode:
                check_shareable(other)


def check_shareable(other: Container) -> None:
    """Refuse to join an IPC namespace that its container keeps for itself. InvalidArgument in Docker's words."""
    mode = other.host_config.ipc_mode
    if mode in ("private", "none"):
        raise InvalidArgument(
            f"can't join IPC of container {other.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
