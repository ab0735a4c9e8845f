"""Sizes, durations, CPU counts and times as people write and read them, in Docker's notations."""

from __future__ import annotations

from naru.template.times import parse_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

_BINARY = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DECIMAL_NAMES = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY_NAMES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def parse_bytes(text: str) -> int:
    """Return the bytes of `512m`, `1.5g`, `64MiB`, or -1 for `-1`. ValueError in Docker's words."""
    if text.strip() == "-1":
        return -1
    end = max((index for index, char in enumerate(text) if char in "0123456789. "), default=-1)
    if end < 0:
        raise ValueError(f"invalid size: '{text}'")
    suffix = text[end + 1 :].lower()
    try:
        size = float(text[: end + 1])
    except ValueError:
        raise ValueError(f"invalid size: '{text}'") from None
    if size < 0:
        raise ValueError(f"invalid size: '{text}'")
    if suffix in ("", "b"):
        return int(size)
    if suffix[0] not in _BINARY or suffix[1:] not in ("", "b", "ib"):
        raise ValueError(f"invalid suffix: '{suffix}'")
    return int(size * _BINARY[suffix[0]])


def parse_duration(text: str) -> int:
    """Return the nanoseconds of `1h30m`, `1.5s`, `-2ms`, `0`. ValueError in Docker's words."""
    wrong = ValueError(f'time: invalid duration "{text}"')
    rest = text.removeprefix("-").removeprefix("+")
    if rest == "0":
        return 0
    total = 0.0
    if not rest:
        raise wrong
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        letters = len(rest[digits:]) - len(rest[digits:].lstrip("nuµsmh"))
        number, unit = rest[:digits], rest[digits : digits + letters]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        try:
            total += float(number) * _NANOSECONDS[unit]
        except (ValueError, KeyError):
            raise wrong from None
        rest = rest[digits + letters :]
    return round(-total if text.startswith("-") else total)


def parse_cpus(text: str) -> int:
    """Return the billionths of a CPU in `1.5`. ValueError: not a number, or finer than that."""
    from fractions import Fraction

    try:
        nano = Fraction(text) * 1_000_000_000
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if nano.denominator != 1:
        raise ValueError("value is too precise")
    return int(nano)


def human_size(size_bytes: float, digits: int = 4) -> str:
    """Return `87.2MB`: powers of 1000, at most `digits` significant digits."""
    return _scaled(size_bytes, 1000.0, _DECIMAL_NAMES, digits)


def human_binary_size(size_bytes: float, digits: int = 4) -> str:
    """Return `23.54GiB`: powers of 1024."""
    return _scaled(size_bytes, 1024.0, _BINARY_NAMES, digits)


def _scaled(size: float, step: float, names: tuple[str, ...], digits: int) -> str:
    index = 0
    while size >= step and index < len(names) - 1:
        size /= step
        index += 1
    return f"{size:.{digits}g}{names[index]}"


def human_duration(seconds: float) -> str:
    """Return how long that is, in one unit: `5 minutes`, `About an hour`, `2 weeks`."""
    minutes, hours = int(seconds / 60), int(seconds / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(moment: datetime | None) -> str:
    """Return `5 minutes ago`; `N/A` for the zero time and None."""
    import time

    if moment is None or moment.year <= 1:
        return "N/A"
    return f"{human_duration(time.time() - moment.timestamp())} ago"


def local_time(moment: datetime) -> str:
    """Return the time as Docker's lists show it: `2026-11-23 22:51:07 +0000 UTC`."""
    local = moment.astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S %z} {local.tzname()}"


def calendar_time(text: str) -> str:
    """Return an RFC 3339 time as `Thu May  7 21:09:36 2026`; what is none as it is."""
    try:
        return f"{parse_time(text):%a %b %e %H:%M:%S %Y}"
    except ValueError:
        return text


def timestamp(text: str, now: float | None = None) -> str:
    """Return `--since`/`--until` for the API: seconds since 1970 from a duration ago, a local time, or such seconds.

    InvalidArgument is the daemon's to raise for the rest: it is passed through.
    """
    import time
    from datetime import datetime

    if not text or text.replace(".", "", 1).isdigit():
        return text
    try:
        nano = int((time.time() if now is None else now) * 1e9) - parse_duration(text)
        return f"{nano // 10**9}.{nano % 10**9:09d}"
    except ValueError:
        pass
    try:
        has_zone = text.endswith("Z") or "+" in text or text.count("-") > 2
        moment = parse_time(text) if has_zone else datetime.fromisoformat(text)
        return f"{int(moment.timestamp())}.{moment.microsecond * 1000:09d}"
    except ValueError:
        return text
