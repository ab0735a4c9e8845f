"""Whom a registry's client believes: the host's authorities, those that the administrator named for one registry, or,
for registries named as insecure, anybody.

    /etc/docker/certs.d/<host[:port]>/     and the same below /etc/naru/certs.d
        *.crt                              authorities for this registry, beside the host's
        <name>.cert, <name>.key            a certificate of ours, for registries that ask for one

The host's authorities come from OpenSSL's defaults, and so from `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set.
Docker, "Verify repository client with certificates"
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from naru.errors import InvalidArgument

CERTIFICATE_DIRECTORIES = (Path("/etc/docker/certs.d"), Path("/etc/naru/certs.d"))


def tls_context(host: str, *, insecure: bool, directories: Sequence[Path] = CERTIFICATE_DIRECTORIES) -> ssl.SSLContext:
    """Return how to speak TLS with the registry `host[:port]`. InvalidArgument: a file for it cannot be used."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for directory in directories:
        if (directory / host).is_dir():
            _add(context, directory / host)
    return context


def _add(context: ssl.SSLContext, directory: Path) -> None:
    for file in sorted(directory.iterdir()):
        try:
            if file.suffix == ".crt":
                context.load_verify_locations(file)
            elif file.suffix == ".cert":
                key = file.with_suffix(".key")
                if not key.exists():
                    raise InvalidArgument(
                        f"missing key {key.name} for client certificate {file.name}. "
                        "Note that CA certificates should use the extension .crt"
                    )
                context.load_cert_chain(file, key)
            elif file.suffix == ".key" and not file.with_suffix(".cert").exists():
                raise InvalidArgument(f"missing client certificate {file.stem}.cert for key {file.name}")
        except OSError as error:  # ssl.SSLError is one
            raise InvalidArgument(f"{file}: {error.strerror or error}") from error


def is_insecure(host: str, named: Collection[str]) -> bool:
    """Whether http will do for `host[:port]`: this machine's own, or in `named` by name, address or network."""
    name = urlsplit(f"//{host}").hostname or ""
    if host in named or name in named or name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in _networks(named))


def _networks(named: Collection[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for text in named:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            continue
    return found
