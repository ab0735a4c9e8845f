"""The courier of a container's log, as the shim has it: forked, poked, started again if it dies, told of the end.

What it does is `logs/courier.py`. That is loaded before any shim is forked, so that all share it and no courier has to
load anything; a shim whose log is delivered to nobody does not touch it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from naru.kernel import prctl
from naru.kernel.process import close_range, set_command_line
from naru.logs.courier import be_courier
from naru.logs.delivery import HELD, Delivery
from naru.shim.loop import EPOLLIN, Loop

_AGAIN_S = 1.0
# The container's end waits no longer for its last output to be delivered.
_HELD_TIMEOUT_S = 0.5
_NEWS_BYTES = 1024


class CourierProcess:
    """Has the container's log delivered until `finish`; `on_news` gets what there is to tell of it."""

    def __init__(self, loop: Loop, delivery: Delivery, on_news: Callable[[str], None]) -> None:
        self._loop = loop
        self._delivery = delivery
        self._on_news = on_news
        self._poke = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._channel: socket.socket | None = None
        self._pid = 0
        self._is_finished = False
        self._start()

    def poke(self) -> None:
        """Say that there is more to deliver."""
        os.eventfd_write(self._poke, 1)

    def reaped(self, pid: int) -> bool:
        """Was `pid`, which has ended, the courier? Then another follows, as long as the log goes on."""
        if pid != self._pid:
            return False
        self._pid = 0
        self._forget_channel()
        if not self._is_finished:
            self._loop.call_after(_AGAIN_S, self._start)
        return True

    def finish(self) -> None:
        """Say that the log is complete, and wait until it is delivered; or, if that takes time, may be removed."""
        if not self._pid:
            self._start()
        self._is_finished = True
        if self._channel is not None:
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_WR)
                poll = select.poll()
                poll.register(self._channel, select.POLLIN)
                while poll.poll(_HELD_TIMEOUT_S * 1000):
                    news = self._channel.recv(_NEWS_BYTES)
                    if news in (HELD, b""):
                        break
                    self._on_news(news.decode("utf-8", "replace"))
        self._forget_channel()

    def _start(self) -> None:
        if self._is_finished:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            self._on_news(f"cannot fork a courier: {error}")
            self._loop.call_after(_AGAIN_S, self._start)
            return
        if self._pid == 0:
            _become_courier(self._delivery, theirs, self._poke)
        theirs.close()
        self._channel = ours
        self._loop.watch(ours.fileno(), EPOLLIN, self._read)

    def _read(self, _events: int) -> None:
        assert self._channel is not None
        try:
            news = self._channel.recv(_NEWS_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            news = b""
        if news:
            self._on_news(news.decode("utf-8", "replace"))
        else:
            self._loop.forget(self._channel.fileno())

    def _forget_channel(self) -> None:
        if self._channel is not None:
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None


def _become_courier(delivery: Delivery, channel: socket.socket, poke: int) -> None:
    """Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _close_all_but({channel.fileno(), poke})
        prctl.set_name("naru-courier")
        set_command_line(f"naru-courier {delivery.container_id}")
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("0")  # the shim's would have everything else killed first
        be_courier(delivery, channel, poke)
    finally:
        os._exit(0)


def _close_all_but(kept: set[int]) -> None:
    """Close everything else but the standard streams: clients and the container wait for the end of some of it."""
    first = 3
    for fd in sorted(kept):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)
