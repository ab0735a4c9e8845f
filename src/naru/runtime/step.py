"""A step: one small thing done to the process being made, which can say what it is before it is done.

`plan` functions (in `rootfs`, `device`, `masks`, `process`) turn a spec into a list of steps without touching
anything; `run_steps` does them in order in the child. The only state between steps is the `Workspace`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    import socket

    from naru.runtime.identity import Identity


class Refused(Exception):
    """A step found something that must not be, or that has Docker's own words: the reason, and the exit code."""

    def __init__(self, reason: str, exit_code: int = 128) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class StepFailed(Exception):
    """The step that failed and its error; only ever seen inside the child."""

    def __init__(self, step: Step, error: Exception) -> None:
        super().__init__(str(step))
        self.step = step
        self.error = error


class Workspace:
    """What the steps of one process share. Descriptors in it live until the child closes them all before execve."""

    __slots__ = (
        "arguments",
        "channel",
        "command",
        "console",
        "cwd_entered",
        "devpts_fd",
        "environment",
        "host_pid",
        "identity",
        "listener",
        "mask_fd",
        "needed",
        "root_fd",
        "sources",
        "stdio",
    )

    def __init__(
        self,
        *,
        channel: socket.socket,
        arguments: list[str],
        environment: dict[str, str],
        stdio: tuple[int, int, int] | None,
        needed: Iterable[int] = (),
        listener: socket.socket | None = None,
    ) -> None:
        self.channel = channel
        self.listener = listener
        self.arguments = arguments
        self.environment = environment
        self.stdio = stdio
        self.needed = needed
        self.root_fd = -1
        self.devpts_fd = -1
        self.mask_fd = -1
        self.console = -1
        self.cwd_entered = False
        self.host_pid = 0
        self.command = ""
        self.sources: dict[int, int] = {}
        self.identity: Identity | None = None


class Step(Struct, frozen=True):
    """`str(step)` describes it, for a person reading a plan or an error; `run` does it in the child."""

    def run(self, work: Workspace) -> None:
        """Do it. OSError or Refused: it could not be done, and the process is not to be started."""
        raise NotImplementedError


def run_steps(steps: Iterable[Step], work: Workspace) -> None:
    """Do `steps` in order. StepFailed: the first that failed, with its error."""
    for step in steps:
        try:
            step.run(work)
        except (OSError, Refused, ValueError) as error:
            raise StepFailed(step, error) from error


def reason(error: BaseException) -> str:
    """Return an error's words for a message: libc's, in lower case, and the path if there is one."""
    if not isinstance(error, OSError):
        return str(error) or type(error).__name__
    words = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    words = words[:1].lower() + words[1:]
    head, colon, tail = words.rpartition(": ")
    if colon:
        words = f"{head}: {tail[:1].lower()}{tail[1:]}"
    name = error.filename
    if name in (None, "", b""):
        return words
    return f"{words}: {os.fsdecode(name) if isinstance(name, str | bytes) else name}"
