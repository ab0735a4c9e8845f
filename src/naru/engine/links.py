"""`--link`: other containers under a name of one's own.

On the default bridge they are lines of /etc/hosts, written at the start. On networks of one's own the DNS server
answers for them, so there a linked container may come, go and come back. The environment variables of Docker's oldest
links are not set: they leak the other container's secrets.
"""

from __future__ import annotations

from naru.api.network import EndpointSettings
from naru.engine.container import Container, Containers
from naru.engine.etc_files import Link
from naru.errors import Conflict, InvalidArgument, NotFound
from naru.network.record import DEFAULT_NETWORK


def check_links(container: Container, containers: Containers) -> None:
    """Refuse a link to a container that is not there, but on networks of one's own. InvalidArgument: Docker's words."""
    is_predefined = container.host_config.network_mode in ("", "default", DEFAULT_NETWORK, "host", "none")
    for entry in (container.host_config.links or []) if is_predefined else _static_links(container):
        name, _ = _parse(entry)
        try:
            containers.get(name)
        except NotFound as error:
            raise InvalidArgument(f"could not get container for {name}: {error}") from error


def links(container: Container, containers: Containers) -> list[Link]:
    """Return the lines that links on the default bridge add to /etc/hosts. Conflict: one of them is not running."""
    found: list[Link] = []
    for entry in _static_links(container):
        name, alias = _parse(entry)
        other = containers.get(name)
        if not other.is_running:
            raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias}")
        names = list(dict.fromkeys([alias, other.config.hostname or other.id[:12], other.name]))
        found += [
            (endpoint.ip, names)
            for endpoint in other.endpoints
            if endpoint.ip and endpoint.network_name == DEFAULT_NETWORK
        ]
    return found


def endpoint_links(settings: EndpointSettings) -> tuple[tuple[str, str], ...]:
    """Return (name, alias) of the links on one network of one's own."""
    return tuple(_parse(entry) for entry in settings.links or ())


def _static_links(container: Container) -> list[str]:
    asked = container.networking.endpoints_config or {}
    if DEFAULT_NETWORK not in asked:
        return []
    is_main = container.host_config.network_mode in ("", "default", DEFAULT_NETWORK)
    return [*((container.host_config.links or []) if is_main else []), *(asked[DEFAULT_NETWORK].links or [])]


def _parse(entry: str) -> tuple[str, str]:
    """Return `name:alias`; alone, a name is its own alias, and `/other:/self/alias` is how the API keeps them."""
    name, _, alias = entry.partition(":")
    return name.removeprefix("/"), (alias or name).rpartition("/")[2]
