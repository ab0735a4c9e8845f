"""/etc/resolv.conf of a container: the host's, without what only the host can reach, and what was asked for.

A nameserver on the host's loopback is no use in another network namespace. systemd-resolved's stub stands for the
servers that it keeps in a file of its own. Pure; the caller reads both files. resolv.conf(5)
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from msgspec import Struct

HOST_PATH = "/etc/resolv.conf"
SYSTEMD_PATH = "/run/systemd/resolve/resolv.conf"
# Docker's fallback, for a host that names no server a container could reach.
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
FALLBACK_NAMESERVERS6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")


# Where the engine's own DNS server answers inside a container.
OWN_SERVER = "127.0.0.11"


class ResolvConf(Struct, frozen=True):
    """The three things a resolver is told."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """The file."""
        lines = [f"nameserver {server}" for server in self.nameservers]
        if self.search:
            lines.append(f"search {' '.join(self.search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "".join(f"{line}\n" for line in lines)


def parse(text: str) -> ResolvConf:
    """Read a resolv.conf: the last `search` or `domain` wins, `options` add up, the rest is ignored."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        keyword, *values = line.split("#", 1)[0].split(";", 1)[0].split() or [""]
        if keyword == "nameserver" and values:
            nameservers.append(values[0])
        elif keyword in ("search", "domain"):
            search = values
        elif keyword == "options":
            options += values
    return ResolvConf(tuple(nameservers), tuple(search), tuple(options))


def container_resolv_conf(
    host_text: str,
    *,
    systemd_text: str = "",
    dns: Sequence[str] = (),
    dns_search: Sequence[str] = (),
    dns_options: Sequence[str] = (),
    has_ipv6: bool = False,
) -> ResolvConf:
    """Return what a container in a namespace of its own is to be told.

    Each of --dns, --dns-search and --dns-option replaces the host's; a search of `.` means none. The public fallback
    comes in only when neither of the host's files names a server that is not on its loopback.
    """
    host = parse(host_text)
    servers = tuple(dns) or _reachable(host, has_ipv6=has_ipv6)
    if not servers and systemd_text:
        resolved = parse(systemd_text)
        servers = _reachable(resolved, has_ipv6=has_ipv6)
        host = ResolvConf(servers, host.search or resolved.search, host.options)
    if not servers:
        servers = FALLBACK_NAMESERVERS + (FALLBACK_NAMESERVERS6 if has_ipv6 else ())
    search = tuple(dns_search) or host.search
    return ResolvConf(servers, () if search == (".",) else search, tuple(dns_options) or host.options)


def own_resolv_conf(host_text: str, *, dns_search: Sequence[str] = (), dns_options: Sequence[str] = ()) -> ResolvConf:
    """Return what a container is to be told whose names the engine's own server resolves.

    That server asks the container's real ones. `ndots:0`, unless another number is asked for, has names of containers
    tried as they are, before any search domain.
    """
    host = parse(host_text)
    search = tuple(dns_search) or host.search
    options = tuple(dns_options) or host.options
    if not any(option.startswith("ndots:") for option in options):
        options += ("ndots:0",)
    return ResolvConf((OWN_SERVER,), () if search == (".",) else search, options)


def _reachable(conf: ResolvConf, *, has_ipv6: bool) -> tuple[str, ...]:
    return tuple(server for server in conf.nameservers if _is_reachable(server, has_ipv6=has_ipv6))


def _is_reachable(server: str, *, has_ipv6: bool) -> bool:
    try:
        address = ip_address(server)
    except ValueError:
        return False
    # A link-local server (fe80::1%eth0) is on a link that the container is not on.
    return not address.is_loopback and (address.version == 4 or (has_ipv6 and not address.is_link_local))
