"""`--link`: other containers under a name of one's own, as lines of /etc/hosts, as Docker has it on networks.

The environment variables of Docker's oldest links are not set: they leak the other container's secrets.
"""

from __future__ import annotations

from naru.engine.container import Container, Containers
from naru.engine.etc_files import Link
from naru.errors import Conflict, InvalidArgument, NotFound


def check_links(container: Container, containers: Containers) -> None:
    """Refuse a link to a container that is not there. InvalidArgument in Docker's words."""
    for entry in _links(container):
        name, _ = _parse(entry)
        try:
            containers.get(name)
        except NotFound as error:
            raise InvalidArgument(f"could not get container for {name}: {error}") from error


def links(container: Container, containers: Containers) -> list[Link]:
    """Return the lines that a container's links add to its /etc/hosts. Conflict: a linked container is not running."""
    found: list[Link] = []
    for entry in _links(container):
        name, alias = _parse(entry)
        other = containers.get(name)
        if not other.is_running:
            raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias}")
        names = list(dict.fromkeys([alias, other.config.hostname or other.id[:12], other.name]))
        found += [(endpoint.ip, names) for endpoint in other.endpoints if endpoint.ip]
    return found


def _links(container: Container) -> list[str]:
    asked = list(container.host_config.links or [])
    for settings in (container.networking.endpoints_config or {}).values():
        asked += settings.links or []
    return asked


def _parse(entry: str) -> tuple[str, str]:
    """Return `name:alias`; alone, a name is its own alias, and `/other:/self/alias` is how the API keeps them."""
    name, _, alias = entry.partition(":")
    return name.removeprefix("/"), (alias or name).rpartition("/")[2]
