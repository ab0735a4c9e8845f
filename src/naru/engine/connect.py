"""Connecting a container to a network and disconnecting it, whatever its status. Engine API, NetworkConnect.

A container's record says which networks it is to be on (`networking`), its sandbox's which it is on. A running one is
connected sandbox first and disconnected record first: at whatever moment a daemon is killed, what the container's
record does not name is what has to go (`finish`).
"""

from __future__ import annotations

from contextlib import ExitStack

import msgspec

from naru.api.network import EndpointSettings, NetworkingConfig
from naru.engine import etc_files
from naru.engine.container import Container, Status
from naru.engine.namespaces import endpoint_request, hostname_of, requested_ports
from naru.engine.parts import Parts
from naru.errors import Conflict, Forbidden, InvalidArgument
from naru.network.endpoint import check_request
from naru.network.record import Driver, Network, Sandbox

_HOST = "container cannot be disconnected from host network or connected to host network"
_SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
_PRIVATE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


def connect(parts: Parts, container: Container, network: Network, settings: EndpointSettings) -> bool:
    """Connect a container, whose lock the caller holds. True: it runs, and is on the network now.

    Forbidden: it is connected already. InvalidArgument: such a container or network cannot be. All in Docker's words.
    """
    _check_status(container)
    mode = container.host_config.network_mode
    asked = container.networking.endpoints_config or {}
    if network.driver is Driver.HOST:
        raise InvalidArgument(_HOST)
    if mode == "host" or mode.startswith("container:"):
        raise InvalidArgument(_SHARED)
    if network.name == "none" or "none" in asked:
        raise InvalidArgument(_PRIVATE)
    settings = msgspec.structs.replace(settings, network_id=network.id)
    request = endpoint_request(network.name, settings, container)
    check_request(network, request)
    wanted = msgspec.structs.replace(
        container, networking=NetworkingConfig(endpoints_config={**asked, network.name: settings})
    )
    if not container.is_running:
        parts.containers.save(wanted)
        return False
    with ExitStack() as undo:
        sandbox = parts.networks.connect(container.id, request, requested_ports(container))
        undo.callback(parts.networks.disconnect, container.id, network.id)
        parts.containers.save(_with_sandbox(wanted, sandbox))
        undo.pop_all()
    update_files(parts, container, sandbox)
    return True


def disconnect(parts: Parts, container: Container, network: Network) -> None:
    """Disconnect a container, whose lock the caller holds. Forbidden: it is not connected. In Docker's words."""
    _check_status(container)
    if container.host_config.network_mode == "host" and network.driver is Driver.HOST:
        raise InvalidArgument(_HOST)
    asked = dict(container.networking.endpoints_config or {})
    if asked.pop(network.name, None) is None:
        article = "" if container.is_running else "the "
        raise Forbidden(f"container {container.id} is not connected to {article}network {network.name}")
    wanted = parts.containers.save(
        msgspec.structs.replace(container, networking=NetworkingConfig(endpoints_config=asked))
    )
    if container.is_running and network.is_bridge:
        sandbox = parts.networks.disconnect(container.id, network.id)
        parts.containers.save(_with_sandbox(wanted, sandbox))
        update_files(parts, container, sandbox)


def finish(parts: Parts, container: Container, sandbox: Sandbox) -> Container:
    """After a restart of the daemon: finish what it was killed in, and return the record as it is then."""
    asked = container.networking.endpoints_config or {}
    for endpoint in sandbox.endpoints:
        if endpoint.network_name not in asked:
            sandbox = parts.networks.disconnect(container.id, endpoint.network_id)
    current = _with_sandbox(container, sandbox)
    if current != container:
        parts.containers.save(current)
        update_files(parts, current, sandbox)
    return current


def update_files(parts: Parts, container: Container, sandbox: Sandbox) -> None:
    """Bring the container's hosts and resolv.conf to what its sandbox has now."""
    directory = parts.paths.container(container.id)
    etc_files.update(directory, container, hostname_of(container, parts.containers), sandbox.endpoints)


def _with_sandbox(container: Container, sandbox: Sandbox) -> Container:
    return msgspec.structs.replace(container, endpoints=list(sandbox.endpoints), ports=list(sandbox.ports))


def _check_status(container: Container) -> None:
    if container.status in (Status.REMOVING, Status.DEAD):
        raise Conflict(
            f"Container {container.id} is marked for removal and cannot be connected or disconnected to the network"
        )
