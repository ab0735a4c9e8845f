"""Names of containers and the DNS server that answers them: one object for all sandboxes, started when first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naru.network.names import Names
from naru.network.record import SandboxRecord

if TYPE_CHECKING:
    from naru.network.resolver import Resolver


class NameService:
    """Who is called what, answered at 127.0.0.11 in every sandbox on a network of one's own. Callers serialise.

    `resolv_conf` is the host's file of servers for all other names.
    """

    def __init__(self, resolv_conf: str) -> None:
        self._names = Names()
        self._resolv_conf = resolv_conf
        self._resolver: Resolver | None = None

    def know(self, record: SandboxRecord) -> None:
        """Let others find a sandbox by the names and addresses that its record has now."""
        self._names.put(record)

    def serve(self, record: SandboxRecord, netns_fd: int, *, can_forward: bool) -> tuple[int, int]:
        """Answer a sandbox's queries if it is on a network of one's own, and else no longer; return `dns_ports`.

        Without `can_forward` nobody outside is asked.
        """
        self._names.put(record)
        if any(endpoint.has_names for endpoint in record.endpoints):
            return self._started().serve(
                record.id, netns_fd, dns=record.dns, can_forward=can_forward, ports=record.dns_ports
            )
        if self._resolver:
            self._resolver.remove(record.id)
        return 0, 0

    def forget(self, sandbox_id: str) -> None:
        """Stop answering a sandbox, and let nobody find it. Harmless to repeat."""
        self._names.drop(sandbox_id)
        if self._resolver:
            self._resolver.remove(sandbox_id)

    def close(self) -> None:
        """Let go of every namespace."""
        if self._resolver:
            self._resolver.close()

    def _started(self) -> Resolver:
        if self._resolver is None:
            from naru.network.nameservers import HostNameservers
            from naru.network.resolver import Resolver  # some MB that a daemon needs only for networks of one's own

            self._resolver = Resolver(self._names, HostNameservers(self._resolv_conf))
        return self._resolver
