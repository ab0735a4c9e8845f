"""/etc/hosts of a container, as Docker writes it. Pure: text in, text out; the engine owns the file.

Order matters to resolvers that stop at the first match: localhost, extra hosts, links, the container itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from naru.errors import InvalidArgument
from naru.network.ipam import parse_address

HOST_GATEWAY = "host-gateway"
_LOCAL = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("ff00::0", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def container_hosts(
    *,
    hostname: str,
    domainname: str = "",
    addresses: Sequence[str] = (),
    extra_hosts: Sequence[str] = (),
    host_gateway: str = "",
    links: Iterable[tuple[str, Sequence[str]]] = (),
) -> str:
    """Return the file for a container with a network of its own.

    `addresses` are the container's own, one line each. `extra_hosts` are `NAME:ADDRESS` or `NAME=ADDRESS` as clients
    send them, where the address `host-gateway` stands for `host_gateway`. `links` are (address, names).
    """
    entries = [*_LOCAL, *parse_extra_hosts(extra_hosts, host_gateway=host_gateway)]
    entries += [(address, " ".join(names)) for address, names in links]
    entries += [(address, own_names(hostname, domainname)) for address in addresses]
    return _lines(entries)


def with_own_addresses(text: str, names: str, addresses: Sequence[str]) -> str:
    """Return a file of `container_hosts` with other addresses for the container itself; other lines stay as they are.

    `names` are the container's, as `own_names` gives them.
    """
    kept = [line for line in text.splitlines() if line.partition("\t")[2] != names or line.startswith("#")]
    return "".join(f"{line}\n" for line in kept) + _lines((address, names) for address in addresses)


def own_names(hostname: str, domainname: str = "") -> str:
    """Return what a container's own addresses are called in its file."""
    return f"{hostname}.{domainname} {hostname}" if domainname else hostname


def host_network_hosts(host_file: str, *, extra_hosts: Sequence[str] = (), host_gateway: str = "") -> str:
    """Return the file for a container on the host's network: the host's own, and the extra hosts."""
    if host_file and not host_file.endswith("\n"):
        host_file += "\n"
    return host_file + _lines(parse_extra_hosts(extra_hosts, host_gateway=host_gateway))


def parse_extra_hosts(extra_hosts: Sequence[str], *, host_gateway: str = "") -> list[tuple[str, str]]:
    """Return (address, name) pairs. InvalidArgument in Docker's words for one that is neither."""
    entries = []
    for extra in extra_hosts:
        # The first separator ends the name, so that IPv6 addresses keep their colons.
        position = min((extra.find(mark) for mark in ":=" if mark in extra), default=-1)
        name, address = extra[:position], extra[position + 1 :]
        if position < 1 or not address:
            raise InvalidArgument(f'bad format for add-host: "{extra}"')
        if address == HOST_GATEWAY:
            if not host_gateway:
                raise InvalidArgument(
                    "unable to derive the IP value for host-gateway", hint="the container has no network with a gateway"
                )
            address = host_gateway
        address = address.removeprefix("[").removesuffix("]")
        try:
            parse_address(address)
        except InvalidArgument:
            raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from None
        entries.append((address, name))
    return entries


def _lines(entries: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{address}\t{names}\n" for address, names in entries)
