"""The standard streams that a process is given."""

from __future__ import annotations

from msgspec import Struct


class Stdio(Struct, frozen=True):
    """Open descriptors for 0, 1 and 2; they remain the caller's."""

    stdin: int
    stdout: int
    stderr: int
