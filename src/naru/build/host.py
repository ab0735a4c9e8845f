"""What a RUN step may borrow from the host, without any of it landing in a layer.

Hosts behind a proxy, with a mirror of their own or a TLS-inspecting gateway cannot fetch a package otherwise.
A step gets environment variables and one tmpfs at /run/naru-host that holds the host's CA bundle and an apt
configuration; the mount goes with the step. None of it is part of a cache key: what a step makes must not depend
on where it was made. Not borrowed: credentials files, DNS (the network's), anything under /etc.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from naru.oci.runtime import Mount

INSIDE = "/run/naru-host"
_BUNDLE = f"{INSIDE}/ca.crt"
_APT = f"{INSIDE}/apt.conf"
_HOST_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
# What each program reads its CA bundle from: OpenSSL and most others, curl, requests, pip, node, git, cargo.
_BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
)
_PROXY_NAMES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_MIRROR_VARIABLES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "GOPROXY",
    "GOSUMDB",
    "GONOSUMDB",
    "npm_config_registry",
    "NPM_CONFIG_REGISTRY",
    "YARN_REGISTRY",
    "RUSTUP_DIST_SERVER",
    "CARGO_REGISTRIES_CRATES_IO_PROTOCOL",
    "MAVEN_MIRROR_URL",
)
_TMPFS_OPTIONS = ["nosuid", "nodev", "noexec", "mode=755", "size=64k"]


@dataclass(frozen=True, slots=True)
class Borrowed:
    """What to add to a step: `environment` gives way to the image's own, `mounts` are in the order to make them."""

    environment: Mapping[str, str]
    mounts: tuple[Mount, ...] = ()


def borrow(environ: Mapping[str, str], directory: Path) -> Borrowed:
    """Return what this host has to lend. `directory` (private to one step) takes the files that are bound in."""
    environment = {name: environ[name] for name in _MIRROR_VARIABLES if environ.get(name)}
    environment.update(_proxies(environ))
    bundle = _host_bundle(environ)
    apt = _apt_configuration(environment, has_bundle=bundle is not None)
    if bundle is None and not apt:
        return Borrowed(environment)
    mounts = [Mount(destination=INSIDE, type="tmpfs", source="tmpfs", options=list(_TMPFS_OPTIONS))]
    if bundle is not None:
        mounts.append(_bind(bundle, _BUNDLE))
        environment.update(dict.fromkeys(_BUNDLE_VARIABLES, _BUNDLE))
    configuration = directory / "apt.conf"
    configuration.write_text(apt)
    configuration.chmod(0o644)
    mounts.append(_bind(str(configuration), _APT))
    environment["APT_CONFIG"] = _APT
    return Borrowed(environment, tuple(mounts))


def _bind(source: str, destination: str) -> Mount:
    return Mount(
        destination=destination, type="bind", source=source, options=["bind", "ro", "nosuid", "nodev", "noexec"]
    )


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Both spellings of each: curl reads only the lower one of http_proxy, others only the upper."""
    found = {}
    for name in _PROXY_NAMES:
        value = environ.get(name) or environ.get(name.upper())
        if value:
            found[name] = found[name.upper()] = value
    return found


def _host_bundle(environ: Mapping[str, str]) -> str | None:
    candidates = (environ.get("SSL_CERT_FILE", ""), *_HOST_BUNDLES)
    for path in candidates:
        if path and os.path.isfile(path):
            return os.path.realpath(path)
    return None


def _apt_configuration(environment: Mapping[str, str], *, has_bundle: bool) -> str:
    lines = []
    if has_bundle:
        lines.append(f'Acquire::https::CAInfo "{_BUNDLE}";')
    for scheme in ("http", "https"):
        proxy = environment.get(f"{scheme}_proxy")
        if proxy and '"' not in proxy and "\n" not in proxy:
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    return "".join(f"{line}\n" for line in lines)
