"""The three files of /etc that the engine writes for every container, and the binds that bring them in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from naru.api.host import HostConfig
from naru.engine.container import Container
from naru.network.hosts import container_hosts, host_network_hosts, own_names, with_own_addresses
from naru.network.record import Endpoint
from naru.network.resolv_conf import HOST_PATH, SYSTEMD_PATH, container_resolv_conf, own_resolv_conf
from naru.oci import runtime as oci

# What we last wrote to resolv.conf, to know whether somebody changed it since.
_WRITTEN = "resolv.conf.written"
# Containers write to their files, too: whatever they wrote is kept, but for files that are no longer any of the kind.
_ANY_BYTES = "surrogateescape"
_MOST_BYTES = 1 << 20
_NAMES = {"hosts": "/etc/hosts", "hostname": "/etc/hostname", "resolv.conf": "/etc/resolv.conf"}


Link = tuple[str, Sequence[str]]
"""A linked container's address and the names it goes by."""


def write(
    directory: Path, container: Container, hostname: str, endpoints: Sequence[Endpoint], links: Sequence[Link]
) -> None:
    """Write hosts, hostname and resolv.conf into the container's directory, over what an earlier start wrote.

    They are written in place: a running container sees the same inode through its bind mount.
    """
    texts = {
        "hostname": f"{hostname}\n",
        "hosts": _hosts(container, hostname, endpoints, links),
        "resolv.conf": _resolv_conf(container.host_config, endpoints),
    }
    for name, text in texts.items():
        path = directory / name
        path.write_text(text, errors=_ANY_BYTES)
        path.chmod(0o644)
    (directory / _WRITTEN).write_text(texts["resolv.conf"])


def update(directory: Path, container: Container, hostname: str, endpoints: Sequence[Endpoint]) -> None:
    """Bring hosts and resolv.conf of a running container to the endpoints that it has now.

    What somebody added to hosts stays, and a resolv.conf that somebody changed stays as it is. Harmless to repeat.
    """
    hosts, resolv_conf = directory / "hosts", directory / "resolv.conf"
    if not hosts.exists() or max(hosts.stat().st_size, resolv_conf.stat().st_size) > _MOST_BYTES:
        return
    names = own_names(hostname, container.config.domainname)
    _rewrite(hosts, with_own_addresses(_text(str(hosts)), names, _addresses(endpoints)))
    text, before = _resolv_conf(container.host_config, endpoints), _text(str(resolv_conf))
    if before == _text(str(directory / _WRITTEN)):
        _rewrite(resolv_conf, text)
        (directory / _WRITTEN).write_text(text)


def _rewrite(path: Path, text: str) -> None:
    if _text(str(path)) != text:
        path.write_text(text, errors=_ANY_BYTES)


def binds(directory: Path, taken: Sequence[str]) -> list[oci.Mount]:
    """Return the mounts of those files, but for destinations that the user mounts something else at."""
    return [
        oci.Mount(
            destination=destination, type="bind", source=str(directory / name), options=["rbind", "rprivate", "rw"]
        )
        for name, destination in _NAMES.items()
        if destination not in taken
    ]


def _hosts(container: Container, hostname: str, endpoints: Sequence[Endpoint], links: Sequence[Link]) -> str:
    host = container.host_config
    extra = host.extra_hosts or []
    if host.network_mode == "host":
        return host_network_hosts(_text("/etc/hosts"), extra_hosts=extra, host_gateway="127.0.0.1")
    return container_hosts(
        hostname=hostname,
        domainname=container.config.domainname,
        addresses=_addresses(endpoints),
        extra_hosts=extra,
        host_gateway=next((endpoint.gateway for endpoint in endpoints if endpoint.gateway), ""),
        links=links,
    )


def _addresses(endpoints: Sequence[Endpoint]) -> list[str]:
    return [address for endpoint in endpoints for address in (endpoint.ip, endpoint.ip6) if address]


def _resolv_conf(host: HostConfig, endpoints: Sequence[Endpoint]) -> str:
    asked = (host.dns, host.dns_search, host.dns_options)
    if host.network_mode == "host" and not any(asked):
        return _text(HOST_PATH)
    dns, search, options = (value or [] for value in asked)
    if any(endpoint.has_names for endpoint in endpoints):
        return own_resolv_conf(_text(HOST_PATH), dns_search=search, dns_options=options).text()
    return container_resolv_conf(
        _text(HOST_PATH), systemd_text=_text(SYSTEMD_PATH), dns=dns, dns_search=search, dns_options=options
    ).text()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors=_ANY_BYTES)
    except FileNotFoundError:
        return ""
