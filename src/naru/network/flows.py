"""Stale UDP flows: made to be forgotten in the background after ports were published or withdrawn.

A dump of the kernel's table takes some 4 ms however empty it is, so it is not on a container's way; requests that
arrive meanwhile share the next one. Until then a sender that tried too early is served by the relay.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import partial

from naru.kernel.conntrack import ConntrackSocket, Flow
from naru.kernel.nftables import NFPROTO_IPV4, NFPROTO_IPV6
from naru.kernel.rtnetlink import RouteSocket
from naru.network.record import Publication

_log = logging.getLogger(__name__)
_UDP = 17
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class _Request:
    publications: Sequence[Publication]
    translated: bool


class StaleFlows:
    """One thread, started with the first request, in the namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._conntrack = ConntrackSocket()
        self._route = RouteSocket()
        self._requests: list[_Request] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def forget(self, publications: Sequence[Publication], *, translated: bool) -> None:
        """Forget the flows to UDP `publications` that their container answers (`translated`), or all others."""
        affected = [publication for publication in publications if publication.protocol == "udp"]
        if not affected:
            return
        with self._changed:
            self._requests.append(_Request(affected, translated))
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stale-flows", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Finish what was asked for and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join()
        self._conntrack.close()
        self._route.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._requests)
                requests, self._requests = self._requests, []
            if not requests:
                return
            try:
                local = {address.ip for address in self._route.addresses()}
            except OSError:
                _log.exception("cannot forget stale UDP flows")
                continue
            for family, version in ((NFPROTO_IPV4, 4), (NFPROTO_IPV6, 6)):
                by_port = _by_port(requests, version)
                if not by_port:
                    continue
                try:
                    self._conntrack.forget(family, _UDP, partial(_is_stale, by_port, local))
                except OSError:
                    _log.exception("cannot forget stale UDP flows")


def _by_port(requests: Sequence[_Request], version: int) -> dict[int, list[tuple[Publication, bool]]]:
    by_port: dict[int, list[tuple[Publication, bool]]] = {}
    for request in requests:
        for publication in request.publications:
            host = ipaddress.ip_address(publication.host_ip)
            # Where versions differ nothing is translated: the relay has a socket, and a socket has no stale flows.
            if host.version == version == ipaddress.ip_address(publication.target_ip).version:
                by_port.setdefault(publication.host_port, []).append((publication, request.translated))
    return by_port


def _is_stale(by_port: dict[int, list[tuple[Publication, bool]]], local: Container[_Address], flow: Flow) -> bool:
    destination = str(flow.destination)
    # Flows through this host, of its containers too, may well go to a published number on some other machine.
    is_local = flow.destination.is_loopback or flow.destination in local
    answered_by = (str(flow.answering), flow.answering_port)
    return any(
        (is_local if publication.host_ip in ("0.0.0.0", "::") else destination == publication.host_ip)
        and (answered_by == (publication.target_ip, publication.target_port)) == translated
        for publication, translated in by_port.get(flow.destination_port, ())
    )
