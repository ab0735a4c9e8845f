"""One attached client: output framed and buffered towards it, its input read, its leaving noticed.

The descriptor is usually the client's own hijacked connection; a pipe or a file will do for output. Not its business:
whose output it is, and what happens to the input.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections import deque
from collections.abc import Callable

from naru.shim.detach import DetachKeys
from naru.shim.loop import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, Loop
from naru.shim.protocol import AttachRequest

# Output held for a client that does not read; beyond it the container's output is not read either.
BUFFER_BYTES = 1 << 20

_INPUT_BYTES = 32 << 10
_MAX_VECTORS = 64
_STREAM_NUMBERS = {"stdout": 1, "stderr": 2}
# Docker's frame: stream number, three zero bytes, length. Engine API, ContainerAttach, Stream format
_HEADER = struct.Struct(">BxxxI")


class Sink:
    """Serves one client until it is `finish`ed, detaches or goes; then calls `on_closed` once.

    `on_input` gets what the client types, `on_input_end` its half-close, `on_room` tells that `is_full` became false.
    """

    def __init__(
        self,
        loop: Loop,
        fd: int,
        request: AttachRequest,
        *,
        on_input: Callable[[bytes], None],
        on_input_end: Callable[[Sink], None],
        on_room: Callable[[], None],
        on_closed: Callable[[Sink, bool], None],
    ) -> None:
        self.request = request
        self._loop = loop
        self._fd = fd
        self._on_input = on_input
        self._on_input_end = on_input_end
        self._on_room = on_room
        self._on_closed = on_closed
        self._keys = DetachKeys(request.detach_keys)
        self._pending: deque[memoryview] = deque()
        self._pending_bytes = 0
        self._reads = request.stdin
        self._is_input_held = False
        self._is_finishing = False
        self._is_closed = False
        os.set_blocking(fd, False)

    def open(self) -> None:
        """Begin serving: the input that was read before the client was handed over comes first."""
        if self.request.prefix and self._reads:
            self._take(self.request.prefix)
        self._watch()

    def wants(self, stream: str) -> bool:
        return self.request.stdout if stream == "stdout" else self.request.stderr

    @property
    def is_full(self) -> bool:
        return self._pending_bytes > BUFFER_BYTES

    def write(self, stream: str, data: bytes) -> None:
        """Send output now, or keep it until the client reads. `is_full` is advice, not a limit."""
        if self._is_closed:
            return
        parts: list[bytes] = [data]
        if self.request.multiplexed:
            parts.insert(0, _HEADER.pack(_STREAM_NUMBERS[stream], len(data)))
        written = 0
        if not self._pending:
            try:
                written = os.writev(self._fd, parts)
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
        for part in parts:
            if written < len(part):
                self._pending.append(memoryview(part)[written:])
                self._pending_bytes += len(part) - written
            written = max(written - len(part), 0)
        if self._pending:
            self._watch()

    def hold_input(self, is_held: bool) -> None:
        """Stop or resume reading the client's input."""
        if self._is_input_held != is_held and not self._is_closed:
            self._is_input_held = is_held
            self._watch()

    def finish(self) -> None:
        """Close once the client has got everything; its input no longer matters."""
        self._is_finishing = True
        self._reads = False
        if self._is_closed:
            return
        if self._pending:
            self._watch()
        else:
            self.close()

    def close(self, *, detached: bool = False) -> None:
        """Let the client see the end and stop serving it, dropping what it has not read."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.forget(self._fd)
        self._pending.clear()
        self._pending_bytes = 0
        _end_output(self._fd)
        os.close(self._fd)
        self._on_closed(self, detached)

    def _watch(self) -> None:
        if self._is_closed:
            return
        events = (EPOLLOUT if self._pending else 0) | (EPOLLIN if self._reads and not self._is_input_held else 0)
        if not self._loop.watch(self._fd, events, self._handle) and self._pending:
            self._flush()

    def _handle(self, events: int) -> None:
        if events & EPOLLOUT and self._pending:
            self._flush()
        if self._is_closed:
            return
        is_gone = bool(events & (EPOLLHUP | EPOLLERR))
        if self._reads and (events & EPOLLIN or is_gone):
            if self._is_input_held:
                # The peer is gone but its last words are not read yet: come back for them when there is room.
                self._loop.forget(self._fd)
                return
            self._read()
        elif is_gone:
            self.close()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _INPUT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
            return
        self._reads = False
        self._on_input_end(self)
        self._watch()

    def _take(self, data: bytes) -> None:
        data, detached = self._keys.feed(data)
        if data:
            self._on_input(data)
        if detached:
            self.close(detached=True)

    def _flush(self) -> None:
        was_full = self.is_full
        try:
            while self._pending:
                written = os.writev(self._fd, [self._pending[i] for i in range(min(len(self._pending), _MAX_VECTORS))])
                self._pending_bytes -= written
                while written and written >= len(self._pending[0]):
                    written -= len(self._pending.popleft())
                if written:
                    self._pending[0] = self._pending[0][written:]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if was_full and not self.is_full:
            self._on_room()
        if not self._pending:
            if self._is_finishing:
                self.close()
            else:
                self._watch()


def _end_output(fd: int) -> None:
    """Send the end of the stream even while narud still holds the connection. shutdown(2)"""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return
    connection = socket.socket(fileno=os.dup(fd))
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the peer is gone already
    finally:
        connection.close()
