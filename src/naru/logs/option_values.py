"""Values of `--log-opt`, as Go's and Docker's parsers read them. InvalidArgument, in their words, for anything else."""

from __future__ import annotations

import re

from naru.errors import InvalidArgument

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)(?:i?b)?\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+|0")
_PART = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def size_bytes(text: str) -> int:
    """Return `10m` as bytes."""
    found = _SIZE.match(text.strip())
    if found is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def boolean(text: str) -> bool:
    """Return `true`, `1`, `F` … as a boolean."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidArgument(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def duration_s(text: str) -> float:
    """Return `1m30s` as seconds."""
    if not _DURATION.fullmatch(text):
        raise InvalidArgument(f'time: invalid duration "{text}"')
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def count(text: str) -> int:
    """Return a whole number, 0 or more."""
    if not text.isdecimal():
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)
