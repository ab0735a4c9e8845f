"""The values of templates that JSON has no word for, and how Go prints and encodes them all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Row(dict[str, object]):
    """A line's fields, of the type named in the error for one that it does not have. Functions are its methods."""

    kind = "*formatter.Context"

    def cell(self, field: str) -> str:
        """Return the field as a table without a template shows it."""
        return go_text(self[field])


class Headers(dict[str, object]):
    """A table's column titles by field: what has none shows as `<no value>`."""


class Struct(dict[str, object]):
    """A document whose fields are known: prints as their values; `optional` ones are not encoded when empty.

    `kind` is its type in the error for a field that it does not have; "": the field counts as missing from a map.
    """

    def __init__(
        self, values: Mapping[str, object] | None = None, *, optional: Iterable[str] = (), kind: str = ""
    ) -> None:
        super().__init__(values or {})
        self.optional = frozenset(optional)
        self.kind = kind

    def named(self, name: str) -> str | None:
        """Return the key of the field that Go calls `name`: spelled alike but for capitals (`ID` is `Id`)."""
        if name in self:
            return name
        lowered = name.lower()
        return next((key for key in self if key.lower() == lowered), None)


class Texts(dict[str, str]):
    """A map of strings: what is not in it is empty."""


class NilMap(Texts):
    """A map that was not sent: prints as an empty one, encodes as null."""


class NilList(list[object]):
    """A list that was not sent: prints as an empty one, encodes as null."""


class NilPointer:
    """An object that there is not: prints as `<nil>`, encodes as null."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


NIL = NilPointer()


class Duration(int):
    """Nanoseconds that print as a duration."""


class Time(str):
    """A time of RFC 3339, the end of whose fraction is cut of zeros; prints as Go's times do."""

    def __new__(cls, text: str = "0001-01-01T00:00:00Z") -> Time:
        head, _, rest = text.partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        fraction = digits.rstrip("0")
        return super().__new__(
            cls, f"{head}.{fraction}{rest[len(digits) :]}" if fraction else head + rest[len(digits) :]
        )


class Missing:
    """What a map has no entry for: false where that is asked, an error where it is shown or looked into."""

    __slots__ = ("message",)

    def __init__(self, message: str) -> None:
        self.message = message

    def __bool__(self) -> bool:
        return False


def go_text(value: Any) -> str:
    """Return the value as Go prints it: `true`, `[a b]`, `map[k:v]`, `{v w}`, `<nil>`."""
    if isinstance(value, Time):
        from naru.template.times import exact_time  # few templates show one

        return exact_time(value)
    if isinstance(value, str):
        return value
    if value is None or value is NIL:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Duration):
        return go_duration(value)
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) >= 1e21 else repr(value).removesuffix(".0")
    if isinstance(value, Struct):
        return "{" + " ".join(go_text(one) for one in value.values()) + "}"
    if isinstance(value, Mapping):
        shown = {key: one for key, one in value.items() if not callable(one)}
        return "map[" + " ".join(f"{key}:{go_text(shown[key])}" for key in sorted(shown)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(go_text(one) for one in value) + "]"
    if callable(value):
        return go_text(value())
    return str(value)


def go_json(value: Any) -> str:
    """Return the value as Go encodes it, without spaces; rows sorted and with HTML's signs escaped, as Docker's are."""
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
    return escaped(text) if _has_rows(value) else text


def _has_rows(value: Any) -> bool:
    if isinstance(value, Row):
        return True
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_has_rows(one) for one in inner if isinstance(one, (Mapping, list)))


def escaped(text: str) -> str:
    """Return JSON with the signs of HTML escaped, as Go's encoder does unless told otherwise."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    if isinstance(value, (NilList, NilMap, NilPointer, Missing)):
        return None
    if isinstance(value, Struct):
        return {key: _plain(one) for key, one in value.items() if one or key not in value.optional}
    if isinstance(value, Row):
        return {key: _plain(value[key]) for key in sorted(value) if not callable(value[key])}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def go_duration(nanoseconds: int) -> str:
    """Return a duration as Go prints it: `1m30s`, `1.5s`, `20ms`, `0s`."""
    if abs(nanoseconds) < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if abs(nanoseconds) >= size:
                return f"{nanoseconds / size:.9g}{unit}"
        return "0s"
    sign, left = ("-" if nanoseconds < 0 else ""), abs(nanoseconds)
    minutes, left = divmod(left, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{left // 1_000_000_000}.{left % 1_000_000_000:09d}".rstrip("0").rstrip(".")
    return sign + (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"
