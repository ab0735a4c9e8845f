"""Carrying one container's log to its log server: a process of its own, beside the container's shim.

    container ──► shim ──► log file ──► courier ──► log server
                                           └──► cursor file

The shim writes the file and knows nothing of servers; so a server that is slow or dead costs the container nothing, and
the file, which is bounded, is the buffer. Delivery goes on from the cursor, after whatever has ended: a connection, the
courier, the container, the host. What was sent and not noted in the cursor is sent again: at least once, in order.

The shim's socket ends when the log is complete. The container's end waits a moment for what can be delivered at once;
the rest is delivered afterwards, for as long as that makes progress. The socket also takes news, one packet each, for
whoever looks after the engine.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from naru.logs.cursor import Cursor, Position
from naru.logs.delivery import HELD, Delivery, cursor_path
from naru.logs.fluentd import Fluentd
from naru.logs.journald import Journald
from naru.logs.reader import LogReader
from naru.logs.record import Record, decode
from naru.logs.syslog import Syslog

_BATCH_BYTES = 64 << 10
_NEWS_BYTES = 1024
_BACKOFF_MOST_S = 5.0
_TURN_S = 0.5
# How long a log that is complete is kept trying for, since anything was last delivered.
_LAST_PATIENCE_S = 5.0


class GiveUp(Exception):
    """The log is complete, and the server has taken nothing for too long."""


class Sender(Protocol):
    """A driver: sends the first of some records and says how many. OSError: none, and `close` starts afresh.

    After a failure the first wait is `first_wait_s`, then twice as long each time; `most_attempts` are made.
    """

    first_wait_s: float
    most_attempts: float

    def send(self, records: Sequence[Record]) -> int: ...
    def close(self) -> None: ...


class Courier:
    """Delivers one log until it is complete and delivered. `shim` is a packet socket, `poke` an eventfd."""

    def __init__(self, delivery: Delivery, shim: socket.socket, poke: int) -> None:
        self._delivery = delivery
        self._shim = shim
        self._poke = poke
        self._cursor = Cursor(cursor_path(delivery.path))
        self._reader: LogReader | None = None
        self._ended_at: float | None = None
        self._delivered_at = 0.0
        self._is_in_trouble = False
        self._is_alone = False
        self._poll = select.poll()
        self._poll.register(shim, select.POLLIN)
        self._poll.register(poke, select.POLLIN)
        self._sender = _sender(delivery, self)

    def run(self) -> None:
        """Deliver everything, then return; or raise GiveUp."""
        self._cursor.lock()
        self._reader = reader = LogReader(self._delivery.path, self._cursor.read())
        while True:
            has_ended = self._has_ended()
            lines = reader.read(_BATCH_BYTES)
            if reader.has_gap:
                reader.has_gap = False
                tell(
                    self._shim, "output was removed before it could be delivered: the log server was too slow, or away"
                )
            if lines:
                self._deliver(lines)
            elif has_ended:
                return
            else:
                self._poll.poll()

    def check(self) -> None:
        """GiveUp: the log is complete, and nothing has been delivered for too long."""
        if self._has_ended():
            assert self._ended_at is not None
            self._let_container_end()
            if time.monotonic() - max(self._ended_at, self._delivered_at) > _LAST_PATIENCE_S:
                raise GiveUp

    def _has_ended(self) -> bool:
        """Is the log complete? Keeps it open from then on, as it may be removed."""
        if self._ended_at is None:
            with suppress(BlockingIOError):
                os.eventfd_read(self._poke)
            with suppress(BlockingIOError, ConnectionResetError):
                if self._shim.recv(1, socket.MSG_DONTWAIT):
                    return False
                self._ended_at = time.monotonic()
                self._poll.unregister(self._shim)
                if self._reader is not None:
                    self._reader.hold()
        return self._ended_at is not None

    def _let_container_end(self) -> None:
        """Do not let the container's end wait for us any longer."""
        if self._ended_at is not None and not self._is_alone:
            self._is_alone = True
            with suppress(OSError):
                self._shim.send(HELD, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _deliver(self, lines: bytes) -> None:
        """Send `lines`, which were just read, trying again and again; note each success."""
        assert self._reader is not None and self._reader.position is not None
        end = self._reader.position
        records, sizes, size = [], [], 0
        for line in lines[:-1].split(b"\n"):
            size += len(line) + 1
            if (record := decode(line)) is not None:
                records.append(record)
                sizes.append(size)
                size = 0
        offset = end.offset - len(lines)
        first, attempts = 0, 0
        while first < len(records):
            try:
                sent = self._sender.send(records[first:])
            except OSError as error:
                self._sender.close()
                if error.errno == errno.EMSGSIZE:
                    tell(self._shim, f"a line is too long for the log server, and is left out: {error}")
                    sent = 1
                else:
                    attempts += 1
                    if attempts < self._sender.most_attempts:
                        self._wait(attempts, error)
                        continue
                    tell(self._shim, f"output is left out after {attempts} attempts: {error}")
                    sent = len(records) - first
            else:
                self._all_is_well()
            attempts = 0
            offset += sum(sizes[first : first + sent])
            first += sent
            self._delivered_at = time.monotonic()
            self._cursor.write(Position(end.file, offset) if first < len(records) else end)

    def _wait(self, attempts: int, error: OSError) -> None:
        """Tell of the first failure, and wait before the next attempt."""
        if not self._is_in_trouble:
            self._is_in_trouble = True
            tell(self._shim, f"the log server takes nothing, output is kept until it does: {error}")
        until = time.monotonic() + min(self._sender.first_wait_s * 2 ** min(attempts - 1, 16), _BACKOFF_MOST_S)
        while (left := until - time.monotonic()) > 0:
            self.check()
            poll = select.poll()
            if self._ended_at is None:
                poll.register(self._shim, select.POLLIN)
            poll.poll(min(left, _TURN_S) * 1000)
        self.check()

    def _all_is_well(self) -> None:
        if self._is_in_trouble:
            self._is_in_trouble = False
            tell(self._shim, "the log server takes output again")


def tell(shim: socket.socket, news: str) -> None:
    """Send news; lost if nobody listens any more, or has not listened for a long time."""
    with suppress(OSError):
        shim.send(news.encode()[:_NEWS_BYTES], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def _sender(delivery: Delivery, patience: Courier) -> Sender:
    match delivery.driver:
        case "syslog":
            return Syslog(delivery, patience)
        case "journald":
            return Journald(delivery, patience)
    return Fluentd(delivery, patience)


def be_courier(delivery: Delivery, shim: socket.socket, poke: int) -> None:
    """Deliver, and tell the shim if it fails for a reason that nobody thought of."""
    try:
        Courier(delivery, shim, poke).run()
    except GiveUp:
        pass
    except Exception as error:
        tell(shim, f"delivery failed and is begun again: {type(error).__name__}: {error}")
