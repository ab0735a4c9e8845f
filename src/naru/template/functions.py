"""The functions a `--format` template may call: Go's own and Docker's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from naru.template.values import Struct, Texts, go_json, go_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_true(value: Any) -> bool:
    """Return what `if` makes of a value: false for nothing, zero and empty; true for every document."""
    return isinstance(value, Struct) or bool(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "" if isinstance(value, Texts) else None)
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
        if verb in "dxXoeEfgG" and isinstance(value, (int, float)):
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
        return f"%{flags}s" % (go_text(value))

    text = re.sub(r"%([-+ #0]*\d*(?:\.\d+)?)([a-zA-Z%])", one, form)
    return text + ("%!(EXTRA " + ", ".join(go_text(value) for value in remaining) + ")" if remaining else "")


def _print(*values: Any) -> str:
    text, before_is_text = "", True
    for index, value in enumerate(values):
        is_text = isinstance(value, str)
        text += (" " if index and not is_text and not before_is_text else "") + go_text(value)
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


def _js(*values: Any) -> str:
    text = _print(*values)
    signs = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
    return "".join(signs.get(char, f"\\u{ord(char):04X}" if ord(char) < 32 else char) for char in text)


def _urlquery(*values: Any) -> str:
    from urllib.parse import quote_plus

    return quote_plus(_print(*values), safe="~")


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
    "println": lambda *values: " ".join(go_text(value) for value in values) + "\n",
    "html": _html,
    "js": _js,
    "urlquery": _urlquery,
    "call": lambda function, *values: function(*values),
    "json": go_json,
    "join": lambda values, separator: separator.join(go_text(value) for value in values or ()),
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": _title,
    "pad": lambda text, before, after: " " * before + text + " " * after if text else text,
    "truncate": _truncate,
}
