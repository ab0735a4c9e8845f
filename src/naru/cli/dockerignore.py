"""`.dockerignore`: which files of a build context stay at home.

Patterns as in Go's filepath.Match with `**` for any directories; `!` takes back; the last that matches decides; a
directory's exclusion holds for what is in it. Dockerfile reference, ".dockerignore file"
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from naru.errors import InvalidArgument


class Ignore:
    """The patterns of one file, in order."""

    def __init__(self, lines: Iterable[str]) -> None:
        """InvalidArgument: a pattern cannot be understood."""
        self._patterns: list[tuple[re.Pattern[str], bool, str]] = []
        for line in lines:
            text = line.strip()
            if not text or line.startswith("#"):
                continue
            is_exception = text.startswith("!")
            pattern = text[1:].strip() if is_exception else text
            if not pattern:
                raise InvalidArgument('illegal exclusion pattern: "!"')
            pattern = posixpath.normpath(pattern).lstrip("/")
            if pattern != ".":
                self._patterns.append((_compiled(pattern), is_exception, pattern))

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def excludes(self, path: str) -> bool:
        """True if `path` (relative, with slashes) is not to be sent."""
        excluded = False
        for pattern, is_exception, _ in self._patterns:
            if is_exception is excluded and any(pattern.fullmatch(one) for one in _with_parents(path)):
                excluded = not is_exception
        return excluded

    def may_hold_exception(self, directory: str) -> bool:
        """True if something in an excluded `directory` may be taken back by a `!` pattern."""
        for _, is_exception, text in self._patterns:
            if is_exception and (text.startswith(f"{directory}/") or any(char in text for char in "*?[")):
                return True
        return False


def _with_parents(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(len(parts), 0, -1))


def _compiled(pattern: str) -> re.Pattern[str]:
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            parts.append("(?:.*/)?")
            position += 3
        elif pattern.startswith("**", position):
            parts.append(".*")
            position += 2
        elif pattern[position] == "*":
            parts.append("[^/]*")
            position += 1
        elif pattern[position] == "?":
            parts.append("[^/]")
            position += 1
        elif pattern[position] == "[" and "]" in pattern[position + 2 :]:
            end = pattern.index("]", position + 2)
            inside = pattern[position + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{inside}]")
            position = end + 1
        elif pattern[position] == "\\" and position + 1 < len(pattern):
            parts.append(re.escape(pattern[position + 1]))
            position += 2
        else:
            parts.append(re.escape(pattern[position]))
            position += 1
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise InvalidArgument(f"syntax error in pattern: {pattern}: {error}") from None
