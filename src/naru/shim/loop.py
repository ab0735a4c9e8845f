"""The shim's event loop: one epoll, one handler per descriptor, a few deadlines."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

EPOLLIN = select.EPOLLIN
EPOLLOUT = select.EPOLLOUT
EPOLLHUP = select.EPOLLHUP
EPOLLERR = select.EPOLLERR

Handler = Callable[[int], None]


class Loop:
    """Calls a descriptor's handler with its epoll events, until `stop`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._deadlines: list[tuple[float, Callable[[], None]]] = []
        self._is_running = True

    def watch(self, fd: int, events: int, handler: Handler) -> bool:
        """Call `handler` on `events` of `fd`, and on EPOLLHUP and EPOLLERR; replaces what was asked before.

        Returns False, watching nothing, for a descriptor that is always ready (a regular file). epoll_ctl(2)
        """
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            try:
                self._epoll.register(fd, events)
            except PermissionError:
                return False
        self._handlers[fd] = handler
        return True

    def forget(self, fd: int) -> None:
        """Stop watching `fd`; call it before closing `fd`."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, `seconds` from now."""
        self._deadlines.append((time.monotonic() + seconds, callback))

    def stop(self) -> None:
        self._is_running = False

    def run(self) -> None:
        """Serve until `stop`."""
        while self._is_running:
            self.step()

    def step(self) -> None:
        """Wait for events or the next deadline and handle what is due."""
        timeout_s = -1.0
        if self._deadlines:
            timeout_s = max(min(due for due, _ in self._deadlines) - time.monotonic(), 0)
        for fd, events in self._epoll.poll(timeout_s):
            handler = self._handlers.get(fd)  # an earlier handler of this round may have forgotten it
            if handler is not None:
                handler(events)
        if self._deadlines:
            self._call_due()

    def _call_due(self) -> None:
        now = time.monotonic()
        due = [callback for at, callback in self._deadlines if at <= now]
        self._deadlines = [entry for entry in self._deadlines if entry[0] > now]
        for callback in due:
            callback()
