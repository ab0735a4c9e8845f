"""`mode=blocking`: what has not been delivered is not removed, and the container waits instead.

Its cost is known only to logs that ask for it; without it the oldest file goes, delivered or not.
"""

from __future__ import annotations

import os
import zlib

from naru.logs.cursor import Cursor, Position, identity_of
from naru.logs.delivery import cursor_path

# The first line of a log file is within this, compressed or not: a piece of 16 KiB, escaped, with its attributes.
_FIRST_LINE_BYTES = 256 << 10
_GZIP_WINDOW = 31  # zlib's number for "with a gzip header"


class Retention:
    """Knows whether the oldest file of the log at `path`, of at most `max_files`, may go."""

    def __init__(self, path: str, max_files: int) -> None:
        self._files = [path, *(f"{path}.{number}" for number in range(1, max_files))]
        self._cursor = Cursor(cursor_path(path))

    def may_rotate(self) -> bool:
        """Is the next rotation going to remove nothing, or only what has been delivered?

        That is where the courier is in one of the files that stay. It might be at the very end of the one that goes;
        but then nothing would say afterwards that it has not been in the next.
        """
        *staying, oldest = self._files
        if _size(oldest) is None:
            return True
        position = self._cursor.read()
        if position is None:
            return False
        if not staying:
            return position == Position(_identity(oldest), _size(oldest) or 0)
        return any(position.file == _identity(name) for name in staying)


def _size(name: str) -> int | None:
    """Return a file's size, compressed or not; None if there is none."""
    for each in (name, f"{name}.gz"):
        try:
            return os.stat(each).st_size
        except FileNotFoundError:
            continue
    return None


def _identity(name: str) -> int:
    """Return by what a file is known."""
    for each in (name, f"{name}.gz"):
        try:
            with open(each, "rb", buffering=0) as file:
                data = file.read(_FIRST_LINE_BYTES)
        except FileNotFoundError:
            continue
        if each.endswith(".gz"):
            data = zlib.decompressobj(_GZIP_WINDOW).decompress(data, _FIRST_LINE_BYTES)
        return identity_of(data[: data.find(b"\n") + 1])
    return 0
