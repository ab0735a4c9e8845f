"""Who is called what on which network: the table that the DNS server of the containers reads. Pure.

On a network of one's own every container is known by its name, the start of its ID, its hostname and its aliases there;
several may share an alias. `name.network` is known too, and is what an address is called. Docker's embedded DNS server
"""

from __future__ import annotations

from collections.abc import Iterable

from naru.network.record import Endpoint, SandboxRecord

_SHORT_ID = 12
_Key = tuple[str, str]


def dns_names(name: str, sandbox_id: str, hostname: str, aliases: Iterable[str]) -> list[str]:
    """Return what a container is called on a network, as inspect shows it."""
    return list(dict.fromkeys(filter(None, (name, *aliases, sandbox_id[:_SHORT_ID], hostname))))


class Names:
    """The names of one daemon. Writers serialise; readers need no lock, as every change replaces an entry."""

    def __init__(self) -> None:
        self._records: dict[str, SandboxRecord] = {}
        self._by_name: dict[_Key, tuple[Endpoint, ...]] = {}
        self._by_address: dict[_Key, str] = {}

    def put(self, record: SandboxRecord) -> None:
        """Add a sandbox, or replace what was known of it."""
        self.drop(record.id)
        self._records[record.id] = record
        for endpoint in _named(record):
            for key in _keys(record, endpoint):
                self._by_name[key] = (*self._by_name.get(key, ()), endpoint)
            for address in filter(None, (endpoint.ip, endpoint.ip6)):
                self._by_address[endpoint.network_id, address] = f"{record.name}.{endpoint.network_name}"

    def drop(self, sandbox_id: str) -> None:
        """Forget a sandbox; no error if it is not known."""
        record = self._records.pop(sandbox_id, None)
        if record is None:
            return
        for endpoint in _named(record):
            for key in _keys(record, endpoint):
                others = tuple(e for e in self._by_name.get(key, ()) if e.endpoint_id != endpoint.endpoint_id)
                if others:
                    self._by_name[key] = others
                else:
                    self._by_name.pop(key, None)
            for address in filter(None, (endpoint.ip, endpoint.ip6)):
                self._by_address.pop((endpoint.network_id, address), None)

    def find(self, sandbox_id: str, name: str) -> tuple[Endpoint, ...]:
        """Return the endpoints that `name` means for a sandbox: on the first of its networks that knows the name.

        Its own links come before everybody's names.
        """
        wanted = name.lower()
        for own in self._networks_of(sandbox_id):
            linked = next((target for target, alias in own.links if alias.lower() == wanted), wanted)
            suffix = f".{own.network_name.lower()}"
            for candidate in (linked.lower(), wanted.removesuffix(suffix)):
                found = self._by_name.get((own.network_id, candidate))
                if found:
                    return found
        return ()

    def find_name(self, sandbox_id: str, address: str) -> str:
        """Return `name.network` of an address on one of a sandbox's networks, or ""."""
        names = (self._by_address.get((own.network_id, address)) for own in self._networks_of(sandbox_id))
        return next(filter(None, names), "")

    def _networks_of(self, sandbox_id: str) -> list[Endpoint]:
        record = self._records.get(sandbox_id)
        if record is None:
            return []
        return sorted(_named(record), key=lambda endpoint: (-endpoint.gw_priority, endpoint.network_name))


def _named(record: SandboxRecord) -> list[Endpoint]:
    return [endpoint for endpoint in record.endpoints if endpoint.has_names]


def _keys(record: SandboxRecord, endpoint: Endpoint) -> list[_Key]:
    names = dns_names(record.name, record.id, record.hostname, endpoint.aliases)
    return [(endpoint.network_id, name) for name in dict.fromkeys(name.lower() for name in names)]
