"""A container's log as Docker's json-file driver writes it: one JSON object per line of output.

    <path>          current
    <path>.1        the newest rotated file (or <path>.1.gz), then .2 …, in all at most `max_files`

Only the shim writes here, without a lock. A line longer than 16 KiB becomes several records of which only the last
ends in a newline, as Docker's readers expect; the unfinished last line of a container that ended has none. Bytes that
are not UTF-8 become U+FFFD. Every line has a time of its own, so that readers can go on from one, but in a flood: the
lines of a read of more than 16 KiB share its time.
"""

from __future__ import annotations

import os
import select
import time

import msgspec
from msgspec import Struct

from naru.shim.courier import CourierProcess
from naru.shim.protocol import LogConfig
from naru.shim.retention import Retention

__all__ = ["PIECE_BYTES", "JsonLog", "LineEncoder", "open_log"]

# Docker cuts lines here. moby daemon/logger/copier.go, observed with a 40,000 byte line.
PIECE_BYTES = 16 << 10

# Stands for the newline while a whole chunk is escaped in one call, which is three times faster than line by line:
# JSON leaves DEL alone and text hardly ever contains it. A chunk that does is escaped line by line.
_MARK = b"\x7f"
_NEWLINE_TO_MARK = bytes(_MARK[0] if byte == 0x0A else byte for byte in range(256))

# Reads up to this size are encoded line by line, each line 1 ns after the one before.
_FLOOD_BYTES = 16 << 10

_encoder = msgspec.json.Encoder()


class _Record(Struct):
    log: str
    stream: str
    time: str


class _RecordWithAttributes(Struct):
    log: str
    stream: str
    attrs: dict[str, str]
    time: str


class LineEncoder:
    """Turns one stream's bytes, as they come, into records; keeps the unfinished line until it is finished."""

    def __init__(self, stream: str, attributes: dict[str, str]) -> None:
        self._stream = stream
        self._attributes = attributes
        middle = f',"attrs":{_encoder.encode(attributes).decode()}' if attributes else ""
        self._suffix = f'"stream":"{stream}"{middle},"time":"'
        self._pending = b""
        self._pending_time = 0

    def feed(self, data: bytes, now: int) -> bytes:
        """Return the records that `data`, read at `now` (nanoseconds since the epoch), completes."""
        end = data.rfind(b"\n") + 1
        if not end:
            return self._grow(data, now)
        head = b""
        if self._pending:
            first = data.find(b"\n") + 1
            head = self._encode_line(self._pending + data[:first], self._pending_time)
            self._pending = b""
            lines = data[first:end]
        else:
            lines = data if end == len(data) else data[:end]
        if not lines:
            records = head
        elif len(lines) > _FLOOD_BYTES:
            records = head + self._encode_flood(lines, now)
        else:
            records = head + self._encode_lines(lines, now)
            now += lines.count(b"\n")
        return records + self._grow(data[end:], now) if end < len(data) else records

    def flush(self) -> bytes:
        """Return the record of an unfinished last line, without a newline, as Docker does."""
        rest, self._pending = self._pending, b""
        return self._record(rest, _stamp(self._pending_time)) if rest else b""

    def _grow(self, data: bytes, now: int) -> bytes:
        if not self._pending:
            self._pending_time = now
        self._pending += data
        if len(self._pending) < PIECE_BYTES:
            return b""
        pieces, self._pending = _cut(self._pending)
        stamp = _stamp(self._pending_time)
        return b"".join(self._record(piece, stamp) for piece in pieces)

    def _encode_lines(self, lines: bytes, now: int) -> bytes:
        return b"".join(
            self._encode_line(line + b"\n", now + number) for number, line in enumerate(lines[:-1].split(b"\n"))
        )

    def _encode_flood(self, lines: bytes, now: int) -> bytes:
        if _MARK in lines or _has_long_line(lines):
            return self._encode_lines(lines, now)
        text = str(lines.translate(_NEWLINE_TO_MARK), "utf-8", "replace")
        escaped = _encoder.encode(text)
        joint = f'\\n",{self._suffix}{_stamp(now)}"}}\n{{"log":"'.encode()
        records = escaped[:-1].replace(_MARK, joint)
        return b'{"log":' + records[: -len(b'{"log":"')]

    def _encode_line(self, line: bytes, now: int) -> bytes:
        stamp = _stamp(now)
        if len(line) <= PIECE_BYTES:
            return self._record(line, stamp)
        pieces, rest = _cut(line)
        return b"".join(self._record(piece, stamp) for piece in [*pieces, rest])

    def _record(self, piece: bytes, stamp: str) -> bytes:
        text = str(piece, "utf-8", "replace")
        if self._attributes:
            return _encoder.encode(_RecordWithAttributes(text, self._stream, self._attributes, stamp)) + b"\n"
        return _encoder.encode(_Record(text, self._stream, stamp)) + b"\n"


def _has_long_line(lines: bytes) -> bool:
    start = 0
    while len(lines) - start > PIECE_BYTES:
        newline = lines.rfind(b"\n", start, start + PIECE_BYTES)
        if newline < 0:
            return True
        start = newline + 1
    return False


def _cut(line: bytes) -> tuple[list[bytes], bytes]:
    """Cut a line into full pieces and a rest: at 16 KiB, or up to 3 bytes earlier rather than inside a character."""
    pieces = []
    while len(line) - line.endswith(b"\n") >= PIECE_BYTES:
        at = _character_boundary(line)
        pieces.append(line[:at])
        line = line[at:]
    return pieces, line


def _character_boundary(line: bytes) -> int:
    for back in (1, 2, 3):
        byte = line[PIECE_BYTES - back]
        if byte >= 0xC0:  # a lead byte; its character takes 2, 3 or 4 bytes
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return PIECE_BYTES - back if length > back else PIECE_BYTES
        if byte < 0x80:
            break
    return PIECE_BYTES


def open_log(path: str) -> int:
    """Open a log file to append to."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


class JsonLog:
    """The log file: encodes, appends, rotates. A disk that is full loses lines, never the container."""

    def __init__(self, config: LogConfig, file: int | None = None, courier: CourierProcess | None = None) -> None:
        """Append to `config.path`, or to `file`, an open descriptor of it and ours now; poke `courier` each time."""
        self._path = config.path
        self._limit = config.max_size_bytes
        self._max_files = max(config.max_files, 1)
        self._compress = config.compress
        self._encoders = {name: LineEncoder(name, config.attributes) for name in ("stdout", "stderr")}
        self._compressor: int | None = None
        self._file = open_log(self._path) if file is None else file
        self._size = os.fstat(self._file).st_size
        self._courier = courier
        self._retention: Retention | None = None
        if config.delivery is not None and config.delivery.is_blocking:
            self._retention = Retention(self._path, self._max_files)

    @property
    def is_full(self) -> bool:
        """Should no more be written until some of it has been delivered?"""
        return (
            self._retention is not None
            and self._limit is not None
            and self._size >= self._limit
            and not self._retention.may_rotate()
        )

    def write(self, stream: str, data: bytes) -> None:
        """Append the lines that `data`, read from `stream` just now, completes."""
        self._append(self._encoders[stream].feed(data, time.time_ns()))
        if self._courier is not None:
            self._courier.poke()

    def close(self) -> None:
        """Append unfinished lines and close."""
        for encoder in self._encoders.values():
            self._append(encoder.flush())
        os.close(self._file)

    def _append(self, records: bytes) -> None:
        if self._limit is None:
            self._write(records)
            return
        while records:
            room = self._limit - self._size
            if len(records) > room:
                # Fill the file with what fits; one record larger than the limit still goes into a file of its own.
                end = records.rfind(b"\n", 0, max(room, 0)) + 1
                if not end and self._size:
                    if self._retention is None or self._retention.may_rotate():
                        self._rotate()
                        continue
                    end = len(records)  # and then `is_full` stops what more would come
                end = end or records.find(b"\n") + 1
            else:
                end = len(records)
            self._write(records[:end])
            records = records[end:]

    def _write(self, records: bytes) -> None:
        written = 0
        try:
            while written < len(records):
                written += os.write(self._file, records[written:] if written else records)
        except OSError:
            # ENOSPC, EDQUOT, EIO: cut off the torn line so that later ones can be read.
            written = records.rfind(b"\n", 0, written) + 1
            os.ftruncate(self._file, self._size + written)
        self._size += written

    def _rotate(self) -> None:
        """Shift `.1` to `.2` and so on, dropping the oldest, and go on in an empty file."""
        self._await_compressor()
        os.close(self._file)
        if self._max_files > 1:
            for number in range(self._max_files - 1, 0, -1):
                source = self._path if number == 1 else f"{self._path}.{number - 1}"
                for suffix in ("", ".gz"):
                    if os.path.exists(source + suffix):
                        _unlink(f"{self._path}.{number}", f"{self._path}.{number}.gz")
                        os.rename(source + suffix, f"{self._path}.{number}{suffix}")
        # A new file rather than O_TRUNC of the old: a follower that is still reading loses nothing.
        _unlink(self._path)
        self._file = open_log(self._path)
        self._size = 0
        if self._compress and self._max_files > 1:
            self._compressor = _compress_aside(f"{self._path}.1")

    def _await_compressor(self) -> None:
        # By pidfd: the shim's loop may have reaped the child, and its number may have a new owner.
        if self._compressor is not None:
            select.select([self._compressor], [], [])
            os.close(self._compressor)
            self._compressor = None


def _compress_aside(path: str) -> int:
    """Replace `path` by `path`.gz in a child process, for the container's output not to wait. Return its pidfd."""
    child = os.fork()
    if child:
        return os.pidfd_open(child)
    try:
        os.closerange(0, os.sysconf("SC_OPEN_MAX"))  # clients wait for the end of the sockets among them
        os.nice(10)
        import gzip
        import shutil

        with open(path, "rb") as source, gzip.open(f"{path}.gz.new", "wb", compresslevel=5) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        os.rename(f"{path}.gz.new", f"{path}.gz")
        os.unlink(path)
    finally:
        os._exit(0)


def _unlink(*paths: str) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def _stamp(nanoseconds: int) -> str:
    """Return a time as RFC 3339, in UTC, always with nine digits."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
