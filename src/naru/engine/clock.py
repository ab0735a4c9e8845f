"""Time as the Engine API writes it: RFC 3339 in UTC with up to nine digits, and year 1 for "never"."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from naru.api import moment
from naru.errors import InvalidArgument

NEVER = "0001-01-01T00:00:00Z"


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def rfc3339(when: datetime | None) -> str:
    """Return `when` as Docker prints it in inspect; None is Go's zero time."""
    if when is None:
        return NEVER
    text = when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return text + "000Z"


def nanoseconds(text: str) -> int:
    """Return a client's `since`/`until` as nanoseconds since the epoch.

    Accepts Unix seconds with a fraction ("1700000000.123456789") and RFC 3339. InvalidArgument: neither.
    """
    if text in ("", "0"):
        return 0
    try:
        return moment.nanoseconds(text)
    except ValueError:
        raise InvalidArgument(f'invalid value for time: failed to parse value as time or duration: "{text}"') from None


def humanize(since: datetime) -> str:
    """Return how long ago `since` was, in the words of `docker ps` ("About a minute", "3 hours")."""
    seconds = max(0, int(time.time() - since.timestamp()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if round(seconds / 3600) == 1:
        return "About an hour"
    if hours < 48:
        return f"{round(seconds / 3600)} hours"
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"
