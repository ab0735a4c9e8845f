"""Sandboxes made in advance: network namespaces with a veth plugged in, so that a start waits for little.

Each is ready to be attached: loopback up; a veth pair, up, whose end inside is `eth0` and whose end on the host is
on no bridge yet; IPv6 off on `eth0` (no link-local address and its 1-2 s of duplicate detection; `Networks` turns it
on where a network has IPv6); an rtnetlink socket open inside. Making one takes about 1 ms when the kernel is idle and
up to 20 ms while it tears others down. Each costs about 300 KiB of kernel memory. They die with the daemon: nothing
but its descriptors holds them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections import deque
from typing import NamedTuple

from naru.kernel import netns
from naru.kernel.rtnetlink import RouteSocket, add_veth, set_up

_log = logging.getLogger(__name__)
DEVICE_PREFIX = "veth"
FIRST_INTERFACE_INDEX = 2
_LOOPBACK_INDEX = 1
_QUIET_S = 0.02  # a start takes 10 ms or so: building the next namespace meanwhile would compete with it
_RETRY_S = 5.0


class ReadyNamespace(NamedTuple):
    """A private namespace with `eth0` in it and `device` on the host. The taker owns all; `route` is inside."""

    netns_fd: int
    route: RouteSocket
    device: str


class NamespacePool:
    """A few ready namespaces, refilled by one background thread. With `size` 0 each is made when taken."""

    def __init__(self, size: int, host: RouteSocket, *, mtu: int) -> None:
        self._size = size
        self._host = host
        self._mtu = mtu
        self._ready: deque[ReadyNamespace] = deque()
        self._changed = threading.Condition()
        self._last_taken = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to fill the pool; harmless to repeat."""
        if self._size and self._thread is None:
            self._thread = threading.Thread(target=self._refill, name="netns-pool", daemon=True)
            self._thread.start()

    def take(self) -> ReadyNamespace:
        """Return a namespace: a ready one, or a new one if there is none."""
        with self._changed:
            self._last_taken = time.monotonic()
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
        return self._make()

    def devices(self) -> set[str]:
        """The host devices of what is ready."""
        with self._changed:
            return {ready.device for ready in self._ready}

    def wait_until_full(self, timeout_s: float) -> bool:
        """Wait for the pool to be full; for measurements and tests."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._ready) >= self._size, timeout_s)

    def close(self) -> None:
        """Stop refilling and drop what is ready."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join()
        while self._ready:
            drop(self._ready.popleft())

    def _refill(self) -> None:
        while self._wait_for_quiet_need():
            try:
                ready = self._make()
            except OSError:
                # Too many namespaces or no memory: the next start makes its own and reports the failure itself.
                _log.exception("cannot make a network namespace in advance")
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, _RETRY_S)
                continue
            with self._changed:  # `close` drops what is ready after this thread has ended
                self._ready.append(ready)
                self._changed.notify_all()

    def _wait_for_quiet_need(self) -> bool:
        """Wait until one is missing and no start is under way; False when the pool closes."""
        with self._changed:
            while not self._closed:
                if len(self._ready) >= self._size:
                    self._changed.wait()
                    continue
                quiet_for_s = time.monotonic() - self._last_taken
                if quiet_for_s >= _QUIET_S:
                    return True
                self._changed.wait(_QUIET_S - quiet_for_s)
        return False

    def _make(self) -> ReadyNamespace:
        netns_fd, route = make_bare()
        device = f"{DEVICE_PREFIX}{secrets.token_hex(4)[:7]}"
        try:
            self._host.transact(
                [add_veth(device, peer_netns_fd=netns_fd, peer_name="eth0", peer_index=2, mtu=self._mtu)]
            )
            route.transact([set_up(FIRST_INTERFACE_INDEX)])
        except BaseException:
            drop(ReadyNamespace(netns_fd, route, device))
            raise
        return ReadyNamespace(netns_fd, route, device)


def make_bare() -> tuple[int, RouteSocket]:
    """Make a namespace with nothing but loopback, up, and a socket inside; the caller owns both."""
    return netns.create(_prepare)


def drop(namespace: ReadyNamespace) -> None:
    """Let a namespace go, and the kernel with it take the veth."""
    namespace.route.close()
    with contextlib.suppress(OSError):
        os.close(namespace.netns_fd)


def write_sysctl(path: str, value: str) -> bool:
    """Write /proc/sys/net/`path` in the calling thread's namespace; False where the host does not allow it."""
    try:
        with open(f"/proc/sys/net/{path}", "w", encoding="ascii") as file:
            file.write(value)
    except OSError:
        return False
    return True


def read_sysctl(path: str) -> str:
    """Read /proc/sys/net/`path`, or return "" where there is none."""
    try:
        with open(f"/proc/sys/net/{path}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _prepare() -> RouteSocket:
    write_sysctl("ipv6/conf/default/disable_ipv6", "1")
    write_sysctl("ipv6/conf/default/accept_dad", "0")
    write_sysctl("ipv6/conf/default/accept_ra", "0")
    route = RouteSocket()
    try:
        route.transact([set_up(_LOOPBACK_INDEX)])
    except BaseException:
        route.close()
        raise
    return route
