"""A terminal session with a container or an exec: our input to its stream, its output to ours, signals beside.

One thread and one poll: input, the stream, a pipe that signals are written to, and the answer that brings the exit
code. Output of a process without terminal arrives in frames: a byte for the stream, three zeros, four for the length.
Engine API, ContainerAttach
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable

from naru.cli.terminal import DetachKeys, RawMode
from naru.errors import NaruError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from naru.client.http import Response

_CHUNK_BYTES = 64 << 10
_HEADER_BYTES = 8
_SYSTEM_ERROR = 3
# Not passed on: what we get for our own sake, and faults of our own
_OURS = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH,
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip
_IMPATIENCE = 3  # so many interrupts end us even if the container ignores them, as in Docker's CLI


class Frames:
    """Takes a multiplexed stream apart and hands each part to `write(stream, data)`; parts of frames too."""

    def __init__(self, write: Callable[[int, bytes], None]) -> None:
        self._write = write
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes. NaruError: the daemon reports an error in the stream."""
        position = 0
        while position < len(data):
            if self._left == 0:
                part = data[position : position + _HEADER_BYTES - len(self._header)]
                self._header += part
                position += len(part)
                if len(self._header) < _HEADER_BYTES:
                    return
                self._left = int.from_bytes(self._header[4:], "big")
                if self._left == 0:
                    self._header = b""
                continue
            part = data[position : position + self._left]
            position += len(part)
            self._left -= len(part)
            stream = self._header[0]
            if self._left == 0:
                self._header = b""
            if stream == _SYSTEM_ERROR:
                raise NaruError(f"error from daemon in stream: {part.decode(errors='replace').strip()}")
            self._write(stream, part)


def write_all(fd: int, data: bytes) -> None:
    """Write everything to `fd`, also where somebody else has made it non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def to_standard_streams(stream: int, data: bytes) -> None:
    """Write one frame's data to our stdout, or stderr for stream 2."""
    write_all(2 if stream == 2 else 1, data)


class Signals:
    """Context in which signals are kept as numbers in a pipe, to be read by the session's poll."""

    def __init__(self, *, is_proxy: bool, is_resize: bool) -> None:
        numbers = {number for number in signal.valid_signals() if number not in _OURS} if is_proxy else set()
        self._numbers = numbers | ({signal.SIGWINCH} if is_resize else set())
        self._before: dict[int, object] = {}
        self.fd = -1

    def __enter__(self) -> Signals:
        self.fd, self._end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._end, warn_on_full_buffer=False)
        for number in self._numbers:
            try:
                self._before[number] = signal.signal(number, lambda *_: None)
            except OSError:
                pass  # kept by the C library for itself
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._end)

    def read(self) -> list[int]:
        """Return the signals that came."""
        try:
            return [number for number in os.read(self.fd, 512) if number in self._numbers]
        except BlockingIOError:
            return []


class Session:
    """One attached stream. `run` returns when it has ended; the caller closes nothing."""

    def __init__(
        self,
        stream: socket.socket,
        held: bytes,
        signals: Signals,
        *,
        is_terminal: bool,
        takes_input: bool,
        detach_keys: str = "",
        on_resize: Callable[[], None] | None = None,
        on_signal: Callable[[int], None] | None = None,
    ) -> None:
        """`is_terminal`: the process has a terminal, so the stream is raw. `held`: its first bytes, already read."""
        self._stream = stream
        self._held = held
        self._signals = signals
        self._is_terminal = is_terminal
        self._takes_input = takes_input
        self._keys = DetachKeys(detach_keys) if is_terminal and takes_input else None
        self._on_resize = on_resize
        self._on_signal = on_signal
        self._frames = Frames(to_standard_streams)
        self._unsent = b""
        self._must_push = False  # the stream had no room for all that is unsent, or for the end of it
        self._is_input_over = not takes_input
        self._interrupts = 0

    def run(self, exited: Response | None = None) -> bool:
        """Carry the streams until the other side closes its own, then wait for `exited`; False if detached by keys."""
        if not (self._is_terminal and self._takes_input):
            return self._run(exited)
        with RawMode(0):
            return self._run(exited)

    def _run(self, exited: Response | None) -> bool:
        self._show(self._held)
        is_open = not self._is_pending or self._take_output()
        while is_open or exited is not None:
            poll = select.poll()
            poll.register(self._signals.fd, select.POLLIN)
            if is_open:
                poll.register(self._stream, select.POLLIN | (select.POLLOUT if self._must_push else 0))
                if not self._is_input_over and not self._must_push:
                    poll.register(0, select.POLLIN)
            elif exited is not None:
                if exited.is_at_hand:
                    return True
                poll.register(exited.fileno(), select.POLLIN)
            ready = dict(poll.poll())
            if self._signals.fd in ready:
                self._take_signals()
            if not is_open:
                if exited is not None and exited.fileno() in ready:
                    return True
                continue
            events = ready.get(self._stream.fileno(), 0)
            if events & select.POLLOUT:
                self._push()
            if 0 in ready and not self._take_input():
                return False
            if events & ~select.POLLOUT:
                is_open = self._take_output()
        return True

    def _take_output(self) -> bool:
        while True:
            try:
                data = self._stream.recv(_CHUNK_BYTES)
            except ConnectionError:
                return False
            if not data:
                return False
            self._show(data)
            if not self._is_pending:
                return True

    @property
    def _is_pending(self) -> bool:
        """True if the stream has output at hand that poll cannot see: TLS."""
        pending = getattr(self._stream, "pending", None)
        return pending is not None and pending() > 0

    def _show(self, data: bytes) -> None:
        if self._is_terminal:
            write_all(1, data)
        else:
            self._frames.feed(data)

    def _take_input(self) -> bool:
        try:
            typed = os.read(0, _CHUNK_BYTES)
        except OSError:
            typed = b""
        if not typed:
            self._is_input_over = True
            self._push()
            return True
        is_detached = False
        if self._keys is not None:
            typed, is_detached = self._keys.feed(typed)
        self._unsent += typed
        self._push()
        return not is_detached

    def _push(self) -> None:
        """Send what the stream takes now; after the last of the input close our half."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._stream.send(self._unsent, socket.MSG_DONTWAIT) :]
            if self._is_input_over:
                self._stream.shutdown(socket.SHUT_WR)
            self._must_push = False
        except BlockingIOError:
            self._must_push = True
        except OSError:
            self._unsent, self._is_input_over = b"", True  # nobody reads it any more; the output says why
            self._must_push = False

    def _take_signals(self) -> None:
        for number in self._signals.read():
            if number == signal.SIGWINCH:
                if self._on_resize is not None:
                    self._on_resize()
            elif self._on_signal is not None:
                if number in (signal.SIGINT, signal.SIGTERM):
                    self._interrupts += 1
                    if self._interrupts >= _IMPATIENCE:
                        raise KeyboardInterrupt
                self._on_signal(number)
