"""How far a container's log has been delivered, in a file beside it, so that nobody needs to remember it.

One line, the two numbers of a `Position`, always as long, so that it is written at once. The courier writes it, under a
lock that it has for as long as it lives; the shim may read it. A log of which nothing was delivered has none.
"""

from __future__ import annotations

import fcntl
import os
import zlib

from msgspec import Struct

_FORM = "%010d %020d\n"


class Position(Struct, frozen=True):
    """A place in a log: the file known by this number, and the byte in it (uncompressed)."""

    file: int
    offset: int


def identity_of(first_line: bytes) -> int:
    """Return by what a log file is known that begins with `first_line`, newline included: it stays when it is renamed
    or compressed, and has a time in it."""
    return zlib.crc32(first_line)


class Cursor:
    """The open cursor file. Written only after `lock`, so by one process at a time."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def lock(self) -> None:
        """Wait until no other courier delivers this log. flock(2)"""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def read(self) -> Position | None:
        """Return where to go on; None if nothing has been delivered."""
        fields = os.pread(self._file, 64, 0).split()
        return Position(int(fields[0]), int(fields[1])) if len(fields) == 2 else None

    def write(self, position: Position) -> None:
        """Note that everything before `position` is delivered."""
        os.pwrite(self._file, (_FORM % (position.file, position.offset)).encode(), 0)
