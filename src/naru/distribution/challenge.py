"""What a registry asks for when it says 401, and who may be told which secret.

RFC 9110 section 11.6.1 (WWW-Authenticate), distribution's token authentication specification.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from naru.api.system import AuthConfig

_SCHEME = re.compile(r"\s*,?\s*(?P<scheme>[A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?:\s+|$)(?!\s*=)")
_PARAMETER = re.compile(r'\s*,?\s*(?P<name>[A-Za-z0-9_-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the user gave for one registry; `identity_token` is an OAuth2 refresh token, `registry_token` a bearer's."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    @classmethod
    def of(cls, auth: AuthConfig | None) -> Credentials:
        """Return what the Engine API's `AuthConfig` says; its `auth` is `user:password` in base64."""
        if auth is None:
            return cls()
        username, password = auth.username, auth.password
        if auth.auth and not username:
            try:
                username, _, password = base64.b64decode(auth.auth).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                username = ""
        return cls(username, password, auth.identitytoken, auth.registrytoken)

    @property
    def basic(self) -> str:
        """The value of an Authorization header, or nothing without a user name."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate: the scheme in lower case and its parameters."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Return the challenges in a WWW-Authenticate header, in its order; what cannot be read ends the list."""
    found: list[Challenge] = []
    position = 0
    while match := _SCHEME.match(header, position):
        position = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            quoted = parameter["quoted"]
            value = parameter["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters[parameter["name"].lower()] = value
            position = parameter.end()
        found.append(Challenge(match["scheme"].lower(), parameters))
    return found
