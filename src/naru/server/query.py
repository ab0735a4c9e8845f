"""Query parameters and headers as Docker's clients write them, made into values. InvalidArgument if wrong."""

from __future__ import annotations

import base64
import binascii
import time
from typing import TypeVar

import msgspec
from multidict import MultiMapping

from naru.api.moment import nanoseconds
from naru.api.system import AuthConfig
from naru.api.wire import decode
from naru.errors import InvalidArgument

T = TypeVar("T")

_FALSE = frozenset({"", "0", "no", "false", "none"})


def flag(query: MultiMapping[str], name: str, *, default: bool = False) -> bool:
    """Return a boolean; whatever is not a known "no" is a yes, as in moby."""
    value = query.get(name)
    return default if value is None or (default and not value) else value.strip().lower() not in _FALSE


def number(query: MultiMapping[str], name: str) -> int | None:
    """Return a whole number, None where it is missing or empty."""
    value = query.get(name)
    if not value:
        return None
    try:
        return int(value)
    except ValueError:
        raise InvalidArgument(f'invalid {name}: "{value}" is not a number') from None


def filters(query: MultiMapping[str]) -> dict[str, list[str]]:
    """Return `filters`, in its present form `{"name": ["a"]}` or the one of old clients, `{"name": {"a": true}}`."""
    text = query.get("filters")
    if not text:
        return {}
    found = json_value(query, "filters", dict[str, list[str] | dict[str, bool] | None])
    return {
        key: [value for value, wanted in values.items() if wanted] if isinstance(values, dict) else values or []
        for key, values in found.items()
    }


def json_value(query: MultiMapping[str], name: str, kind: type[T]) -> T:
    """Return a parameter that holds JSON; an empty `kind()` where it is missing."""
    text = query.get(name)
    return decode(kind, text, what=name) if text and text != "null" else kind()


def moment_ns(query: MultiMapping[str], name: str) -> int | None:
    """Return a time as nanoseconds since 1970, of "1700000000.5" or RFC 3339; None where it is missing, empty or 0."""
    text = query.get(name)
    if not text:
        return None
    try:
        return nanoseconds(text) or None
    except ValueError:
        raise InvalidArgument(f'invalid {name}: "{text}" is no time') from None


def seconds_until(when_ns: int) -> float:
    """Return how many seconds from now `when_ns` is; 0 if it has been."""
    return max(0, when_ns - time.time_ns()) / 1e9


def credentials(headers: MultiMapping[str]) -> AuthConfig | None:
    """Return X-Registry-Auth; None where it is missing or empty. Unreadable ones count as none, as in moby."""
    text = headers.get("X-Registry-Auth")
    try:
        auth = decode(AuthConfig, _base64url(text), what="X-Registry-Auth") if text else AuthConfig()
    except (binascii.Error, InvalidArgument):
        return None
    return auth if auth != AuthConfig() else None


def credentials_by_host(headers: MultiMapping[str]) -> dict[str, AuthConfig]:
    """Return X-Registry-Config: credentials for each registry a build may pull from."""
    text = headers.get("X-Registry-Config")
    if not text:
        return {}
    try:
        return decode(dict[str, AuthConfig], _base64url(text), what="X-Registry-Config")
    except (binascii.Error, InvalidArgument):
        return {}


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def raw_json(value: msgspec.Struct) -> str:
    """Return `value` as the base64 of its JSON, as in X-Docker-Container-Path-Stat."""
    return base64.b64encode(msgspec.json.encode(value)).decode("ascii")
