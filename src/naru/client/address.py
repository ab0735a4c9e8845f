"""Which daemon to talk to: `--host`, NARU_HOST, DOCKER_HOST, or our own socket; with TLS from flags or environment.

No dataclass here, and no `typing` anywhere in `client`: the two cost 15 and 9 ms of a CLI's 40.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from naru.errors import InvalidArgument, Unsupported

DEFAULT_SOCKET = "/run/naru/naru.sock"


class Tls:
    """How to secure a connection: files in PEM, and whether the server must prove who it is."""

    __slots__ = ("authority", "certificate", "is_verified", "key")

    def __init__(self, *, authority: str, certificate: str, key: str, is_verified: bool) -> None:
        self.authority = authority
        self.certificate = certificate
        self.key = key
        self.is_verified = is_verified


class Ssh:
    """A machine to reach by the ssh program, and there the daemon's socket, "" for its default."""

    __slots__ = ("host", "path", "port", "user")

    def __init__(self, *, user: str, host: str, port: str, path: str) -> None:
        self.user = user
        self.host = host
        self.port = port
        self.path = path


class Address:
    """A daemon's address. `path` for a unix socket; `ssh`; else host and port, secured if `tls` is set."""

    __slots__ = ("host", "path", "port", "ssh", "text", "tls")

    def __init__(
        self,
        text: str,
        *,
        path: str = "",
        host: str = "",
        port: int = 0,
        tls: Tls | None = None,
        ssh: Ssh | None = None,
    ) -> None:
        self.text = text
        self.ssh = ssh
        self.path = path
        self.host = host
        self.port = port
        self.tls = tls

    @property
    def is_default(self) -> bool:
        """True for our own socket, the only daemon that we start on demand."""
        return self.path == DEFAULT_SOCKET


def tls_from(environment: Mapping[str, str]) -> Tls | None:
    """Return what DOCKER_TLS, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH ask for, or None for no TLS."""
    is_verified = environment.get("DOCKER_TLS_VERIFY", "") != ""
    if not is_verified and environment.get("DOCKER_TLS", "") in ("", "0"):
        return None
    return tls_files(environment, is_verified=is_verified)


def tls_files(environment: Mapping[str, str], *, is_verified: bool) -> Tls:
    """Return TLS with the files where Docker's clients look for them."""
    directory = environment.get("DOCKER_CERT_PATH") or environment.get("DOCKER_CONFIG") or "~/.docker"
    directory = os.path.expanduser(directory)
    return Tls(
        authority=os.path.join(directory, "ca.pem"),
        certificate=os.path.join(directory, "cert.pem"),
        key=os.path.join(directory, "key.pem"),
        is_verified=is_verified,
    )


def resolve(asked: str, environment: Mapping[str, str] = os.environ, tls: Tls | None = None) -> Address:
    """Return the address meant by `--host` (may be empty), the environment and `--tls…`.

    InvalidArgument: not an address. Unsupported: a kind of address we do not speak.
    """
    text = asked or environment.get("NARU_HOST") or environment.get("DOCKER_HOST") or f"unix://{DEFAULT_SOCKET}"
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = ("unix", text) if text.startswith("/") else ("tcp", text)
    if scheme == "unix":
        return Address(text, path=rest or DEFAULT_SOCKET)
    if scheme == "ssh":
        return Address(text, ssh=_ssh(rest, text))
    if scheme in ("npipe", "fd"):
        raise Unsupported(f"{scheme}:// addresses are not supported: {text}")
    if scheme not in ("tcp", "http", "https"):
        raise InvalidArgument(f"invalid bind address format: {text}")
    secured = tls or tls_from(environment)
    if secured is None and scheme == "https":
        secured = tls_files(environment, is_verified=True)
    host, port = _host_and_port(rest.rstrip("/"), text)
    return Address(text, host=host or "127.0.0.1", port=port or (2376 if secured else 2375), tls=secured)


def _ssh(rest: str, text: str) -> Ssh:
    authority, slash, path = rest.partition("/")
    user, _, place = authority.rpartition("@")
    wrong = InvalidArgument(f"unable to parse docker host `{text}`")
    if ":" in user:
        raise InvalidArgument(f"{wrong}: plain-text password is not supported")
    if any(char in path for char in "?#"):
        raise InvalidArgument(f"{wrong}: extra query or fragment")
    host, port = _host_and_port(place, text)
    if not host or host.startswith("-") or user.startswith("-"):  # a dash would be an option of ssh's
        raise InvalidArgument(f"{wrong}: no host specified")
    return Ssh(user=user, host=host, port=str(port or ""), path=f"/{path}" if slash and path else "")


def _host_and_port(rest: str, text: str) -> tuple[str, int]:
    if rest.startswith("["):
        host, closed, port = rest[1:].partition("]")
        port = port.removeprefix(":")
        is_wrong = not closed
    else:
        host, _, port = rest.partition(":")
        is_wrong = ":" in port
    if is_wrong or (port and not port.isdigit()) or "/" in rest:
        raise InvalidArgument(f"unable to parse docker host `{text}`")
    return host, int(port or 0)
