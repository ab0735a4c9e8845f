"""Path patterns: Go's `filepath.Match` for COPY sources, and .dockerignore's rules with `**` and `!`.

Paths are relative, with `/`, never empty. moby/patternmatcher (behaviour), Dockerfile reference, ".dockerignore file".
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from naru.errors import InvalidArgument

_WILDCARDS = re.compile(r"[*?\[\\]")


def has_wildcard(pattern: str) -> bool:
    """Say whether `pattern` is more than a plain path."""
    return _WILDCARDS.search(pattern) is not None


@functools.lru_cache(maxsize=1024)
def compile_pattern(pattern: str, *, double_star: bool) -> re.Pattern[str]:
    """Return the regular expression that matches what `pattern` does; use `fullmatch`.

    `*` and `?` stop at a slash; with `double_star`, `**` does not. InvalidArgument: a bracket that does not close.
    """
    result: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            if double_star and pattern.startswith("*", position):
                position += 1
                if pattern.startswith("/", position):
                    position += 1
                result.append(".*" if position >= len(pattern) else "(?:.*/)?")
            else:
                result.append("[^/]*")
        elif character == "?":
            result.append("[^/]")
        elif character == "[":
            set_, position = _bracket(pattern, position)
            result.append(set_)
        elif character == "\\":
            if position == len(pattern):
                raise InvalidArgument(f"syntax error in pattern: {pattern}")
            result.append(re.escape(pattern[position]))
            position += 1
        else:
            result.append(re.escape(character))
    return re.compile("".join(result), re.DOTALL)


def _bracket(pattern: str, position: int) -> tuple[str, int]:
    """Return the character set that starts behind the `[` and the position behind its `]`."""
    negated = pattern.startswith("^", position)
    position += negated
    parts: list[str] = []
    while position < len(pattern) and (pattern[position] != "]" or not parts):
        if pattern[position] == "\\":
            position += 1
        elif pattern[position] == "-" and parts and not pattern.startswith("]", position + 1):
            parts.append("-")
            position += 1
            continue
        parts.append(re.escape(pattern[position : position + 1]))
        position += 1
    if position >= len(pattern):
        raise InvalidArgument(f"syntax error in pattern: {pattern}")
    return f"(?!/)[{'^' if negated else ''}{''.join(parts)}]", position + 1


@dataclass(frozen=True, slots=True)
class _Rule:
    matches: re.Pattern[str]
    keeps: bool
    pattern: str


class PathRules:
    """An ordered list of patterns; the last one that matches a path or one of its parents decides.

    `read_ignore_file` gives the patterns of a .dockerignore, `COPY --exclude` its own.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = tuple(patterns)
        self._rules = [rule for pattern in self.patterns if (rule := _rule(pattern)) is not None]
        self._has_exceptions = any(rule.keeps for rule in self._rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, path: str) -> bool:
        """Say whether `path` is left out."""
        excluded = False
        for rule in self._rules:
            if rule.keeps == excluded and _matches(rule.matches, path):
                excluded = not rule.keeps
        return excluded

    def prunes(self, directory: str) -> bool:
        """Say whether everything below `directory`, which is left out itself, is left out too."""
        if not self._has_exceptions:
            return True
        prefix = directory + "/"
        return not any(rule.keeps and _may_be_below(rule.pattern, prefix) for rule in self._rules)


def _rule(text: str) -> _Rule | None:
    keeps = text.startswith("!")
    pattern = text[1:].strip() if keeps else text.strip()
    if keeps and not pattern:
        raise InvalidArgument('illegal exclusion pattern: "!"')
    pattern = posixpath.normpath(pattern.lstrip("/")) if pattern.strip("/") else ("." if pattern else "")
    if not pattern:
        return None
    return _Rule(compile_pattern(pattern, double_star=True), keeps, pattern)


def _matches(regex: re.Pattern[str], path: str) -> bool:
    if regex.fullmatch(path):
        return True
    end = path.rfind("/")
    while end > 0:
        if regex.fullmatch(path, 0, end):
            return True
        end = path.rfind("/", 0, end)
    return False


def _may_be_below(pattern: str, prefix: str) -> bool:
    """Compare the pattern's leading plain part with the directory: no match there, nothing below is kept."""
    found = _WILDCARDS.search(pattern)
    plain = pattern if found is None else pattern[: found.start()]
    return plain.startswith(prefix) or prefix.startswith(plain if found else plain + "/")


def read_ignore_file(data: bytes) -> tuple[str, ...]:
    """Return the patterns of a .dockerignore, comments and blank lines dropped, paths cleaned."""
    patterns: list[str] = []
    for line in data.decode("utf-8-sig", "surrogateescape").splitlines():
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        sign = "!" if pattern.startswith("!") else ""
        pattern = pattern[len(sign) :].strip()
        if pattern:
            pattern = posixpath.normpath(pattern)
            if len(pattern) > 1:
                pattern = pattern.lstrip("/")
        patterns.append(sign + pattern)
    return tuple(patterns)
