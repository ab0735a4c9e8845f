"""Times of the Engine API (RFC 3339) as Go reads and prints them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime


def parse_time(text: str) -> datetime:
    """Return an RFC 3339 time with any number of fraction digits. ValueError: it is not one."""
    from datetime import UTC, datetime

    head, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        head += f".{rest[:digits][:6]:0<6}{rest[digits:]}"
    moment = datetime.fromisoformat(head.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def exact_time(text: str) -> str:
    """Return an RFC 3339 time as Go prints it: with its fraction, in its own zone. ValueError: it is not one."""
    moment = parse_time(text)
    fraction = ""
    if "." in text:
        rest = text.partition(".")[2]
        fraction = rest[: len(rest) - len(rest.lstrip("0123456789"))].rstrip("0")
    zone = "UTC" if not moment.utcoffset() else f"{moment:%z}"
    return f"{moment:%Y-%m-%d %H:%M:%S}{'.' if fraction else ''}{fraction} {moment:%z} {zone}"
