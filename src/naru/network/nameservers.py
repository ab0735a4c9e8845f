"""The servers that the containers' resolver asks what it does not know itself, and from which namespace.

A server that is reached only from the host (on its loopback, such as systemd-resolved's stub, or on a link of its
own) is asked from the host's namespace, every other one from the container's, by the routes and under the firewall
rules that the container's own traffic has.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from naru.network.resolv_conf import OWN_SERVER, parse

# resolv.conf(5): without an entry, the server on the local machine.
_LOCAL_MACHINE = "127.0.0.1"


class Nameserver(NamedTuple):
    """One server; `is_hosts` says that it is asked from the host's namespace."""

    address: str
    is_hosts: bool


class HostNameservers:
    """The servers of the host's resolv.conf, read again whenever the file has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._servers: tuple[Nameserver, ...] = ()

    def servers(self) -> tuple[Nameserver, ...]:
        """Return them as the file has them now."""
        try:
            found = os.stat(self._path)
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            if version != self._version:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._servers = _servers_of(file.read())
                self._version = version
        except OSError:  # removed, or about to be replaced: what it said last still holds
            self._servers = self._servers or _servers_of("")
        return self._servers


def asked_for(addresses: Sequence[str]) -> tuple[Nameserver, ...]:
    """Return the servers of `--dns`. Our own address among them would make us ask ourselves for ever."""
    return tuple(Nameserver(address, False) for address in addresses if _parsed(address) and address != OWN_SERVER)


def _servers_of(text: str) -> tuple[Nameserver, ...]:
    found = []
    for address in parse(text).nameservers or (_LOCAL_MACHINE,):
        parsed = _parsed(address)
        if parsed:
            found.append(Nameserver(address, parsed.is_loopback or parsed.is_link_local))
    return tuple(found)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """Return an address; None for what is none: to look a name up would stop the resolver."""
    try:
        return ip_address(address)
    except ValueError:
        return None
