"""The three files of /etc that the engine writes for every container, and the binds that bring them in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from naru.api.host import HostConfig
from naru.engine.container import Container
from naru.network.hosts import container_hosts, host_network_hosts
from naru.network.record import Endpoint
from naru.network.resolv_conf import HOST_PATH, SYSTEMD_PATH, container_resolv_conf
from naru.oci import runtime as oci

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
        "resolv.conf": _resolv_conf(container.host_config),
    }
    for name, text in texts.items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)


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
        addresses=[address for endpoint in endpoints for address in (endpoint.ip, endpoint.ip6) if address],
        extra_hosts=extra,
        host_gateway=next((endpoint.gateway for endpoint in endpoints if endpoint.gateway), ""),
        links=links,
    )


def _resolv_conf(host: HostConfig) -> str:
    asked = (host.dns, host.dns_search, host.dns_options)
    if host.network_mode == "host" and not any(asked):
        return _text(HOST_PATH)
    dns, search, options = (value or [] for value in asked)
    return container_resolv_conf(
        _text(HOST_PATH), systemd_text=_text(SYSTEMD_PATH), dns=dns, dns_search=search, dns_options=options
    ).text()


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return ""
