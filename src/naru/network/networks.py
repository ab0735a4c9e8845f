"""Networks: the daemon's one object for networks, sandboxes and published ports.

A sandbox is a network namespace with endpoints, known by its container's ID. `join` makes it and hands out the
namespace's descriptor, `leave` ends it. What runs on the host (bridges, veths, nf_tables) is always derivable from the
records, so `ensure_default` and `reconcile` bring the host to what the records say after any crash. A kill between
the kernel's work and the record leaves a namespace nobody holds, which the kernel removes, and elements
that the next `install` does not contain.

One lock serialises everything here: the kernel's own (rtnl) would, anyway.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Collection, Mapping, MutableSequence, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
from msgspec import Struct

from naru.errors import Conflict, Forbidden, InvalidArgument, NaruError, NotFound
from naru.kernel import netns
from naru.kernel.netlink import Message
from naru.kernel.rtnetlink import Counters, RouteSocket, counters
from naru.network import bridge, create, endpoint, ipam
from naru.network.coexist import FirewallWatch, accept_in_foreign_chains
from naru.network.firewall import Firewall
from naru.network.namespaces import DEVICE_PREFIX as VETH_PREFIX
from naru.network.namespaces import NamespacePool, ReadyNamespace, drop, make_bare, write_sysctl
from naru.network.record import (
    DEVICE_PREFIX,
    OPTION_HOST_BINDING,
    Driver,
    Endpoint,
    EndpointRequest,
    Network,
    PortBinding,
    Publication,
    Records,
    Sandbox,
    SandboxRecord,
    Subnet,
)
from naru.network.relay import Relay
from naru.network.reserve import PortReservations, Reserved
from naru.persist.database import Database

_log = logging.getLogger(__name__)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class NetworkSettings(Struct, frozen=True):
    """What the administrator may change. `ready_namespaces` trades 215 KiB of kernel memory each for 0.5-20 ms."""

    bridge: str = "naru0"
    bridge_subnet: str = ""
    mtu: int = 1500
    pools: tuple[tuple[str, int], ...] = ipam.DEFAULT_POOLS
    ready_namespaces: int = 4
    default_host_ip: str = ""


class Networks:
    """Networks and sandboxes of one daemon, in the network namespace of the thread that made it."""

    def __init__(self, database: Database, *, settings: NetworkSettings | None = None) -> None:
        self._settings = settings or NetworkSettings()
        self._records = Records(database)
        self._lock = threading.RLock()
        self._route = RouteSocket()
        self._firewall = Firewall()
        self._reservations = PortReservations()
        self._relay = Relay()
        self._pool = NamespacePool(self._settings.ready_namespaces, self._route, mtu=self._settings.mtu)
        self._watch: FirewallWatch | None = None
        self._bridge_index: dict[str, int] = {}
        self._can_translate_loopback = True
        self._reserved: dict[str, Sequence[Reserved]] = {}
        self._netns: dict[str, int] = {}
        self._networks = {network.id: network for network in self._records.networks()}
        self._sandboxes = {record.id: record for record in self._records.sandboxes()}
        self._addresses = {network.id: _pools(network) for network in self._networks.values()}
        for record in self._sandboxes.values():
            for attached in record.endpoints:
                self._take_recorded(attached)

    # The daemon's life

    def ensure_default(self) -> None:
        """Make the predefined networks and bring the host to what is recorded; call once, before any `join`."""
        with self._lock:
            self._add_predefined()
            for network in self._networks.values():
                if network.is_bridge:
                    self._ensure_device(network)
            self._install()
            if self._watch is None:
                self._watch = FirewallWatch(self._repair_firewall)
        self._pool.start()

    def reconcile(self, live: Collection[str]) -> None:
        """Forget the sandboxes that are not in `live`, and remove devices that no record explains."""
        with self._lock:
            for sandbox_id in [known for known in self._sandboxes if known not in live]:
                self.leave(sandbox_id)
            known_devices = {e.device for record in self._sandboxes.values() for e in record.endpoints}
            bridges = {network.device: network for network in self._networks.values() if network.is_bridge}
            links = self._route.links()
            bridge_indexes = {link.number for link in links if link.name in bridges}
            for link in links:
                is_stray_port = link.kind == "veth" and link.master in bridge_indexes and link.name not in known_devices
                is_stray_bridge = (
                    link.kind == "bridge" and link.name.startswith(DEVICE_PREFIX) and link.name not in bridges
                )
                if (is_stray_port and link.name.startswith(VETH_PREFIX)) or is_stray_bridge:
                    endpoint.unplug(self._route, link.name)
            self._install()

    def close(self) -> None:
        """Let go of sockets, threads and namespaces; bridges, translations and containers stay as they are."""
        if self._watch:
            self._watch.close()
        self._pool.close()
        self._relay.close()
        with self._lock:
            for reserved in self._reserved.values():
                self._reservations.release(reserved)
            self._reserved.clear()
            for netns_fd in self._netns.values():
                os.close(netns_fd)
            self._netns.clear()
            self._firewall.close()
            self._route.close()

    # Networks

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: Sequence[Subnet] = (),
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        internal: bool = False,
        attachable: bool = False,
        enable_ipv6: bool = False,
        ipam_options: Mapping[str, str] | None = None,
    ) -> Network:
        """Make a user-defined bridge network. Without an IPv4 subnet it gets the first free predefined one.

        Conflict: the name is taken. Forbidden: a subnet overlaps another network's. Engine API, NetworkCreate
        """
        with self._lock, ExitStack() as undo:
            network = create.user_defined(
                name,
                driver=driver,
                subnets=subnets,
                options=options or {},
                labels=labels or {},
                internal=internal,
                attachable=attachable,
                enable_ipv6=enable_ipv6,
                ipam_options=ipam_options or {},
                existing=self._networks.values(),
                host_routes=self._host_routes(),
                pools=self._settings.pools,
            )
            if self._route.link(network.device):
                raise Conflict(f"cannot create network {name}: device {network.device} already exists")
            self._add(network)
            undo.callback(self._drop, network)
            self._ensure_device(network)
            self._install()
            undo.pop_all()
            return network

    def get(self, name_or_id: str) -> Network:
        """Return a network by name, ID or unambiguous start of an ID. NotFound in Docker's words."""
        with self._lock:
            for network in self._networks.values():
                if name_or_id in (network.name, network.id):
                    return network
            matches = [n for n in self._networks.values() if name_or_id and n.id.startswith(name_or_id)]
        if len(matches) > 1:
            raise InvalidArgument(f"network {name_or_id} is ambiguous ({len(matches)} matches found on ID prefix)")
        if not matches:
            raise NotFound(f"network {name_or_id} not found")
        return matches[0]

    def list(self) -> list[Network]:
        """Return every network, oldest first."""
        with self._lock:
            return sorted(self._networks.values(), key=lambda network: network.created)

    def endpoints(self, network_id: str) -> dict[str, Endpoint]:
        """Return the endpoints on a network by sandbox ID."""
        with self._lock:
            return {
                record.id: attached
                for record in self._sandboxes.values()
                for attached in record.endpoints
                if attached.network_id == network_id
            }

    def remove(self, name_or_id: str) -> Network:
        """Remove a user-defined network without endpoints, and return what it was."""
        with self._lock:
            network = self.get(name_or_id)
            if network.is_predefined:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            if self.endpoints(network.id):
                raise Forbidden(
                    f"error while removing network: network {network.name} id {network.id} has active endpoints",
                    hint="stop or disconnect its containers first",
                )
            self._drop(network)
            self._install()
            return network

    # Sandboxes

    def join(
        self,
        sandbox_id: str,
        endpoints: Sequence[EndpointRequest],
        ports: Sequence[PortBinding] = (),
        *,
        name: str = "",
    ) -> Sandbox:
        """Make the sandbox of a container about to start; `name` is the container's, for messages.

        Its namespace has loopback up and the endpoints as eth0, eth1…; the first that leads outside has the default
        route and the published ports. The descriptor stays ours until `leave`: send it on, do not close it.
        """
        # Before the lock: when none is ready, making one takes milliseconds.
        namespaces = [self._pool.take() if endpoints else ReadyNamespace(*make_bare(), device="")]
        try:
            with self._lock, ExitStack() as undo:
                if sandbox_id in self._sandboxes:
                    raise Conflict(f"sandbox {sandbox_id} is already joined")
                allocated = [self._allocate(request, position, undo) for position, request in enumerate(endpoints)]
                outward = next((e for e in allocated if not self._networks[e.network_id].internal), None)
                attached = self._plug_first(allocated, namespaces, outward)
                reserved: Sequence[Reserved] = []
                if outward and ports:
                    reserved = self._publish(outward, ports, name or sandbox_id, undo)
                published = tuple(entry.publication for entry in reserved)
                record = SandboxRecord(sandbox_id, name, tuple(attached), published)
                self._records.save_sandbox(record)
                undo.pop_all()
                self._sandboxes[sandbox_id] = record
                self._netns[sandbox_id] = namespaces[0].netns_fd
                self._reserved[sandbox_id] = reserved
                namespaces[0].route.close()
                return self._sandbox(record)
        except BaseException:
            drop(namespaces[0])
            raise

    def private_netns(self) -> int:
        """Return a namespace with nothing but loopback, for network `none` and builds; the caller closes it."""
        netns_fd, route = make_bare()
        route.close()
        return netns_fd

    def sandbox(self, sandbox_id: str) -> Sandbox:
        """Return a joined sandbox."""
        with self._lock:
            return self._sandbox(self._record(sandbox_id))

    def connect(self, sandbox_id: str, request: EndpointRequest) -> Sandbox:
        """Attach a running sandbox to one more network. It gets the default route if it had none."""
        with self._lock, ExitStack() as undo:
            record = self._record(sandbox_id)
            netns_fd = self._netns.get(sandbox_id, -1)
            if netns_fd < 0:
                raise Conflict(f"sandbox {sandbox_id} is not restored")
            network = self.get(request.network)
            if any(existing.network_id == network.id for existing in record.endpoints):
                raise Forbidden(f"endpoint with name {record.name} already exists in network {network.name}")
            taken = {int(existing.interface.removeprefix("eth")) for existing in record.endpoints}
            position = next(number for number in range(len(taken) + 1) if number not in taken)
            attached = self._allocate(request, position, undo)
            has_way_out = any(existing.gateway or existing.gateway6 for existing in record.endpoints)
            with closing(netns.run_inside(netns_fd, RouteSocket)) as route:
                default = None if has_way_out or network.internal else attached
                self._plug([attached], netns_fd, route, default, has_first=False)
            undo.callback(endpoint.unplug, self._route, attached.device)
            record = msgspec.structs.replace(record, endpoints=(*record.endpoints, attached))
            self._records.save_sandbox(record)
            undo.pop_all()
            self._sandboxes[sandbox_id] = record
            return self._sandbox(record)

    def disconnect(self, sandbox_id: str, network_name_or_id: str) -> Sandbox:
        """Detach a sandbox from a network; ports that were published there are withdrawn, none move."""
        with self._lock:
            record, network = self._record(sandbox_id), self.get(network_name_or_id)
            leaving = next((e for e in record.endpoints if e.network_id == network.id), None)
            if leaving is None:
                raise NotFound(f"container {sandbox_id} is not connected to network {network.name}")
            targets = (leaving.ip, leaving.ip6)
            withdrawn = [p for p in record.publications if p.target_ip in targets]
            record = msgspec.structs.replace(
                record,
                endpoints=tuple(e for e in record.endpoints if e is not leaving),
                publications=tuple(p for p in record.publications if p not in withdrawn),
            )
            self._records.save_sandbox(record)
            self._sandboxes[sandbox_id] = record
            self._withdraw(sandbox_id, withdrawn)
            endpoint.unplug(self._route, leaving.device)
            self._release_addresses(leaving)
            return self._sandbox(record)

    def leave(self, sandbox_id: str) -> None:
        """End a sandbox: ports, addresses and our hold on its namespace go. Harmless to repeat."""
        with self._lock:
            record = self._sandboxes.get(sandbox_id)
            if record is None:
                return
            self._records.delete_sandbox(sandbox_id)
            del self._sandboxes[sandbox_id]
            self._withdraw(sandbox_id, record.publications)
            self._reserved.pop(sandbox_id, None)
            endpoint.silence(self._route, [attached.device for attached in record.endpoints])
            for attached in record.endpoints:
                self._release_addresses(attached)
            netns_fd = self._netns.pop(sandbox_id, -1)
            if netns_fd >= 0:
                os.close(netns_fd)

    def restore(self, sandbox_id: str, netns_fd: int) -> Sandbox:
        """Take up a running sandbox after a restart: hold its namespace (a duplicate) and bind its ports again.

        A port that somebody took meanwhile is logged, not fatal: translation still serves everybody but the relay.
        """
        with self._lock:
            record = self._record(sandbox_id)
            if sandbox_id not in self._netns:
                self._netns[sandbox_id] = os.dup(netns_fd)
            if sandbox_id not in self._reserved:
                reserved, failures = self._reservations.restore(record.publications)
                for failure in failures:
                    _log.warning("sandbox %s: cannot reserve a published port again: %s", sandbox_id, failure)
                self._reserved[sandbox_id] = reserved
                self._relay_all(reserved)
            return self._sandbox(record)

    def traffic(self, sandbox_id: str) -> dict[str, Counters]:
        """Return each interface's counters as the container sees them."""
        with self._lock:
            found = {}
            for attached in self._record(sandbox_id).endpoints:
                link = self._route.link(attached.device)
                if link:
                    seen = counters(link)
                    # The host's end receives what the container sends.
                    found[attached.interface] = Counters(*(seen[position ^ 1] for position in range(len(seen))))
            return found

    # Parts of the verbs above, under the lock

    def _record(self, sandbox_id: str) -> SandboxRecord:
        try:
            return self._sandboxes[sandbox_id]
        except KeyError:
            raise NotFound(f"sandbox {sandbox_id} not found") from None

    def _sandbox(self, record: SandboxRecord) -> Sandbox:
        return Sandbox(record.id, self._netns.get(record.id, -1), record.endpoints, record.ports)

    def _allocate(self, request: EndpointRequest, position: int, undo: ExitStack) -> Endpoint:
        network = self.get(request.network)
        if not network.is_bridge:
            raise InvalidArgument(f"network {network.name} takes no endpoints")
        return endpoint.allocate(network, self._addresses[network.id], request, position=position, undo=undo)

    def _plug_first(
        self, attached: Sequence[Endpoint], namespaces: MutableSequence[ReadyNamespace], default: Endpoint | None
    ) -> Sequence[Endpoint]:
        """Attach endpoints to the one new namespace; return them, the first with the veth that was ready.

        If somebody deleted our bridge or that veth, they are made again, once.
        """
        if not attached:
            return attached
        for is_last_try in (False, True):
            ready = namespaces[0]
            plugged = [msgspec.structs.replace(attached[0], device=ready.device), *attached[1:]]
            try:
                self._plug(plugged, ready.netns_fd, ready.route, default)
                return plugged
            except OSError as error:
                if is_last_try or error.errno not in (errno.EINVAL, errno.ENODEV):
                    raise
            for network in {e.network_id: self._networks[e.network_id] for e in attached}.values():
                self._ensure_device(network)
            drop(namespaces.pop())
            namespaces.append(self._pool.take())
        raise AssertionError("the second try returns or raises")

    def _plug(
        self,
        attached: Sequence[Endpoint],
        netns_fd: int,
        inside: RouteSocket,
        default: Endpoint | None,
        *,
        has_first: bool = True,
    ) -> None:
        """Attach endpoints to a namespace; `has_first` says that the veth of the first exists already."""
        host_side: list[Message] = []
        inner_side: list[Message] = []
        for position, e in enumerate(attached):
            network = self._networks[e.network_id]
            if position or not has_first:
                host_side.append(endpoint.new_veth(e, netns_fd, mtu=network.mtu))
            mtu = self._settings.mtu if has_first and not position else network.mtu
            host_side += endpoint.plug_host_side(network, self._bridge_index[network.id], e, mtu=mtu)
            is_default = default is not None and e.endpoint_id == default.endpoint_id
            inner_side += endpoint.plug_inside(network, e, is_default_route=is_default, mtu=mtu)
        self._route.transact(host_side)
        with_ipv6 = [e.interface for e in attached if e.ip6]
        if with_ipv6:
            netns.run_inside(netns_fd, lambda: _enable_ipv6(with_ipv6))
        inside.transact(inner_side)

    def _publish(
        self, outward: Endpoint, ports: Sequence[PortBinding], name: str, undo: ExitStack
    ) -> Sequence[Reserved]:
        options = self._networks[outward.network_id].options
        try:
            reserved = self._reservations.reserve(
                ports,
                target_ip=outward.ip,
                target_ip6=outward.ip6,
                default_host_ip=options.get(OPTION_HOST_BINDING) or self._settings.default_host_ip,
            )
        except NaruError as error:
            subject = f"driver failed programming external connectivity on endpoint {name} ({outward.endpoint_id})"
            raise type(error)(f"{subject}: {error}") from error
        undo.callback(self._reservations.release, reserved)
        publications = [entry.publication for entry in reserved]
        try:
            self._firewall.publish(publications)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            self._install()  # somebody flushed the ruleset a moment ago
            self._firewall.publish(publications)
        undo.callback(self._firewall.withdraw, publications)
        self._relay_all(reserved)
        undo.callback(self._relay.remove, [entry.socket for entry in reserved if entry.socket])
        return reserved

    def _relay_all(self, reserved: Sequence[Reserved]) -> None:
        for publication, holder in reserved:
            if holder:
                self._relay.add(holder, (publication.target_ip, publication.target_port))

    def _withdraw(self, sandbox_id: str, publications: Sequence[Publication]) -> None:
        held, leaving = self._reserved.get(sandbox_id, []), set(publications)
        going = [entry for entry in held if entry.publication in leaving]
        self._reserved[sandbox_id] = [entry for entry in held if entry.publication not in leaving]
        self._relay.remove([entry.socket for entry in going if entry.socket])
        if publications and not self._firewall.withdraw(publications):
            self._install()
        self._reservations.release(going)

    def _release_addresses(self, attached: Endpoint) -> None:
        pools = self._addresses.get(attached.network_id, {})
        for version, address in ((4, attached.ip), (6, attached.ip6)):
            if address and version in pools:
                pools[version].release(address)

    def _take_recorded(self, attached: Endpoint) -> None:
        pools = self._addresses.get(attached.network_id, {})
        for version, address in ((4, attached.ip), (6, attached.ip6)):
            if address and version in pools:
                with contextlib.suppress(Conflict):
                    pools[version].take(address)

    def _add(self, network: Network) -> None:
        self._records.save_network(network)
        self._networks[network.id] = network
        self._addresses[network.id] = _pools(network)

    def _drop(self, network: Network) -> None:
        self._records.delete_network(network.id)
        self._networks.pop(network.id, None)
        self._addresses.pop(network.id, None)
        self._bridge_index.pop(network.id, None)
        bridge.remove(self._route, network.device)

    def _has_device(self, network: Network) -> bool:
        link = self._route.link(network.device)
        return link is not None and link.number == self._bridge_index.get(network.id)

    def _ensure_device(self, network: Network) -> None:
        self._bridge_index[network.id] = bridge.ensure(self._route, network)
        self._can_translate_loopback = bridge.allow_loopback_source(network) and self._can_translate_loopback
        if bridge.enable_forwarding([network]):
            self._records.remember_forwarding(_boot_id())

    def _install(self) -> None:
        networks = list(self._networks.values())
        publications = [p for record in self._sandboxes.values() for p in record.publications]
        self._firewall.install(
            networks,
            publications,
            loopback=self._can_translate_loopback,
            closed=self._records.forwarding_since() == _boot_id(),
        )
        accept_in_foreign_chains(self._firewall.nftables, [n.device for n in networks if n.is_bridge])

    def _repair_firewall(self) -> None:
        """After somebody else changed the host's nf_tables: ours must be there, theirs must let us through."""
        with self._lock:
            if not self._firewall.is_installed():
                _log.warning("our nf_tables were removed: installing them again")
                self._install()
                return
            devices = [network.device for network in self._networks.values() if network.is_bridge]
            changed = accept_in_foreign_chains(self._firewall.nftables, devices)
            if changed:
                _log.info("changed %d rules in foreign forward chains", changed)

    def _add_predefined(self) -> None:
        names = {network.name for network in self._networks.values()}
        if "bridge" not in names:
            self._add(
                create.default_bridge(
                    self._settings.bridge,
                    mtu=self._settings.mtu,
                    subnet=self._settings.bridge_subnet,
                    existing=self._networks.values(),
                    host_routes=self._host_routes(),
                    pools=self._settings.pools,
                )
            )
        for name, driver in (("host", Driver.HOST), ("none", Driver.NULL)):
            if name not in names:
                self._add(create.without_endpoints(name, driver))

    def _host_routes(self) -> Sequence[ipam.AnyNetwork]:
        """Where the host goes by routes that are not our networks' own."""
        devices = {network.device for network in self._networks.values() if network.is_bridge}
        own = {link.number for link in self._route.links() if link.name in devices | {self._settings.bridge}}
        return [destination for destination, index in self._route.routes() if index not in own]


def _pools(network: Network) -> dict[int, ipam.Pool]:
    return {subnet.network.version: ipam.Pool(subnet) for subnet in network.subnets}


def _enable_ipv6(interfaces: Sequence[str]) -> None:
    for interface in interfaces:
        write_sysctl(f"ipv6/conf/{interface}/disable_ipv6", "0")


def _boot_id() -> str:
    return Path(_BOOT_ID).read_text(encoding="ascii").strip()
