"""Published ports: reserved on the host, translated by the kernel, carried by the relay where it cannot.

One object for all sandboxes. What is published where is in the sandboxes' records; here are the sockets that hold the
host ports. Callers serialise.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import msgspec

from naru.errors import NaruError
from naru.network.firewall import Firewall
from naru.network.record import Endpoint, PortBinding, Publication
from naru.network.relay import Relay
from naru.network.reserve import PortReservations, Reserved, target_for

_log = logging.getLogger(__name__)


class PublishedPorts:
    """The published ports of this daemon. `reinstall` brings the whole firewall to what the records say."""

    def __init__(self, firewall: Firewall, reinstall: Callable[[], None]) -> None:
        self._firewall = firewall
        self._reinstall = reinstall
        self._reservations = PortReservations()
        self._relay = Relay()
        self._reserved: dict[str, list[Reserved]] = {}

    def publish(
        self,
        sandbox_id: str,
        outward: Endpoint,
        ports: Sequence[PortBinding],
        *,
        name: str,
        default_host_ip: str,
        undo: ExitStack,
    ) -> tuple[Publication, ...]:
        """Publish `ports` on `outward`, all or none; `undo` withdraws them. Conflict, in Docker's words: one is taken.

        `name` is the container's, for messages.
        """
        try:
            reserved = self._reservations.reserve(
                ports, target_ip=outward.ip, target_ip6=outward.ip6, default_host_ip=default_host_ip
            )
        except NaruError as error:
            subject = f"driver failed programming external connectivity on endpoint {name} ({outward.endpoint_id})"
            raise type(error)(f"{subject}: {error}") from error
        undo.callback(self._reservations.release, reserved)
        publications = tuple(entry.publication for entry in reserved)
        self._translate(publications)
        undo.callback(self._firewall.withdraw, publications)
        self._relay_all(reserved)
        undo.callback(self._relay.remove, [entry.socket for entry in reserved if entry.socket])
        self._reserved[sandbox_id] = reserved
        undo.callback(self._reserved.pop, sandbox_id, None)
        return publications

    def move(self, sandbox_id: str, outward: Endpoint) -> tuple[Publication, ...]:
        """Lead a sandbox's published ports to another of its endpoints; the host ports stay reserved throughout."""
        held = self._reserved.get(sandbox_id, [])
        moved = [
            Reserved(msgspec.structs.replace(entry.publication, target_ip=_target(entry, outward)), entry.socket)
            for entry in held
        ]
        self._relay.remove([entry.socket for entry in held if entry.socket])
        leaving = [entry.publication for entry in held]
        if not self._firewall.withdraw(leaving):
            self._reinstall()
            self._firewall.withdraw(leaving)
        publications = tuple(entry.publication for entry in moved)
        self._translate(publications)
        self._relay_all(moved)
        self._reserved[sandbox_id] = moved
        return publications

    def withdraw(self, sandbox_id: str, publications: Sequence[Publication]) -> None:
        """Make a sandbox's ports unreachable and give them back. The records no longer name them."""
        held = self._reserved.pop(sandbox_id, [])
        self._relay.remove([entry.socket for entry in held if entry.socket])
        if publications and not self._firewall.withdraw(publications):
            self._reinstall()
        self._reservations.release(held)

    def restore(self, sandbox_id: str, publications: Sequence[Publication]) -> None:
        """Reserve the ports of a sandbox of the records again. What somebody took meanwhile is logged, not fatal:
        translation still serves everybody but the relay."""
        if sandbox_id in self._reserved:
            return
        reserved, failures = self._reservations.restore(publications)
        for failure in failures:
            _log.warning("sandbox %s: cannot reserve a published port again: %s", sandbox_id, failure)
        self._reserved[sandbox_id] = reserved
        self._relay_all(reserved)

    def close(self) -> None:
        """Let go of sockets and the relay; translations stay, as running containers need them."""
        self._relay.close()
        for reserved in self._reserved.values():
            self._reservations.release(reserved)
        self._reserved.clear()

    def _translate(self, publications: Sequence[Publication]) -> None:
        try:
            self._firewall.publish(publications)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            self._reinstall()  # somebody flushed the ruleset a moment ago
            self._firewall.publish(publications)

    def _relay_all(self, reserved: Sequence[Reserved]) -> None:
        for publication, holder in reserved:
            if holder:
                self._relay.add(holder, (publication.target_ip, publication.target_port))


def _target(entry: Reserved, outward: Endpoint) -> str:
    return target_for(entry.publication.host_ip, outward.ip, outward.ip6)
