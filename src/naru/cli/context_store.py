"""Contexts: named daemons in the user's directory, shared with the Docker CLI; and which of them is meant.

    ~/.docker/                                  or --config, or DOCKER_CONFIG
        config.json                             currentContext
        contexts/meta/SHA256-OF-NAME/meta.json  {"Name": …, "Metadata": {…}, "Endpoints": {"docker": {"Host": …}}}
        contexts/tls/SHA256-OF-NAME/docker/     ca.pem, cert.pem, key.pem

Each file is replaced whole, by rename. The context `default` is in no file: it is what the environment says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping

from naru.client.address import Address, Tls, resolve
from naru.errors import InvalidArgument, NaruError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from naru.cli.config_file import ConfigFile

DEFAULT = "default"
DEFAULT_DESCRIPTION = "Current DOCKER_HOST based configuration"
HOST_VARIABLES = ("NARU_HOST", "DOCKER_HOST")
ENDPOINT = "docker"  # the one kind of endpoint that is left; contexts once had others
TLS_FILES = ("ca", "cert", "key")
_NAME = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"


def meant(asked: str, *, has_host: bool, environment: Mapping[str, str], config: ConfigFile) -> str:
    """Return the context's name: of `--context`, else by --host and the environment, else the user's choice."""
    if asked or has_host:
        return asked or DEFAULT
    if any(environment.get(name) for name in HOST_VARIABLES):
        return DEFAULT
    return environment.get("DOCKER_CONTEXT") or config.text("currentContext") or DEFAULT


class Context:
    """A stored context: `meta` as in its file, `tls` the contents of its TLS files by name (`ca`)."""

    def __init__(self, meta: dict[str, Any], tls: Mapping[str, bytes]) -> None:
        self.meta = meta
        self.tls = dict(tls)

    @property
    def name(self) -> str:
        return str(self.meta.get("Name", ""))

    @property
    def description(self) -> str:
        return str((self.meta.get("Metadata") or {}).get("Description", ""))

    @property
    def endpoint(self) -> dict[str, Any]:
        return dict((self.meta.get("Endpoints") or {}).get(ENDPOINT) or {})


class ContextStore:
    """The contexts in one directory of settings."""

    def __init__(self, directory: str) -> None:
        self._top = os.path.join(directory, "contexts")

    def meta_path(self, name: str) -> str:
        """Return the directory of the context's description."""
        return os.path.join(self._top, "meta", _hash(name))

    def tls_path(self, name: str) -> str:
        """Return the directory of the context's TLS material."""
        return os.path.join(self._top, "tls", _hash(name))

    def get(self, name: str) -> Context:
        """Return a context. NotFound in Docker's words; NaruError: its file is no good."""
        path = os.path.join(self.meta_path(name), "meta.json")
        try:
            with open(path, "rb") as file:
                meta = json.load(file)
        except OSError as error:
            reason = f"open {path}: {(error.strerror or '').lower()}"
            raise NotFound(f'context "{name}": context not found: {reason}') from None
        except ValueError as error:
            raise NaruError(f'context "{name}": {path}: {error}') from error
        return Context(meta, dict(self._tls(name)))

    def address(self, name: str) -> Address:
        """Return where the context's daemon is. NotFound: no such context."""
        endpoint = self.get(name).endpoint
        directory = os.path.join(self.tls_path(name), ENDPOINT)
        files = [path if os.path.exists(path) else "" for path in (f"{directory}/{one}.pem" for one in TLS_FILES)]
        is_verified = not endpoint.get("SkipTLSVerify")
        tls = None
        if any(files) or not is_verified:
            tls = Tls(authority=files[0], certificate=files[1], key=files[2], is_verified=is_verified)
        return resolve(str(endpoint.get("Host", "")), {}, tls)

    def names(self) -> list[str]:
        """Return the names of all stored contexts, sorted."""
        found = []
        for entry in _entries(os.path.join(self._top, "meta")):
            try:
                with open(os.path.join(self._top, "meta", entry, "meta.json"), "rb") as file:
                    found.append(str(json.load(file)["Name"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # somebody else's, or half removed: it has no name that could be shown
        return sorted(found)

    def put(self, context: Context) -> None:
        """Create or replace a context: its TLS files first, so that it is never without what it needs."""
        directory = os.path.join(self.tls_path(context.name), ENDPOINT)
        for one in TLS_FILES:
            path = os.path.join(directory, f"{one}.pem")
            if one in context.tls:
                _write(path, context.tls[one])
            elif os.path.exists(path):
                os.unlink(path)
        text = json.dumps(context.meta, separators=(",", ":"), ensure_ascii=False)
        _write(os.path.join(self.meta_path(context.name), "meta.json"), text.encode())

    def remove(self, name: str) -> None:
        """Remove a context that is there."""
        import shutil

        shutil.rmtree(self.meta_path(name))
        shutil.rmtree(self.tls_path(name), ignore_errors=True)

    def _tls(self, name: str) -> Iterator[tuple[str, bytes]]:
        for one in TLS_FILES:
            try:
                with open(os.path.join(self.tls_path(name), ENDPOINT, f"{one}.pem"), "rb") as file:
                    yield one, file.read()
            except OSError:
                continue


def check_name(name: str) -> None:
    """Raise InvalidArgument unless a context may be created under this name."""
    if name == DEFAULT:
        raise InvalidArgument(f'"{DEFAULT}" is a reserved context name')
    import re

    if not re.match(_NAME, name):
        raise InvalidArgument(f'context name "{name}" is invalid, names are validated against regexp "{_NAME}"')


def _hash(name: str) -> str:
    from hashlib import sha256

    return sha256(name.encode()).hexdigest()


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
