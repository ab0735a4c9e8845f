"""Reading a container's json-file log back: tail, since, until, timestamps, both streams, follow, across rotation.

The shim writes `<path>` and rotates it to `<path>.1`, `<path>.2` …, oldest last, perhaps compressed (`.gz`); this
module only reads. A follower is woken by inotify on the directory, which sees writes and rotation alike.
"""

from __future__ import annotations

import gzip
import os
import select
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from naru.api.container import LogsOptions
from naru.api.moment import nanoseconds
from naru.kernel import inotify

_CHUNK = 256 << 10


class _Record(Struct):
    log: str
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] = {}


_decoder = msgspec.json.Decoder(_Record)


class LogStream:
    """A client's view of one log: `read` what is there now, poll `fileno`, read again, until `finished`."""

    def __init__(
        self,
        path: str,
        options: LogsOptions,
        *,
        has_tty: bool,
        is_running: Callable[[], bool],
        on_close: Callable[[LogStream], None],
    ) -> None:
        self._on_close = on_close
        self._path = path
        self._options = options
        self._has_tty = has_tty
        self._is_running = is_running
        self._watch = inotify.watch(
            os.path.dirname(path), inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_DELETE
        )
        self._exit = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(self._watch, select.EPOLLIN)
        self._poll.register(self._exit, select.EPOLLIN)
        self._file: BinaryIO | None = None
        self._pending = b""
        self._closing = threading.Lock()
        self._backlog: Iterator[bytes] | None = self._history()
        self.finished = False

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the log may have grown."""
        return self._poll.fileno()

    def wake(self) -> None:
        """Make `fileno` readable: the container exited. Any thread may call it, also after `close`."""
        with self._closing:
            if self._exit >= 0:
                os.eventfd_write(self._exit, 1)

    def read(self) -> bytes:
        """Return the next part as the client gets it, or b"" if there is nothing now (check `finished`)."""
        if self._backlog is not None:
            part = next((part for part in self._backlog if part), None)
            if part is not None:
                return part
            self._backlog = None
            if not self._options.follow:
                self.finished = True
                return b""
        inotify.drain(self._watch)
        was_running = self._is_running()
        part = self._format(self._new_lines())
        if not part and not was_running:
            self.finished = True
        return part

    def close(self) -> None:
        """Release the descriptors; safe to call twice."""
        self._on_close(self)
        if self._file is not None:
            self._file.close()
            self._file = None
        with self._closing:
            if self._exit >= 0:
                self._poll.close()
                os.close(self._watch)
                os.close(self._exit)
                self._exit = -1

    def _history(self) -> Iterator[bytes]:
        """Yield everything logged so far that the options ask for, and leave `_file` at its end."""
        tail = self._options.tail
        if tail == 0:
            for _ in self._new_chunks():
                self._pending = b""
            return
        if tail is not None and tail > 0:
            yield self._format(self._tail_lines(tail))
            return
        for rotated in _rotated(self._path):
            with _open(rotated) as file:
                while chunk := file.read(_CHUNK):
                    yield self._format((chunk + file.readline()).splitlines())
        while lines := self._new_lines(_CHUNK):
            yield self._format(lines)

    def _tail_lines(self, count: int) -> Iterable[bytes]:
        """The last `count` lines that the stream and time options let through."""
        kept: deque[bytes] = deque(maxlen=count)
        current = self._new_lines()
        passing = [line for line in current if self._passes(line)]
        if len(passing) < count:
            for rotated in _rotated(self._path):
                with _open(rotated) as file:
                    kept.extend(line.rstrip(b"\n") for line in file if self._passes(line))
        kept.extend(passing)
        return kept

    def _passes(self, line: bytes) -> bool:
        return bool(line) and bool(self._format([line]))

    def _new_chunks(self) -> Iterator[bytes]:
        """Yield bytes appended since the last call, going over to the new file after a rotation."""
        while True:
            if self._file is None:
                try:
                    self._file = open(self._path, "rb", buffering=0)
                except FileNotFoundError:
                    return
            while chunk := self._file.read(_CHUNK):
                yield chunk
            try:
                same = os.stat(self._path).st_ino == os.fstat(self._file.fileno()).st_ino
            except FileNotFoundError:
                same = True
            if same:
                return
            self._file.close()
            self._file = None

    def _new_lines(self, limit: int = 0) -> list[bytes]:
        """Return the complete lines appended since the last call (about `limit` bytes of them, if given)."""
        parts, size = [self._pending], 0
        for chunk in self._new_chunks():
            parts.append(chunk)
            size += len(chunk)
            if limit and size >= limit:
                break
        lines = b"".join(parts).split(b"\n")
        self._pending = lines.pop()
        return lines

    def _format(self, lines: Iterable[bytes]) -> bytes:
        options = self._options
        since_ns, until_ns = options.since_ns or 0, options.until_ns or 0
        out: list[bytes] = []
        for line in lines:
            if not line:
                continue
            try:
                record = _decoder.decode(line)
            except msgspec.MsgspecError:
                continue  # a line torn by a power cut
            if not (options.stdout if record.stream == "stdout" else options.stderr):
                continue
            if since_ns or until_ns:
                moment = nanoseconds(record.time)
                if moment < since_ns or (until_ns and moment > until_ns):
                    continue
            data = record.log.encode()
            if options.details:
                data = _details(record.attrs) + b" " + data
            if options.timestamps:
                data = record.time.encode() + b" " + data
            if not self._has_tty:
                out.append(struct.pack(">BxxxI", 1 if record.stream == "stdout" else 2, len(data)))
            out.append(data)
        return b"".join(out)


def _details(attributes: dict[str, str]) -> bytes:
    """Return `--details`: `name=value` by name, percent-encoded as in a query."""
    return urlencode(sorted(attributes.items())).replace("&", ",").encode()


def _rotated(path: str) -> list[str]:
    """Return the rotated files of `path` that exist, oldest first."""
    found: list[str] = []
    for number in range(1, 1000):
        names = [name for name in (f"{path}.{number}", f"{path}.{number}.gz") if os.path.exists(name)]
        if not names:
            break
        found.append(names[0])
    return found[::-1]


def _open(path: str) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb"))
