"""Reading a container's log from a place on, in order and across rotation, however often it rotates meanwhile.

    <path>.2.gz, <path>.1, <path>       oldest first; only the shim writes, renames and removes them (`shim/json_log`)

A file is known by its first line, which stays while it is renamed and compressed. Reading goes by position and takes
whole lines only, so a line that the writer takes back (a full disk) was never seen. At most one file that is removed
already is held open.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, TypeAlias, cast

from naru.logs.cursor import Position, identity_of

# Read for one line, and doubled until it is whole: a piece of 16 KiB whose every byte is escaped has 100 KB.
_LINE_BYTES = 128 << 10
_BLOCK_BYTES = 64 << 10
# Rotation may rename files between two looks at them; it takes a file's worth of output to happen again.
_LOOKS = 100
_ROTATION_S = 0.001

_SUFFIX = re.compile(r"(?:\.(\d+)(?:\.gz)?)?")
_Listed: TypeAlias = tuple[str, int]


class LogReader:
    """Reads on from `start`, or from the oldest line there is. `has_gap`: something was removed before it was read."""

    def __init__(self, path: str, start: Position | None = None) -> None:
        self._path = path
        self._file: _File | None = None
        self._end: Position | None = None
        self._held: deque[_File] | None = None
        self.has_gap = False
        if start is not None:
            self._file = self._open(lambda listed: next((one for one in listed if one[1] == start.file), None))
            if self._file is None:
                self.has_gap = bool(_listed(path))
            else:
                self._file.offset = start.offset

    @property
    def position(self) -> Position | None:
        """Return where the next line begins; None if no line has been there yet."""
        return None if self._file is None else Position(self._file.identity, self._file.offset)

    def end_here(self) -> None:
        """Read no line that is written from now on."""
        newest = self._open(lambda listed: listed[0] if listed else None)
        if newest is None:
            self._held = deque()
        else:
            with newest:
                self._end = Position(newest.identity, newest.size)

    def hold(self) -> None:
        """Open what is still to be read, so that it is read even if the log is removed now. Nobody may be writing."""
        if self._file is None:
            self._file = self._oldest()
        held: deque[_File] = deque()
        for name, identity in _listed(self._path):
            if self._file is None or identity == self._file.identity:
                break
            with suppress(FileNotFoundError):
                if (file := _opened(name)) is not None:
                    held.appendleft(file)
        self._held = held

    def start_at_tail(self, count: int, passes: Callable[[bytes], bool] | None) -> None:
        """Start at the last `count` lines, of those for which `passes` is true if it is given."""
        seen: set[int] = set()
        for name, _ in _listed(self._path):
            try:
                file = _opened(name)
            except FileNotFoundError:
                break  # the oldest, removed meanwhile
            if file is None or file.identity in seen:  # renamed meanwhile
                continue
            seen.add(file.identity)
            self.close()
            self._file = file
            count -= file.seek_tail(count, passes)
            if count <= 0:
                break

    def read(self, limit: int) -> bytes:
        """Return whole lines, about `limit` bytes of them; b"" if there is nothing more now."""
        while True:
            if self._file is None:
                self._file = self._oldest()
                if self._file is None:
                    return b""
            if data := self._file.read(self._most(limit)):
                return data
            following = None if self._is_at_end() else self._following()
            if following is None:
                return b""
            # It is not written to any more, but may have been between the read and the rotation.
            if data := self._file.read(self._most(limit)):
                following.close()
                return data
            self._file.close()
            self._file = following

    def close(self) -> None:
        """Let go of the files; safe to call twice."""
        for file in [*([self._file] if self._file else []), *(self._held or ())]:
            file.close()
        self._file = None
        self._held = None if self._held is None else deque()

    def _most(self, limit: int) -> int:
        """Return how much may be read of the current file: not beyond the end that was set."""
        assert self._file is not None
        return min(limit, self._end.offset - self._file.offset) if self._end and self._is_at_end() else limit

    def _is_at_end(self) -> bool:
        assert self._file is not None
        return self._end is not None and self._file.identity == self._end.file

    def _oldest(self) -> _File | None:
        if self._held is not None:
            return self._held.popleft() if self._held else None
        return self._open(lambda listed: listed[-1] if listed else None)

    def _following(self) -> _File | None:
        """Return the file after the current one, opened; None while that has no line yet."""
        assert self._file is not None
        if self._held is not None:
            return self._held.popleft() if self._held else None
        if self._file.is_at(self._path):
            return None
        current = self._file.identity

        def choose(listed: list[_Listed]) -> _Listed | None:
            identities = [identity for _, identity in listed]
            if current in identities:
                at = identities.index(current)
                return listed[at - 1] if at else None
            # It was removed while it was read, and others perhaps with it: all that is left is newer.
            self.has_gap = self.has_gap or bool(listed)
            if self._end is not None and self._end.file not in identities:
                return None
            return listed[-1] if listed else None

        return self._open(choose)

    def _open(self, choose: Callable[[list[_Listed]], _Listed | None]) -> _File | None:
        """Open the file that `choose` takes of those there are, looking again if it was renamed meanwhile."""
        for _ in range(_LOOKS):
            chosen = choose(_listed(self._path))
            if chosen is None:
                return None
            with suppress(FileNotFoundError):
                file = _opened(chosen[0])
                if file is not None and file.identity == chosen[1]:
                    return file
                if file is not None:
                    file.close()
        return None


class _File:
    """One open file of a log, not empty."""

    def __init__(self, file: BinaryIO, identity: int, *, is_packed: bool) -> None:
        self._file = file
        self._is_packed = is_packed
        self.identity = identity
        self.offset = 0

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes up to the end of the last whole line."""
        if self._is_packed:
            return self._file.seek(0, os.SEEK_END)
        size = os.fstat(self._file.fileno()).st_size
        while size > 0:
            start = max(size - _BLOCK_BYTES, 0)
            found = os.pread(self._file.fileno(), size - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            size = start
        return 0

    def is_at(self, path: str) -> bool:
        """Is this file found at `path`, that is: not rotated?"""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def read(self, limit: int) -> bytes:
        """Return whole lines from `offset` on, about `limit` bytes, and move on."""
        if limit <= 0:
            return b""
        data = self._read_packed(limit) if self._is_packed else self._read_plain(limit)
        self.offset += len(data)
        return data

    def _read_packed(self, limit: int) -> bytes:
        if self._file.tell() != self.offset:
            self._file.seek(self.offset)
        data = self._file.read(limit)
        return data if data.endswith(b"\n") else data + self._file.readline()

    def _read_plain(self, limit: int) -> bytes:
        descriptor = self._file.fileno()
        data = os.pread(descriptor, limit, self.offset)
        end = data.rfind(b"\n") + 1
        size = _LINE_BYTES
        while not end and len(data) >= limit:
            limit = size
            data = os.pread(descriptor, size, self.offset)
            end = data.find(b"\n") + 1
            size *= 2
        return data if end == len(data) else data[:end]

    def seek_tail(self, count: int, passes: Callable[[bytes], bool] | None) -> int:
        """Go to the last `count` lines that pass; return how many there are, at most `count`."""
        if self._is_packed:
            return self._seek_tail_packed(count, passes)
        end = self.size
        found, rest, self.offset = 0, b"", end
        while end > 0 and found < count:
            start = max(end - _BLOCK_BYTES, 0)
            block = os.pread(self._file.fileno(), end - start, start) + rest
            lines = block.split(b"\n")
            rest = lines[0] if start else b""
            at = start + len(block)
            for line in reversed(lines[1:] if start else lines):
                at -= len(line)
                if line and (passes is None or passes(line)):
                    found += 1
                    self.offset = at
                    if found == count:
                        return found
                at -= 1
            end = start
        return found

    def _seek_tail_packed(self, count: int, passes: Callable[[bytes], bool] | None) -> int:
        kept: deque[int] = deque(maxlen=count)
        at = 0
        self._file.seek(0)
        for line in self._file:
            if passes is None or passes(line):
                kept.append(at)
            at += len(line)
        self.offset = kept[0] if kept else at
        return len(kept)


def _listed(path: str) -> list[_Listed]:
    """Return name and identity of the files of a log that have a line, newest first.

    Rotation goes on meanwhile: what is renamed while this looks may be in the result twice, but is never left out,
    because both go from newer to older names.
    """
    for _ in range(_LOOKS):
        listed: list[_Listed] = []
        try:
            for name in _names(path):
                file = _opened(name)
                if file is not None:
                    with file:
                        listed.append((name, file.identity))
        except FileNotFoundError:
            continue
        return listed
    return []


def _names(path: str) -> list[str]:
    """Return the names of the log's files, newest first; waits while one is missing between others, in a rotation."""
    directory, base = os.path.split(path)
    names: dict[int, str] = {}
    for _ in range(_LOOKS):
        try:
            found = sorted(name for name in os.listdir(directory or ".") if name.startswith(base))
        except FileNotFoundError:
            return []
        # `x.1` comes before `x.1.gz`, which is complete once it has that name.
        names = {int(match[1] or 0): name for name in found if (match := _SUFFIX.fullmatch(name[len(base) :]))}
        if len(names) == max(names, default=-1) + 1:
            break
        time.sleep(_ROTATION_S)
    return [os.path.join(directory, names[number]) for number in sorted(names)]


def _opened(name: str) -> _File | None:
    """Return the file; None if it has no whole line. FileNotFoundError: it was renamed or removed."""
    is_packed = name.endswith(".gz")
    file: BinaryIO
    if is_packed:
        import gzip  # rotated files are compressed on request only

        file = cast(BinaryIO, gzip.open(name, "rb"))
    else:
        file = open(name, "rb")
    first = file.readline()
    if not first.endswith(b"\n"):
        file.close()
        return None
    return _File(file, identity_of(first), is_packed=is_packed)
