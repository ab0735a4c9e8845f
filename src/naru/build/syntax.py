"""Where a Dockerfile is wrong: the one error of the language, with file, line and a suggestion.

The text of `str(error)` is Docker's ("dockerfile parse error on line 3: unknown instruction: RUNN (did you mean
RUN?)"); `file`, `line` and `reason` carry the parts for clients that draw their own.
"""

from __future__ import annotations

from collections.abc import Iterable

from naru.errors import InvalidArgument


class DockerfileError(InvalidArgument):
    """The Dockerfile itself is wrong. `line` counts from 1; 0 where the whole file is meant."""

    def __init__(self, reason: str, *, line: int = 0, file: str = "Dockerfile", hint: str = "") -> None:
        super().__init__(f"dockerfile parse error on line {line}: {reason}" if line else reason, hint=hint)
        self.reason = reason
        self.line = line
        self.file = file


class SyntaxProblem(Exception):
    """Something wrong with a piece of text, raised where its line is not known; the parser adds the line."""


def did_you_mean(word: str, choices: Iterable[str], *, case_sensitive: bool = True) -> str:
    """Return " (did you mean X?)" for the choice that is at most two edits from `word`, else ""."""
    given = word if case_sensitive else word.lower()
    best, best_distance = "", 3
    for choice in choices:
        candidate = choice if case_sensitive else choice.lower()
        distance = _edit_distance(given, candidate)
        if 0 < distance < best_distance and distance < len(candidate):
            best, best_distance = choice, distance
    return f" (did you mean {best}?)" if best else ""


def _edit_distance(left: str, right: str) -> int:
    previous = list(range(len(right) + 1))
    for row, a in enumerate(left, 1):
        current = [row]
        for column, b in enumerate(right, 1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (a != b)))
        previous = current
    return previous[-1]
