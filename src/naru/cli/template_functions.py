"""The functions a `--format` template may call: Go's own and Docker's, on JSON's values; and how Go prints those."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def go_text(value: Any) -> str:
    """Return the value as Go prints it: `true`, `[a b]`, `map[k:v]`, `<no value>`."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) >= 1e21 else repr(value).removesuffix(".0")
    if isinstance(value, Mapping):
        if getattr(value, "is_struct", False):
            return "{" + " ".join(_inner(one) for one in value.values()) + "}"
        return "map[" + " ".join(f"{key}:{_inner(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(_inner(one) for one in value) + "]"
    if callable(value):
        return go_text(value())
    return str(value)


def _inner(value: Any) -> str:
    return "<nil>" if value is None else go_text(value)


def is_true(value: Any) -> bool:
    """Return what `if` makes of a value: false for nothing, zero and empty."""
    return bool(value)


def _json(value: Any) -> str:
    plain = {key: one for key, one in value.items() if not callable(one)} if isinstance(value, Mapping) else value
    if type(plain) is dict and type(value) is not dict:
        plain = dict(sorted(plain.items()))
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif value is None:
            raise ValueError("index of untyped nil")
        else:
            if not isinstance(key, int):
                raise TypeError(f"cannot index slice/array with type {type(key).__name__}")
            if not 0 <= key < len(value):
                raise IndexError(f"reflect: slice index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
    return value


def _slice(value: Any, start: int = 0, end: int | None = None) -> Any:
    if start < 0 or (end is not None and not start <= end <= len(value)) or start > len(value):
        raise IndexError(f"index out of range: {end if end is not None else start}")
    return value[start:end]


def _printf(form: str, *values: Any) -> str:
    remaining = list(values)

    def one(match: re.Match[str]) -> str:
        flags, verb = match[1], match[2]
        if verb == "%":
            return "%"
        if not remaining:
            return f"%!{verb}(MISSING)"
        value = remaining.pop(0)
        if verb == "q":
            return json.dumps(go_text(value), ensure_ascii=False)
        if verb in "dxXobeEfgG" and isinstance(value, (int, float)) and verb != "b":
            return f"%{flags}{verb}" % value
        if verb == "b":
            return format(int(value), "b")
        if verb == "t":
            return go_text(value)
        if verb in "xX" and isinstance(value, str):
            return value.encode().hex() if verb == "x" else value.encode().hex().upper()
        if verb == "T":
            return {str: "string", bool: "bool", int: "int", float: "float64"}.get(type(value), "interface {}")
        if verb == "c":
            return chr(int(value))
        return f"%{flags}s" % (_inner(value) if value is None else go_text(value))

    text = re.sub(r"%([-+ #0]*\d*(?:\.\d+)?)([a-zA-Z%])", one, form)
    return text + ("%!(EXTRA " + ", ".join(go_text(value) for value in remaining) + ")" if remaining else "")


def _print(*values: Any) -> str:
    text, before_is_text = "", True
    for index, value in enumerate(values):
        is_text = isinstance(value, str)
        text += (" " if index and not is_text and not before_is_text else "") + _inner(value)
        before_is_text = is_text
    return text


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(one: Any, other: Any) -> bool:
        if isinstance(one, str) is not isinstance(other, str):
            raise TypeError("incompatible types for comparison")
        return test(one, other)

    return compare


def _equal(first: Any, *others: Any) -> bool:
    return any(first == other and isinstance(first, bool) is isinstance(other, bool) for other in others)


def _title(text: str) -> str:
    return re.sub(r"(?:^|(?<=\s))\S", lambda match: match[0].upper(), text)


def _truncate(text: str, length: int) -> str:
    return text[:length]


def _html(*values: Any) -> str:
    text = _print(*values)
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(raw, safe)
    return text


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": _equal,
    "ne": lambda one, other: not _equal(one, other),
    "lt": _compare(lambda one, other: one < other),
    "le": _compare(lambda one, other: one <= other),
    "gt": _compare(lambda one, other: one > other),
    "ge": _compare(lambda one, other: one >= other),
    "not": lambda value: not is_true(value),
    "len": lambda value: len(value or ()),
    "index": _index,
    "slice": _slice,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: " ".join(_inner(value) for value in values) + "\n",
    "html": _html,
    "json": _json,
    "join": lambda values, separator: separator.join(go_text(value) for value in values or ()),
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": _title,
    "pad": lambda text, before, after: " " * before + text + " " * after if text else text,
    "truncate": _truncate,
}
