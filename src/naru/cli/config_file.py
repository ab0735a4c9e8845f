"""The client's settings and credentials: `config.json` of the Docker CLI, shared with it.

    ~/.docker/                   or --config, or DOCKER_CONFIG
        config.json              auths, credsStore, credHelpers, detachKeys, …Format; replaced whole, by rename

Passwords are asked of and given to a credential helper (`docker-credential-…`) where one is configured.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping

from naru.errors import NaruError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PROXIES = {
    "httpProxy": "HTTP_PROXY",
    "httpsProxy": "HTTPS_PROXY",
    "noProxy": "NO_PROXY",
    "ftpProxy": "FTP_PROXY",
    "allProxy": "ALL_PROXY",
}
DOCKER_HUB = "https://index.docker.io/v1/"


class ConfigFile:
    """The settings as read; `save` writes them back with everything we do not know kept."""

    def __init__(self, directory: str) -> None:
        """A file that is not JSON counts as empty, with a warning, and is never written to."""
        self.path = os.path.join(directory, "config.json")
        try:
            with open(self.path, "rb") as file:
                loaded = json.load(file)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            loaded = {}
        except ValueError as error:
            from naru.cli.command import complain

            complain(f"WARNING: Error parsing config file ({self.path}): {error}")
            loaded = None
        self._is_whole = isinstance(loaded, dict)
        self._data: dict[str, Any] = loaded if isinstance(loaded, dict) else {}

    def text(self, key: str) -> str:
        """Return a setting, "" if absent."""
        return str(self._data.get(key) or "")

    def set(self, key: str, value: str) -> None:
        """Change a setting, or remove it for "", and save."""
        if self.text(key) == value:
            return
        self._data.pop(key, None)
        if value:
            self._data[key] = value
        self.save()

    def prune_filters(self) -> list[str]:
        """Return the filters that every prune is to have besides its own (`pruneFilters`: label=x, label!=y)."""
        return [str(one) for one in self._data.get("pruneFilters") or ()]

    def headers(self) -> dict[str, str]:
        """Return the HTTP headers that every request is to carry (`HttpHeaders`)."""
        return {str(name): str(value) for name, value in (self._data.get("HttpHeaders") or {}).items()}

    def proxies(self, host: str) -> dict[str, str]:
        """Return the proxies that builds and containers of the daemon at `host` get, by variable, both spellings."""
        known = self._data.get("proxies") or {}
        chosen = known.get(host) or known.get("default") or {}
        found: dict[str, str] = {}
        for key, name in _PROXIES.items():
            if chosen.get(key):
                found |= {name: str(chosen[key]), name.lower(): str(chosen[key])}
        return found

    def credentials(self, registry: str) -> dict[str, str]:
        """Return what to log in with at `registry` in the API's form; {} for nothing."""
        server = DOCKER_HUB if registry in ("docker.io", "index.docker.io") else registry
        if helper := self._helper(server):
            return _ask(helper, server)
        for key, entry in (self._data.get("auths") or {}).items():
            if key == server or _host(key) == _host(server):
                user, _, password = base64.b64decode(entry.get("auth") or "").decode(errors="replace").partition(":")
                found = {
                    "username": entry.get("username") or user,
                    "password": entry.get("password") or password.rstrip("\0"),
                    "identitytoken": entry.get("identitytoken") or "",
                    "serveraddress": key,
                }
                return {name: value for name, value in found.items() if value}
        return {}

    def servers(self) -> list[str]:
        """Return the registries that credentials are known for."""
        return sorted({*(self._data.get("auths") or {}), *(self._data.get("credHelpers") or {})})

    def all_credentials(self) -> dict[str, dict[str, str]]:
        """Return every stored credential by server, for builds."""
        found = {server: self.credentials(server) for server in self.servers()}
        return {server: credential for server, credential in found.items() if credential}

    def store(self, server: str, credential: Mapping[str, str]) -> str:
        """Keep a credential and return where: a helper's name, or "" for the file itself."""
        helper = self._helper(server)
        auths = self._data.setdefault("auths", {})
        if helper:
            user = "<token>" if credential.get("identitytoken") else credential["username"]
            secret = credential.get("identitytoken") or credential["password"]
            _run_helper(helper, "store", json.dumps({"ServerURL": server, "Username": user, "Secret": secret}))
            auths[server] = {}
        else:
            pair = f"{credential['username']}:{credential.get('password', '')}"
            auths[server] = {"auth": base64.b64encode(pair.encode()).decode()}
            if token := credential.get("identitytoken"):
                auths[server] = {
                    "auth": base64.b64encode(f"{credential['username']}:".encode()).decode(),
                    "identitytoken": token,
                }
        self.save()
        return helper

    def forget(self, server: str) -> bool:
        """Remove the credential for `server`; False if there was none."""
        was_there = (self._data.get("auths") or {}).pop(server, None) is not None
        if helper := self._helper(server):
            _run_helper(helper, "erase", server)
        if was_there:
            self.save()
        return was_there

    def save(self) -> None:
        """Write the file, readable by its owner only. NaruError: it holds what we could not read."""
        if not self._is_whole:
            raise NaruError(f"{self.path} is not what it should be: mend it, or move it away")
        directory = os.path.dirname(self.path)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        temporary = f"{self.path}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._data, file, indent="\t")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, os.path.realpath(self.path))

    def _helper(self, server: str) -> str:
        helpers = self._data.get("credHelpers") or {}
        return str(helpers.get(_host(server)) or helpers.get(server) or self._data.get("credsStore") or "")


def encoded(credential: Mapping[str, object]) -> str:
    """Return a credential as the X-Registry-Auth header carries it."""
    return base64.urlsafe_b64encode(json.dumps(credential).encode()).decode()


def _host(server: str) -> str:
    return server.partition("://")[2].partition("/")[0] if "://" in server else server.partition("/")[0]


def _ask(helper: str, server: str) -> dict[str, str]:
    try:
        answer = json.loads(_run_helper(helper, "get", server))
    except (NaruError, ValueError):
        return {}  # helpers fail for "not found" too, and a pull may do without
    user, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
    if user == "<token>":
        return {"identitytoken": secret, "serveraddress": server}
    return {"username": user, "password": secret, "serveraddress": server}


def _run_helper(helper: str, verb: str, text: str) -> str:
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, verb], input=text, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NaruError(f"credential helper {program}: {error.strerror}") from error
    if done.returncode:
        raise NaruError(f"credential helper {program}: {(done.stdout or done.stderr).strip()}")
    return done.stdout
