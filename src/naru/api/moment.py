"""Moments as clients and logs write them, exact to the nanosecond, which neither `float` nor `datetime` is."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_SECONDS = re.compile(r"(-?\d+)(?:\.(\d*))?")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d)?)?)(?:[.,](\d+))?([Zz]|[+-]\d\d:?\d\d)?")
_NANO = 1_000_000_000


def nanoseconds(text: str) -> int:
    """Return Unix seconds with a fraction ("1700000000.123456789"), or RFC 3339, as nanoseconds since 1970.

    ValueError: neither.
    """
    found = _SECONDS.fullmatch(text)
    if found:
        return int(found[1]) * _NANO + _fraction(found[2])
    found = _RFC3339.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no time")
    moment = datetime.fromisoformat(found[1] + (found[3] or ""))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * _NANO + _fraction(found[2])


def _fraction(digits: str | None) -> int:
    return int((digits or "0").ljust(9, "0")[:9])
