"""Words of a Dockerfile: quotes, escapes and `$` substitution, the way BuildKit's frontend reads them.

A `Lexer` holds the escape character and three switches; `expand` gives one string, `split` gives words. The
variables a text used are reported in `used`, those that were not set in `unset`: the cache and the linter ask.
Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from naru.build.syntax import SyntaxProblem

_SPECIAL_PARAMETERS = "@*#?-$!0"


@dataclass
class Lexer:
    """Reads shell-like words. `raw_*` leave quotes and escapes in; `keep_unset` leaves `$name` of unset variables."""

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    keep_unset: bool = False
    skip_quotes: bool = False
    used: set[str] = field(default_factory=set)
    unset: set[str] = field(default_factory=set)

    def expand(self, text: str, variables: Mapping[str, str]) -> str:
        """Return `text` as one word: quotes removed, variables replaced. SyntaxProblem: quotes or `${` do not close."""
        return self._read(text, variables)[0]

    def split(self, text: str, variables: Mapping[str, str]) -> list[str]:
        """Return `text` as words: split at blanks outside quotes, also at blanks that an unquoted variable brought."""
        return self._read(text, variables)[1]

    def _read(self, text: str, variables: Mapping[str, str]) -> tuple[str, list[str]]:
        scan = _Scan(self, text, variables)
        try:
            return scan.until("", raw_escapes=self.raw_escapes)
        except SyntaxProblem as problem:
            raise SyntaxProblem(f'failed to process "{text}": {problem}') from None


class _Words:
    def __init__(self) -> None:
        self.done: list[str] = []
        self._current = ""

    def add(self, text: str) -> None:
        for character in text:
            if character.isspace():
                self.close()
            else:
                self._current += character

    def add_raw(self, text: str) -> None:
        self._current += text

    def close(self) -> None:
        if self._current:
            self.done.append(self._current)
            self._current = ""


class _Scan:
    """One pass over one text."""

    def __init__(self, lexer: Lexer, text: str, variables: Mapping[str, str]) -> None:
        self._lexer = lexer
        self._text = text
        self._variables = variables
        self._at = 0
        self._raw_escapes = lexer.raw_escapes

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _take(self) -> str:
        character = self._peek()
        self._at += len(character)
        return character

    def until(self, stop: str, *, raw_escapes: bool) -> tuple[str, list[str]]:
        """Read up to and over `stop` ("" is the end of the text)."""
        before, self._raw_escapes = self._raw_escapes, raw_escapes
        try:
            return self._until(stop)
        finally:
            self._raw_escapes = before

    def _until(self, stop: str) -> tuple[str, list[str]]:
        result: list[str] = []
        words = _Words()
        while character := self._peek():
            if character == stop:
                self._take()
                words.close()
                return "".join(result), words.done
            if character == "$":
                part = self._dollar()
                words.add(part)
            elif character in "'\"" and not self._lexer.skip_quotes:
                part = self._single_quoted() if character == "'" else self._double_quoted()
                words.add_raw(part)
            elif character == self._lexer.escape:
                self._take()
                part = (character if self._raw_escapes else "") + self._take()
                words.add_raw(part)
            else:
                part = self._take()
                words.add(part)
            result.append(part)
        if stop:
            raise SyntaxProblem(f"unexpected end of statement while looking for matching {stop}")
        words.close()
        return "".join(result), words.done

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            self._at = len(self._text)
            raise SyntaxProblem("unexpected end of statement while looking for matching single-quote")
        inner = self._text[self._at + 1 : end]
        self._at = end + 1
        return f"'{inner}'" if self._lexer.raw_quotes else inner

    def _double_quoted(self) -> str:
        quote = '"' if self._lexer.raw_quotes else ""
        self._take()
        result = [quote]
        while character := self._peek():
            if character == '"':
                self._take()
                return "".join([*result, quote])
            if character == "$":
                result.append(self._dollar())
                continue
            self._take()
            if character == self._lexer.escape:
                if self._raw_escapes:
                    result.append(character)
                if not self._peek():
                    break
                if self._peek() in ('"', "$", self._lexer.escape):
                    character = self._take()
                elif self._raw_escapes:
                    continue
            result.append(character)
        raise SyntaxProblem("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self._take()
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._value(name)
            return f"${name}" if value is None and self._lexer.keep_unset else value or ""
        self._take()
        if not self._peek():
            raise SyntaxProblem("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise SyntaxProblem("syntax error: bad substitution")
        name = self._name()
        modifier = self._take()
        if modifier == "}":
            value = self._value(name)
            return f"${{{name}}}" if value is None and self._lexer.keep_unset else value or ""
        if modifier == "/":
            return self._replace(name)
        empty_is_unset = modifier == ":"
        if empty_is_unset:
            modifier = self._take()
        if not modifier:
            raise SyntaxProblem("syntax error: missing '}'")
        spelled = f":{modifier}" if empty_is_unset else modifier
        if modifier not in "+-?#%":
            raise SyntaxProblem(f"unsupported modifier ({spelled}) in substitution")
        return self._modified(name, modifier, spelled, empty_is_unset=empty_is_unset)

    def _modified(self, name: str, modifier: str, spelled: str, *, empty_is_unset: bool) -> str:
        word = self._operand("}", raw_escapes=modifier in "#%")
        value = self._value(name)
        if value is None and self._lexer.keep_unset:
            return f"${{{name}{spelled}{word}}}"
        is_unset = value is None or (empty_is_unset and not value)
        if modifier == "-":
            return word if is_unset else value or ""
        if modifier == "+":
            return "" if is_unset else word
        if modifier == "?":
            if is_unset:
                kind = "unset" if value is None else "empty"
                raise SyntaxProblem(f"{name}: {word or f'is not allowed to be {kind}'}")
            return value or ""
        if empty_is_unset:
            raise SyntaxProblem(f"unsupported modifier ({spelled}) in substitution")
        greedy = word.startswith(modifier)
        pattern = word[1:] if greedy else word
        trim = _trim_prefix if modifier == "#" else _trim_suffix
        return trim(value or "", pattern, greedy)

    def _replace(self, name: str) -> str:
        every = self._peek() == "/"
        if every:
            self._take()
        pattern = self._operand("/", raw_escapes=True)
        replacement = self._operand("}", raw_escapes=True)
        value = self._value(name)
        if value is None and self._lexer.keep_unset:
            return f"${{{name}/{'/' if every else ''}{pattern}/{replacement}}}"
        regex = re.compile(_pattern(pattern, greedy=True), re.DOTALL)
        return regex.sub(lambda _: replacement, value or "", count=0 if every else 1)

    def _operand(self, stop: str, *, raw_escapes: bool) -> str:
        try:
            return self.until(stop, raw_escapes=raw_escapes)[0]
        except SyntaxProblem:
            if self._peek():
                raise
            missing = "missing '}'" if stop == "}" else "missing '/' in ${}"
            raise SyntaxProblem(f"syntax error: {missing}") from None

    def _name(self) -> str:
        first = self._peek()
        if first.isdigit():
            match = re.compile(r"\d+").match(self._text, self._at)
        elif first and first in _SPECIAL_PARAMETERS:
            return self._take()
        else:
            match = re.compile(r"\w+").match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _value(self, name: str) -> str | None:
        value = self._variables.get(name)
        (self._lexer.unset if value is None else self._lexer.used).add(name)
        return value


def _pattern(pattern: str, *, greedy: bool) -> str:
    """Return the regular expression of a shell pattern in which only `*`, `?` and backslash are special."""
    result = []
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            result.append(".*" if greedy else ".*?")
        elif character == "?":
            result.append(".")
        elif character == "\\":
            escaped = next(characters, "")
            if not escaped or escaped not in "*?\\}/":
                reason = f"invalid escape '\\{escaped}'"
                raise SyntaxProblem(f"invalid pattern ({pattern}) in substitution: {reason}")
            result.append(re.escape(escaped))
        else:
            result.append(re.escape(character))
    return "".join(result)


def _trim_prefix(value: str, pattern: str, greedy: bool) -> str:
    match = re.compile(_pattern(pattern, greedy=greedy), re.DOTALL).match(value)
    return value[match.end() :] if match else value


def _trim_suffix(value: str, pattern: str, greedy: bool) -> str:
    """Try every start: the leftmost that reaches the end is the longest suffix, the rightmost the shortest."""
    regex = re.compile(_pattern(pattern, greedy=True), re.DOTALL)
    starts = range(len(value) + 1) if greedy else range(len(value), -1, -1)
    for start in starts:
        if regex.fullmatch(value, start):
            return value[:start]
    return value
