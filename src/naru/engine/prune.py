"""The filters that the prune family shares: `until=24h` and `label`, `label!`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from naru.engine.clock import nanoseconds, now
from naru.errors import InvalidArgument

Filters = Mapping[str, Sequence[str]]

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?\Z")
AGE_AND_LABELS = frozenset({"until", "label", "label!"})


def check_filters(filters: Filters, known: Collection[str]) -> None:
    """InvalidArgument: `filters` has one that is not `known`, which would remove more than was meant."""
    for key in filters:
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'")


def parse_until(filters: Filters) -> datetime | None:
    """Return the moment of `until`: a Go duration before now, or a time. InvalidArgument: neither, or two."""
    values = filters.get("until", ())
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    if not values:
        return None
    duration = _DURATION.match(values[0])
    if duration and values[0]:
        hours, minutes, seconds = (float(part or 0) for part in duration.groups())
        return now() - timedelta(hours=hours, minutes=minutes, seconds=seconds)
    try:
        return datetime.fromtimestamp(nanoseconds(values[0]) / 1e9, UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument(f"invalid filter 'until={values[0]}'") from None


def truth(filters: Filters, key: str) -> bool | None:
    """Return what a filter that is true or false says, None if it was not asked for. InvalidArgument: it is neither."""
    values = filters.get(key)
    if not values:
        return None
    for words, value in ((("1", "true"), True), (("0", "false"), False)):
        if values[0] in words:
            return value
    raise InvalidArgument(f"invalid filter '{key}=[{values[0]}]'")


def is_pruned(labels: Mapping[str, str], created_at: datetime, filters: Filters, until: datetime | None) -> bool:
    """True if something with these labels and age is meant by the filters."""
    if until is not None and created_at > until:
        return False
    return all(_has(labels, wanted) for wanted in filters.get("label", ())) and not any(
        _has(labels, unwanted) for unwanted in filters.get("label!", ())
    )


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    name, separator, value = wanted.partition("=")
    return name in labels and (not separator or labels[name] == value)
