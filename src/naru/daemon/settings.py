"""narud's settings: command line over /etc/naru/daemon.json over defaults.

The keys of the file are Docker's where both have one.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

import naru
from naru.errors import InvalidArgument

DEFAULT_CONFIG = "/etc/naru/daemon.json"
DEFAULT_HOST = "unix:///run/naru/naru.sock"


class Settings(Struct, rename="kebab", kw_only=True, forbid_unknown_fields=True):
    """What daemon.json may hold; every field has a flag of the same name."""

    data_root: str = "/var/lib/naru"
    run_root: str = msgspec.field(default="/run/naru", name="exec-root")
    hosts: list[str] = []
    log_level: str = "info"
    library: bool = True
    merge_memory: bool = True
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    insecure_registries: list[str] = []
    log_driver: str = "json-file"
    log_opts: dict[str, str] = {}


def read(arguments: Sequence[str]) -> Settings:
    """Return the settings in force. InvalidArgument: daemon.json is not understood. Exits on --help and bad flags."""
    parser = argparse.ArgumentParser(prog="narud", description="The naru engine: serves the Docker Engine API.")
    parser.add_argument("--version", action="version", version=f"narud {naru.__version__}")
    parser.add_argument("--config-file", default=DEFAULT_CONFIG, help="settings file (default %(default)s)")
    parser.add_argument("--data-root", help="images, containers, volumes (default /var/lib/naru)")
    parser.add_argument("--exec-root", dest="run_root", help="sockets and run state (default /run/naru)")
    parser.add_argument("-H", "--host", dest="hosts", action="append", help=f"listen here (default {DEFAULT_HOST})")
    parser.add_argument("-l", "--log-level", choices=["debug", "info", "warn", "error"])
    parser.add_argument("--log-driver", help="for containers that ask for none (default json-file)")
    parser.add_argument("--log-opt", dest="log_opts", metavar="NAME=VALUE", action="append", help="its options")
    parser.add_argument(
        "--library",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="build official images when no registry answers",
    )
    parser.add_argument(
        "--merge-memory",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="have the kernel share equal memory of the containers' shims",
    )
    parser.add_argument(
        "--insecure-registry",
        dest="insecure_registries",
        action="append",
        help="speak to this registry (host[:port] or network) without TLS, or with any certificate",
    )
    parser.add_argument("--tls", action="store_true", default=None, help="TLS on tcp:// hosts")
    parser.add_argument("--tlsverify", action="store_true", default=None, help="TLS, and clients show a certificate")
    parser.add_argument("--tlscacert", help="trust client certificates signed by this CA")
    parser.add_argument("--tlscert", help="our certificate")
    parser.add_argument("--tlskey", help="our key")
    flags = vars(parser.parse_args(arguments))
    file = Path(flags.pop("config_file"))
    settings = _from_file(file) if file.exists() else Settings()
    if options := flags.pop("log_opts"):
        flags["log_opts"] = dict(_option(text) for text in options)
    for name, value in flags.items():
        if value is not None:
            setattr(settings, name, value)
    if os.environ.get("NARU_LIBRARY"):
        from naru.library.recipes import is_off  # not for everyone: it brings TOML

        settings.library = settings.library and not is_off(os.environ)
    settings.hosts = settings.hosts or [f"unix://{settings.run_root}/naru.sock"]
    return settings


def _option(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InvalidArgument(f"invalid log opt: {text!r} is not NAME=VALUE")
    return name, value


def _from_file(path: Path) -> Settings:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"{path}: {error}") from error
