"""A process's stdio as its shim holds it: output to the log and to every attached client, input from the clients.

    stdout, stderr (or the console) ──► log
                                    ├─► sink, sink …    a full sink stops the reading: back-pressure, nothing is lost
    stdin (or the console) ◄── sinks with stdin         a full stdin stops the reading of the sinks' input

Everything is non-blocking but the log file. Docker's rules for the end of a client's input: with `stdin_once` on pipes
the process's stdin is closed; otherwise the client's session ends, and the process does not notice.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from naru.kernel.terminal import set_window_size
from naru.shim.loop import EPOLLIN, EPOLLOUT, Loop
from naru.shim.protocol import AttachRequest, ConsoleSize
from naru.shim.sink import Sink

# One read: a pipe's default capacity. 1 MiB pipes were measured slower here (cache misses).
_CHUNK_BYTES = 64 << 10
_INPUT_LIMIT = 64 << 10
# What may still come out of a dead process's pipes, several times over; more is somebody else writing.
_DRAIN_LIMIT = 16 << 20
# How often a log that is full is looked at again.
_LOG_LOOK_S = 0.05


class Log(Protocol):
    """Where output is kept. While it `is_full` it takes more only if it must."""

    @property
    def is_full(self) -> bool: ...
    def write(self, stream: str, data: bytes) -> None: ...


class Ends(Struct, kw_only=True):
    """The shim's ends of a process's stdio: three pipes, or a terminal's master as `console`."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    console: int | None = None

    def by_name(self) -> dict[str, int]:
        """Return the ends there are."""
        ends = {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr, "console": self.console}
        return {name: fd for name, fd in ends.items() if fd is not None}


class Relay:
    """Relays between a process and its clients; owns its `Ends`.

    `on_attach_closed` gets (attach ID, detached); `on_end` is called once, when the last output stream has ended.
    """

    def __init__(
        self,
        loop: Loop,
        ends: Ends,
        *,
        stdin_once: bool = False,
        log: Log | None = None,
        on_attach_closed: Callable[[str, bool], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._is_terminal = ends.console is not None
        self._closes_stdin = stdin_once and not self._is_terminal
        self._on_attach_closed = on_attach_closed
        self._on_end = on_end
        # The console's two directions are two descriptors, so that each can be watched or not on its own.
        self._stdin = ends.stdin if ends.console is None else os.dup(ends.console)
        streams = {"stdout": ends.stdout, "stderr": ends.stderr} if ends.console is None else {"stdout": ends.console}
        self._sources = {name: fd for name, fd in streams.items() if fd is not None}
        self._paused: set[str] = set()
        self._is_looking = False
        self._sinks: list[Sink] = []
        self._input = bytearray()
        self._input_is_over = False
        self._takes_input = self._stdin is not None
        for fd in [*self._sources.values(), *([] if self._stdin is None else [self._stdin])]:
            os.set_blocking(fd, False)
        for stream in list(self._sources):
            self._watch(stream)

    @property
    def has_ended(self) -> bool:
        """Has all output ended?"""
        return not self._sources

    @property
    def has_clients(self) -> bool:
        return bool(self._sinks)

    def attach(self, request: AttachRequest, fd: int) -> None:
        """Serve one more client on `fd`, which is now ours."""
        if not self._is_terminal and request.detach_keys:
            request = replace(request, detach_keys=b"")  # on pipes any byte may be data
        if not self._takes_input and request.stdin:
            request = replace(request, stdin=False)
        sink = Sink(
            self._loop,
            fd,
            request,
            on_input=self._take_input,
            on_input_end=self._client_input_ended,
            on_room=self._resume_output,
            on_closed=self._sink_closed,
        )
        self._sinks.append(sink)
        sink.open()
        sink.hold_input(len(self._input) >= _INPUT_LIMIT)

    def resize(self, size: ConsoleSize) -> None:
        """Set the terminal's size; without a terminal, or after its end, nothing."""
        if self._is_terminal and self._stdin is not None:
            set_window_size(self._stdin, columns=size.width, rows=size.height)

    def drain(self) -> None:
        """Read what a process that is gone has left, whether or not clients keep up."""
        for stream in list(self._sources):
            left = _DRAIN_LIMIT
            while left > 0 and (size := self._relay(stream)):
                left -= size

    def finish_clients(self) -> None:
        """Let every client go as soon as it has read everything; later output goes to the log alone."""
        self._close_stdin()
        for sink in list(self._sinks):
            sink.finish()

    def close(self) -> None:
        """Close the process's side now, and finish the clients."""
        for stream in list(self._sources):
            self._close_source(stream)
        self.finish_clients()

    # --- output

    def _watch(self, stream: str) -> None:
        self._loop.watch(self._sources[stream], EPOLLIN, lambda _events: self._readable(stream))

    def _readable(self, stream: str) -> None:
        self._relay(stream)
        if stream in self._sources and self._is_held_up(stream):
            # Forgotten, not watched for nothing: epoll reports a hang-up whether asked to or not.
            self._loop.forget(self._sources[stream])
            self._paused.add(stream)

    def _relay(self, stream: str) -> int:
        """Move one chunk; return its size, 0 if there is nothing now or the stream ended."""
        try:
            data = os.read(self._sources[stream], _CHUNK_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""  # EIO: nobody has the terminal open any more
        if not data:
            self._close_source(stream)
            if not self._sources:
                self._on_end()
            return 0
        if self._log is not None:
            self._log.write(stream, data)
        for sink in list(self._sinks):
            if sink.wants(stream):
                sink.write(stream, data)
        return len(data)

    def _is_held_up(self, stream: str) -> bool:
        """Must `stream` wait: for a sink, which says so when it has room, or for the log, which is looked at again?"""
        if self._log is not None and self._log.is_full:
            if not self._is_looking:
                self._is_looking = True
                self._loop.call_after(_LOG_LOOK_S, self._look_at_log)
            return True
        return any(sink.is_full and sink.wants(stream) for sink in self._sinks)

    def _resume_output(self) -> None:
        for stream in [stream for stream in self._paused if not self._is_held_up(stream)]:
            self._paused.discard(stream)
            self._watch(stream)

    def _look_at_log(self) -> None:
        self._is_looking = False
        self._resume_output()

    def _close_source(self, stream: str) -> None:
        fd = self._sources.pop(stream)
        self._paused.discard(stream)
        self._loop.forget(fd)
        os.close(fd)

    def _sink_closed(self, sink: Sink, detached: bool) -> None:
        self._sinks.remove(sink)
        self._resume_output()
        if sink.request.stdin and self._closes_stdin and not detached:
            self._end_input()
        self._on_attach_closed(sink.request.attach_id, detached)

    # --- input

    def _take_input(self, data: bytes) -> None:
        if self._stdin is not None and not self._input_is_over:
            self._input += data
            self._push_input()

    def _push_input(self) -> None:
        """Write what the process takes now; keep the rest and, if that is much, stop reading clients."""
        try:
            while self._input and self._stdin is not None:
                del self._input[: os.write(self._stdin, self._input)]
        except BlockingIOError:
            pass
        except OSError:
            self._close_stdin()  # EPIPE, EIO: the process has closed its end
        if self._stdin is not None:
            if self._input:
                self._loop.watch(self._stdin, EPOLLOUT, lambda _events: self._push_input())
            else:
                self._loop.forget(self._stdin)
                if self._input_is_over:
                    self._close_stdin()
        is_full = len(self._input) >= _INPUT_LIMIT
        for sink in list(self._sinks):
            sink.hold_input(is_full)

    def _client_input_ended(self, sink: Sink) -> None:
        if self._closes_stdin:
            self._end_input()
        else:
            sink.close()

    def _end_input(self) -> None:
        """Close the process's stdin, after what it has still to take."""
        self._input_is_over = True
        if not self._input:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            self._loop.forget(self._stdin)
            os.close(self._stdin)
            self._stdin = None
        self._input.clear()
