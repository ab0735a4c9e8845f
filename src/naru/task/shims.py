"""narud's side of the shim connections: questions with answers, events in order, and what a dead shim has left.

Two threads serve all connections: one reads packets and hands answers to whoever waits for them, the other calls the
event callbacks, which therefore may ask questions themselves. A connection that ends is an event too.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from naru.errors import NaruError, Unavailable
from naru.runtime.cgroup import open_cgroup
from naru.shim import protocol, record
from naru.shim.protocol import SOCKET_FILE, Answer, Ask, Birth, Exited, ExitRecord, Request, Status, TaskEvent

_T = TypeVar("_T")

# A shim that is alive but cannot be reached is between bind and listen, or stopped by somebody; then it is killed.
_CONNECT_PATIENCE_S = 5.0
# A shim answers when its container is created, which may take a network file system's time.
_ANSWER_PATIENCE_S = 30.0
_BURIAL_PATIENCE_S = 10.0


class Connection:
    """One socket to one shim. Any thread may `ask`."""

    def __init__(self, peer: socket.socket, container_id: str) -> None:
        self.socket = peer
        self._container_id = container_id
        self._lock = threading.Lock()
        self._next_id = 1
        self._waiting: dict[int, Future[bytes]] = {}
        self._is_lost = False

    def ask(self, request: Request, answer: type[_T], fds: Sequence[int] = ()) -> _T:
        """Send `request` and return its answer. Raises the shim's error; Unavailable if the shim goes away."""
        future: Future[bytes] = Future()
        with self._lock:
            if self._is_lost:
                raise self._gone()
            number = self._next_id
            self._next_id += 1
            self._waiting[number] = future
        try:
            protocol.send(self.socket, Ask(number, request), fds)
        except OSError:
            with self._lock:
                self._waiting.pop(number, None)
            raise self._gone() from None
        return msgspec.json.decode(future.result(), type=answer)

    def ask_alone(self, request: Request, answer: type[_T]) -> _T:
        """As `ask`, for a connection that the reader does not serve yet."""
        try:
            protocol.send(self.socket, Ask(0, request))
        except OSError:
            raise self._gone() from None
        return self.read_answer(answer)

    def read_answer(self, answer: type[_T]) -> _T:
        """Wait for the only answer that can come, before the reader serves the connection."""
        try:
            message = protocol.receive(self.socket)
        except OSError:
            message = None
        if message is None:
            raise self._gone()
        news = protocol.news_decoder.decode(message[0])
        assert isinstance(news, Answer)
        if news.failure is not None:
            raise protocol.error_of(news.failure)
        return msgspec.json.decode(news.result, type=answer)

    def answered(self, answer: Answer) -> None:
        """Hand an answer to whoever asked."""
        with self._lock:
            future = self._waiting.pop(answer.id, None)
        if future is None:
            return
        if answer.failure is not None:
            future.set_exception(protocol.error_of(answer.failure))
        else:
            future.set_result(bytes(answer.result))

    def lost(self) -> None:
        """The shim closed the connection: nobody will be answered any more."""
        with self._lock:
            self._is_lost = True
            waiting, self._waiting = list(self._waiting.values()), {}
        for future in waiting:
            future.set_exception(self._gone())

    def _gone(self) -> NaruError:
        return Unavailable(f"the shim of container {self._container_id} is gone")


Heard = Callable[[TaskEvent], None]
Ended = Callable[[], None]


class Reader:
    """Reads every connection, and calls back from a second thread, in order."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._served: dict[int, tuple[Connection, Heard, Ended]] = {}
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._read, "shim reader"), (self._call, "task events"))
        ]
        for thread in self._threads:
            thread.start()

    def serve(self, connection: Connection, on_event: Heard, on_end: Ended) -> None:
        """Read `connection` from now on; `on_end` is called once, after its last event."""
        fd = connection.socket.fileno()
        self._served[fd] = (connection, on_event, on_end)
        self._epoll.register(fd, select.EPOLLIN)

    def call(self, callback: Callable[[], None]) -> None:
        """Call `callback` from the event thread, after everything that is due before it."""
        self._calls.put(callback)

    def close(self) -> None:
        """Stop both threads. The connections close; the shims go on."""
        if self._epoll.closed:
            return
        os.eventfd_write(self._wake, 1)
        self._calls.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        for connection, _, _ in self._served.values():
            connection.socket.close()
            connection.lost()
        self._epoll.close()
        os.close(self._wake)

    def _read(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._wake:
                    return
                self._receive(fd)

    def _receive(self, fd: int) -> None:
        connection, on_event, on_end = self._served[fd]
        try:
            message = protocol.receive(connection.socket)
        except OSError:
            message = None
        if message is None:
            self._epoll.unregister(fd)
            del self._served[fd]
            connection.socket.close()
            connection.lost()
            self._calls.put(on_end)
            return
        news = protocol.news_decoder.decode(message[0])
        if isinstance(news, Answer):
            connection.answered(news)
        else:
            self._calls.put(lambda: on_event(news))

    def _call(self) -> None:
        while (callback := self._calls.get()) is not None:
            callback()


def contact(container_id: str, directory: str) -> tuple[Connection, Status] | ExitRecord | None:
    """Find the container's shim, or what it left: a connection with its status, an exit record, or nothing.

    A container whose shim died without a record is killed first, and its record says 137.
    """
    deadline = time.monotonic() + _CONNECT_PATIENCE_S
    while True:
        if (connection := _connect(container_id, directory)) is not None:
            try:
                connection.socket.settimeout(_ANSWER_PATIENCE_S)
                status = connection.ask_alone(protocol.ReadStatus(), Status)
                connection.socket.settimeout(None)
                return connection, status
            except Unavailable:
                connection.socket.close()
        if (left := record.read_exit(directory)) is not None:
            return left
        birth = record.read_birth(directory)
        if birth is None or not record.is_alive(birth.pid, birth.start_ticks):
            # Looked at again: it may have written its record and ended in between.
            return record.read_exit(directory) or (None if birth is None else _bury(birth))
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(birth.pid, signal.SIGKILL)
        time.sleep(0.01)  # the shim is between two states, and neither has an event


def _connect(container_id: str, directory: str) -> Connection | None:
    try:
        parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        peer.connect(f"/proc/self/fd/{parent}/{SOCKET_FILE}")  # the whole path may be too long for a socket's
    except OSError:
        peer.close()
        return None
    finally:
        os.close(parent)
    return Connection(peer, container_id)


def _bury(birth: Birth) -> ExitRecord | None:
    """End what a dead shim's container still runs. None if the shim died before it created anything."""
    if not birth.bundle:
        return None
    if birth.init_pid and record.is_alive(birth.init_pid, birth.init_start_ticks):
        with suppress(ProcessLookupError):
            os.kill(birth.init_pid, signal.SIGKILL)
    reason = "its shim died"
    if birth.cgroup:
        try:
            open_cgroup(birth.cgroup).remove(kill=True, timeout_s=_BURIAL_PATIENCE_S)
        except (OSError, NaruError) as error:
            reason = f"its shim died; {error}"
    return ExitRecord(killed(birth.container_id, reason))


def killed(container_id: str, reason: str) -> Exited:
    """Return the end of a container that left no exit status."""
    return Exited(container_id, 137, datetime.now(UTC), signal=signal.SIGKILL, reason=reason)
