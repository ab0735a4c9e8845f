"""How a Python attribute becomes a Docker JSON key, and JSON becomes a type that cannot be wrong.

Attributes are snake_case; keys are Docker's (`ip_address` is `IPAddress`). A field with a plain default is left
out of an answer while it holds that default (Go's `omitempty`); a field made by `always` is written every time,
as most of Docker's are, `null` included. Unknown keys are ignored; `null` means "not given", as in Go.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, TypeVar

import msgspec

from naru.errors import InvalidArgument

T = TypeVar("T")

_SMALL_KEY = re.compile(rb'"[a-z]\w*"\s*:')

# Words Docker spells in its own way wherever they stand in a key.
_WORDS = {
    "cdi": "CDI",
    "dns": "DNS",
    "fd": "Fd",
    "http": "Http",
    "id": "ID",
    "ids": "IDs",
    "iops": "IOps",
    "ip": "IP",
    "ips": "IPs",
    "ipam": "IPAM",
    "ipv4": "IPv4",
    "ipv6": "IPv6",
    "os": "OS",
    "uts": "UTS",
}

# Attributes whose key follows no rule.
_KEYS = {
    "cgroupns_mode": "CgroupnsMode",
    "dns": "Dns",
    "dns_options": "DnsOptions",
    "dns_search": "DnsSearch",
    "global_ipv6_address": "GlobalIPv6Address",
    "id": "Id",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "io_maximum_iops": "IOMaximumIOps",
    "oom_killed": "OOMKilled",
    "os": "Os",
    "os_version": "OsVersion",
    "parent_id": "ParentId",
    "root_fs": "RootFS",
    "rw": "RW",
    "userns_mode": "UsernsMode",
}


def docker_key(attribute: str) -> str:
    """Return the JSON key of `attribute`, by Docker's habit: `auto_remove` is `AutoRemove`."""
    known = _KEYS.get(attribute)
    if known is not None:
        return known
    return "".join(_WORDS.get(word) or word.capitalize() for word in attribute.split("_"))


class Wire(msgspec.Struct, rename=docker_key, omit_defaults=True, kw_only=True):
    """Base of every object of the Engine API."""


class LowerWire(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Base of the few objects whose keys are lower case already (stats, progress, credentials)."""


def always(default: Any, *, name: str | None = None) -> Any:
    """Declare a field that is written even while it holds `default`; lists and dicts are copied per instance.

    msgspec leaves out a field that *is* its default, and never one whose default comes from a factory of ours.
    """
    factory = default.copy if isinstance(default, list | dict) else lambda: default
    return msgspec.field(default_factory=factory, name=name)


def made(kind: type[msgspec.Struct], *, name: str | None = None) -> Any:
    """Declare a field that is always written and by default holds a new `kind()`."""
    return msgspec.field(default_factory=kind, name=name)


def named(default: Any, name: str) -> Any:
    """Declare a field under the irregular key `name`, left out while it holds `default`."""
    return msgspec.field(default=default, name=name)


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


_encoder = msgspec.json.Encoder(order=None)


def encode(value: object) -> bytes:
    """Return `value` as JSON bytes, keys in Docker's spelling."""
    return _encoder.encode(value)


def decode(kind: type[T], body: bytes | str, *, what: str = "request") -> T:
    """Return `body` as a `kind`. InvalidArgument, with the path of the wrong value, if it is not one.

    `null` is taken where a value has a default, one string where Docker takes a list of words (`Cmd`), and keys in any
    case.
    """
    try:
        found = _decoder(kind).decode(body)  # type: ignore[arg-type]
        if not _is_spelled_otherwise(kind, body):
            return found  # type: ignore[no-any-return]
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise InvalidArgument(f"invalid JSON in {what}: {err}") from err
    from naru.api.lenient import relax  # here, because only strange requests pay for it

    try:
        return msgspec.convert(relax(msgspec.json.decode(body), kind), kind)
    except msgspec.ValidationError as err:
        raise InvalidArgument(f"invalid {what}: {err}") from err
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise InvalidArgument(f"invalid JSON in {what}: {err}") from err
    except RecursionError:
        raise InvalidArgument(f"invalid JSON in {what}: nested too deeply") from None


def _is_spelled_otherwise(kind: Any, body: bytes | str) -> bool:
    """True if `body` has a key that begins with a small letter, where all of `kind` begin with a capital one."""
    if not (isinstance(kind, type) and issubclass(kind, Wire)):
        return False
    return _SMALL_KEY.search(body.encode() if isinstance(body, str) else body) is not None


def convert(kind: type[T], value: object, *, what: str = "request") -> T:
    """Return plain JSON data as a `kind`, as `decode` does."""
    return decode(kind, msgspec.json.encode(value), what=what)
