"""Command-line flags with the semantics of the Docker CLI's: declarations, parsing, and how help shows them.

`--flag=value`, `--flag value`, `-f value`, `-fvalue`, `-f=value`, `-dit`, `--rm=false`, `--`; a value may begin with a
dash (`--memory-swap -1`). Why not `argparse`: it guesses whether `-1` is a value, abbreviates, knows no `--rm=false`,
words its errors its own way, and costs 7 ms of start-up where this costs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from naru.cli import units
from naru.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BOOL = "bool"
STRING = "string"
INT = "int"
LIST = "list"
STRINGS = "strings"
MAP = "map"
STRING_TO_STRING = "stringToString"
BYTES = "bytes"
DURATION = "duration"
DECIMAL = "decimal"


class UsageError(InvalidArgument):
    """The command line is wrong; printed with the command's usage. `exit_code` is Docker's for this mistake.

    `similar`: flags that may have been meant.
    """

    def __init__(self, message: str, *, exit_code: int = 125, advice: str = "Run", similar: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.advice = advice
        self.similar = similar


class Flag:
    """One flag: `short` without dash or ""; `kind` says how its value is read; `shown` is its kind's name in help."""

    __slots__ = ("about", "default", "is_hidden", "kind", "long", "short", "shown")

    def __init__(
        self,
        long: str,
        short: str = "",
        kind: str = BOOL,
        about: str = "",
        *,
        default: Any = None,
        shown: str = "",
        is_hidden: bool = False,
    ) -> None:
        self.long = long
        self.short = short
        self.kind = kind
        self.about = about
        self.default = default
        self.shown = shown or ("" if kind == BOOL else kind)
        self.is_hidden = is_hidden

    @property
    def label(self) -> str:
        """Return the flag as error messages name it."""
        return f"-{self.short}, --{self.long}" if self.short else f"--{self.long}"


def _boolean(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _integer(text: str) -> int:
    try:
        return int(text, 0) if text.lower().lstrip("+-")[:2] in ("0x", "0b", "0o") else int(text)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def comma_separated(text: str) -> list[str]:
    """Return the fields of a line of CSV."""
    if '"' not in text:
        return text.split(",")
    import csv

    return next(csv.reader([text]))


def _key_value(text: str) -> str:
    if not text.partition("=")[0].strip():
        raise ValueError(f"invalid argument: {text}")
    return text


def _pair(text: str) -> str:
    if "=" not in text:
        raise ValueError(f"{text} must be formatted as key=value")
    return text


_READERS: dict[str, Callable[[str], Any]] = {
    BOOL: _boolean,
    INT: _integer,
    STRING: str,
    LIST: lambda text: [text],
    STRINGS: comma_separated,
    MAP: lambda text: [_key_value(text)],
    STRING_TO_STRING: lambda text: [_pair(one) for one in comma_separated(text)],
    BYTES: units.parse_bytes,
    DURATION: units.parse_duration,
    DECIMAL: units.parse_cpus,
}
_EMPTY: dict[str, Any] = {BOOL: False, INT: 0, STRING: "", BYTES: 0, DURATION: 0, DECIMAL: 0}


class Values:
    """The values of one command line's flags, by long name."""

    def __init__(self, flags: Iterable[Flag]) -> None:
        self._flags = {flag.long: flag for flag in flags}
        self._short = {flag.short: flag for flag in self._flags.values() if flag.short}
        self._given: dict[str, Any] = {}

    def given(self, name: str) -> bool:
        """True if the flag was on the command line."""
        return name in self._given

    def on(self, name: str) -> bool:
        """Return a boolean flag."""
        return bool(self._value(name))

    def text(self, name: str) -> str:
        """Return a string flag, "" if absent."""
        return str(self._value(name))

    def number(self, name: str) -> int:
        """Return an integer: also bytes, durations in nanoseconds and CPUs in billionths."""
        return int(self._value(name))

    def many(self, name: str) -> list[str]:
        """Return a repeatable flag's values in order."""
        found = self._value(name)
        return [str(one) for one in found] if found else []

    def map(self, name: str) -> dict[str, str]:
        """Return repeated `key=value`s; a key alone has the value ""."""
        return {key: value for key, _, value in (pair.partition("=") for pair in self.many(name))}

    def set(self, name: str, value: Any) -> None:
        """Override a flag, as if it had been given."""
        self._given[name] = value

    def _value(self, name: str) -> Any:
        if name in self._given:
            return self._given[name]
        flag = self._flags[name]
        return flag.default if flag.default is not None else _EMPTY.get(flag.kind, ())

    def parse(self, arguments: Sequence[str], *, interspersed: bool) -> list[str]:
        """Read flags from `arguments` and return the others; not `interspersed`: the first other ends the flags."""
        rest: list[str] = []
        position = 0
        while position < len(arguments):
            argument = arguments[position]
            position += 1
            if argument == "--":
                return rest + list(arguments[position:])
            if not argument.startswith("-") or argument == "-":
                rest.append(argument)
                if not interspersed:
                    return rest + list(arguments[position:])
            elif argument.startswith("--"):
                position += self._long(argument, arguments[position : position + 1])
            else:
                position += self._shorts(argument, arguments[position : position + 1])
        return rest

    def _long(self, argument: str, following: Sequence[str]) -> int:
        name, has_value, value = argument[2:].partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {argument}")
        flag = self._flags.get(name)
        if flag is None:
            raise UsageError(f"unknown flag: --{name}", similar=self._similar(name))
        if has_value:
            self._put(flag, value)
        elif flag.kind == BOOL:
            self._put(flag, "true")
        elif not following:
            raise UsageError(f"flag needs an argument: --{name}")
        else:
            self._put(flag, following[0])
            return 1
        return 0

    def _similar(self, name: str) -> list[str]:
        import difflib

        shown = [flag.long for flag in self._flags.values() if not flag.is_hidden]
        return [f"--{one}" for one in difflib.get_close_matches(name, shown, n=2, cutoff=0.7)]

    def _shorts(self, argument: str, following: Sequence[str]) -> int:
        letters = argument[1:]
        for index, letter in enumerate(letters):
            flag = self._short.get(letter)
            if flag is None:
                raise UsageError(f"unknown shorthand flag: {letter!r} in -{letters[index:]}")
            rest = letters[index + 1 :]
            if rest.startswith("="):
                self._put(flag, rest[1:])
                return 0
            if flag.kind == BOOL:
                self._put(flag, "true")
                continue
            if rest:
                self._put(flag, rest)
                return 0
            if not following:
                raise UsageError(f"flag needs an argument: {letter!r} in -{letters[index:]}")
            self._put(flag, following[0])
            return 1
        return 0

    def _put(self, flag: Flag, text: str) -> None:
        try:
            value = _READERS[flag.kind](text)
        except ValueError as error:
            raise UsageError(f'invalid argument "{text}" for "{flag.label}" flag: {error}') from None
        if isinstance(value, list):
            value = [*self._given.get(flag.long, []), *value]
        self._given[flag.long] = value


def describe(flags: Iterable[Flag], width: int) -> list[str]:
    """Return help's lines for `flags`, in alphabetical order, wrapped at `width` columns."""
    rows: list[tuple[str, str]] = []
    for flag in sorted(flags, key=lambda flag: flag.long):
        if not flag.is_hidden:
            head = f"  -{flag.short}, " if flag.short else "      "
            rows.append((f"{head}--{flag.long} {flag.shown}".rstrip(), flag.about + _default_note(flag)))
    indent = max((len(head) for head, _ in rows), default=0) + 3
    lines: list[str] = []
    for head, about in rows:
        wrapped = wrap(about, max(width - indent, 24))
        lines.append(head.ljust(indent) + wrapped[0])
        lines += [" " * indent + more for more in wrapped[1:]]
    return lines


def wrap(text: str, width: int) -> list[str]:
    """Break `text` at spaces into lines of at most `width` columns."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _default_note(flag: Flag) -> str:
    if flag.default in (None, False, "", 0) or flag.kind in (LIST, MAP):
        return ""
    return f' (default "{flag.default}")' if flag.kind == STRING else f" (default {str(flag.default).lower()})"
