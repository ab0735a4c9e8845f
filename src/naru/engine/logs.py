"""A container's log as a client gets it: tail, since, until, timestamps, details, one stream or both, follow.

The shim writes the file and knows nothing of readers; `logs/reader.py` reads it across rotation. A follower is woken by
inotify on the directory, which sees writes and rotation alike. However long the log and however slow the client, no
more than a few hundred KB are held at a time.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from urllib.parse import urlencode

from naru.api.container import LogsOptions
from naru.api.moment import nanoseconds
from naru.kernel import inotify
from naru.logs.reader import LogReader
from naru.logs.record import Record, decode

_CHUNK = 256 << 10


class LogStream:
    """A client's view of one log: `read` what is there now, poll `fileno`, read again, until `finished`.

    One thread at a time may `read`; any may `wake`, and `close`, which waits for a `read` that is under way.
    """

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
        self._options = options
        self._since_ns, self._until_ns = options.since_ns or 0, options.until_ns or 0
        self._has_tty = has_tty
        self._is_running = is_running
        self._closing = threading.Lock()
        self._reading = threading.Lock()
        self._is_over = False
        self._watch = -1
        self._exit = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(self._exit, select.EPOLLIN)
        self.finished = False
        self._reader = LogReader(path)
        try:
            if options.follow:
                # Before the first read: what comes after it is then not missed.
                self._watch = inotify.watch(
                    os.path.dirname(path),
                    inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_DELETE,
                )
                self._poll.register(self._watch, select.EPOLLIN)
            if options.tail is not None:
                filters = not (options.stdout and options.stderr) or self._since_ns or self._until_ns
                self._reader.start_at_tail(options.tail, self._passes if filters else None)
            if not options.follow:
                self._reader.end_here()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the log may have grown."""
        return self._poll.fileno()

    @property
    def patience_s(self) -> float | None:
        """Return after how long to read again even if nothing has happened: `until` ends a follower by itself."""
        return max(self._until_ns - time.time_ns(), 0) / 1e9 if self._until_ns else None

    def wake(self) -> None:
        """Make `fileno` readable: the container exited. Any thread may call it, also after `close`."""
        with self._closing:
            if self._exit >= 0:
                os.eventfd_write(self._exit, 1)

    def read(self) -> bytes:
        """Return the next part as the client gets it, or b"" if there is nothing now (check `finished`)."""
        with self._reading:
            if self._exit < 0:
                self.finished = True
                return b""
            if self._watch >= 0:
                inotify.drain(self._watch)
            with suppress(BlockingIOError):
                os.eventfd_read(self._exit)
            # Asked before the log is read: what it wrote until it ended is then in what is read.
            is_over = not self._options.follow or self._is_over or not self._is_running()
            is_late = bool(self._until_ns) and time.time_ns() > self._until_ns
            while lines := self._reader.read(_CHUNK):
                if part := self._format(lines[:-1].split(b"\n")):
                    return part
                if self._is_over:
                    break
            self.finished = is_over or is_late or self._is_over
            return b""

    def close(self) -> None:
        """Release the descriptors; safe to call twice."""
        self._on_close(self)
        with self._reading, self._closing:
            self._reader.close()
            if self._exit >= 0:
                self._poll.close()
                os.close(self._exit)
                self._exit = -1
            if self._watch >= 0:
                os.close(self._watch)
                self._watch = -1

    def _passes(self, line: bytes) -> bool:
        record = decode(line)
        return record is not None and self._wants(record)

    def _wants(self, record: Record) -> bool:
        if not (self._options.stdout if record.stream == "stdout" else self._options.stderr):
            return False
        if self._since_ns or self._until_ns:
            moment = nanoseconds(record.time)
            if self._until_ns and moment > self._until_ns:
                self._is_over = self._options.follow
                return False
            return moment >= self._since_ns
        return True

    def _format(self, lines: Iterable[bytes]) -> bytes:
        options = self._options
        out: list[bytes] = []
        for line in lines:
            record = decode(line)
            if record is None or not self._wants(record):
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
