"""How a build fails at a step."""

from __future__ import annotations

from naru.errors import NaruError


class StepFailed(NaruError):
    """A RUN ended with another exit code than 0. The message is Docker's; `line` is where the Dockerfile says it."""

    def __init__(self, message: str, *, exit_code: int, line: int, file: str, output_tail: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.line = line
        self.file = file
        self.output_tail = output_tail
