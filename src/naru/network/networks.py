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
from collections.abc import Collection, MutableSequence, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
from msgspec import Struct

from naru.errors import Conflict, Forbidden, InvalidArgument, NotFound
from naru.kernel import netns
from naru.kernel.netlink import Message
from naru.kernel.rtnetlink import Counters, RouteSocket, counters
from naru.network import bridge, create, endpoint, ipam
from naru.network.coexist import FirewallWatch, accept_in_foreign_chains
from naru.network.create import NetworkRequest
from naru.network.firewall import Firewall
from naru.network.name_service import NameService
from naru.network.namespaces import DEVICE_PREFIX as VETH_PREFIX
from naru.network.namespaces import NamespacePool, ReadyNamespace, drop, make_bare, write_sysctl
from naru.network.publish import PublishedPorts
from naru.network.record import (
    DEVICE_PREFIX,
    OPTION_HOST_BINDING,
    Driver,
    Endpoint,
    EndpointRequest,
    Naming,
    Network,
    PortBinding,
    Publication,
    Records,
    Sandbox,
    SandboxRecord,
)
from naru.network.resolv_conf import HOST_PATH
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
    resolv_conf: str = HOST_PATH


class Networks:
    """Networks and sandboxes of one daemon, in the network namespace of the thread that made it."""

    def __init__(self, database: Database, *, settings: NetworkSettings | None = None) -> None:
        self._settings = settings or NetworkSettings()
        self._records = Records(database)
        self._lock = threading.RLock()
        self._route = RouteSocket()
        self._firewall = Firewall()
        self._ports = PublishedPorts(self._firewall, self._install)
        self._names = NameService(self._settings.resolv_conf)
        self._pool = NamespacePool(self._settings.ready_namespaces, self._route, mtu=self._settings.mtu)
        self._watch: FirewallWatch | None = None
        self._bridge_index: dict[str, int] = {}
        self._can_translate_loopback = True
        self._netns: dict[str, int] = {}
        self._networks = {network.id: network for network in self._records.networks()}
        self._sandboxes = {record.id: record for record in self._records.sandboxes()}
        self._addresses = {network.id: _pools(network) for network in self._networks.values()}
        for record in self._sandboxes.values():
            self._names.know(record)
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
            for record in [record for record in self._sandboxes.values() if record.is_changing]:
                self._settle(record)
            self._install()

    def close(self) -> None:
        """Let go of sockets, threads and namespaces; bridges, translations and containers stay as they are."""
        if self._watch:
            self._watch.close()
        self._pool.close()
        self._names.close()
        with self._lock:
            self._ports.close()
            for netns_fd in self._netns.values():
                os.close(netns_fd)
            self._netns.clear()
            self._firewall.close()
            self._route.close()

    # Networks

    def create(self, request: NetworkRequest) -> Network:
        """Make a user-defined network.

        Conflict: the name is taken. Forbidden: a subnet overlaps another network's. Engine API, NetworkCreate
        """
        with self._lock, ExitStack() as undo:
            network = create.user_defined(
                request,
                existing=self._networks.values(),
                host_routes=self._host_routes(),
                pools=self._settings.pools,
            )
            if network.is_config_only:
                self._add(network)
                return network
            if self._route.link(network.device):
                raise Conflict(f"cannot create network {request.name}: device {network.device} already exists")
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

    def occupancy(self, network_id: str) -> dict[str, tuple[int, int]]:
        """Return for each subnet of a network how many addresses are taken or reserved, and how many are to be had."""
        with self._lock:
            pools = self._addresses.get(network_id, {})
            return {str(pool.network): pool.occupancy() for pool in pools.values()}

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
            users = [other.name for other in self._networks.values() if other.config_from == network.name]
            if network.is_config_only and users:
                raise Forbidden(f'configuration network "{network.name}" is in use')
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
        naming: Naming | None = None,
    ) -> Sandbox:
        """Make the sandbox of a container about to start; `naming` is the container's.

        Its namespace has loopback up and the endpoints as eth0, eth1…; one that leads outside has the default route and
        the published ports (`endpoint.gateways`). On networks of one's own it finds others by name at 127.0.0.11. The
        descriptor stays ours until `leave`: send it on, do not close it.
        """
        naming = naming or Naming()
        # Before the lock: when none is ready, making one takes milliseconds.
        namespaces = [self._pool.take() if endpoints else ReadyNamespace(*make_bare(), device="")]
        try:
            with self._lock, ExitStack() as undo:
                if sandbox_id in self._sandboxes:
                    raise Conflict(f"sandbox {sandbox_id} is already joined")
                allocated = [self._allocate(request, position, undo) for position, request in enumerate(endpoints)]
                attached = tuple(self._plug_first(allocated, namespaces))
                record = SandboxRecord(sandbox_id, naming.name, attached, hostname=naming.hostname, dns=naming.dns)
                record = self._publish(record, ports, undo)
                undo.callback(self._names.forget, sandbox_id)
                record = self._serve_names(record, namespaces[0].netns_fd)
                self._records.save_sandbox(record)
                undo.pop_all()
                self._sandboxes[sandbox_id] = record
                self._netns[sandbox_id] = namespaces[0].netns_fd
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

    def connect(self, sandbox_id: str, request: EndpointRequest, ports: Sequence[PortBinding] = ()) -> Sandbox:
        """Attach a running sandbox to one more network. Forbidden, in Docker's words: it is there already.

        Default routes and published ports move to the new endpoint if it comes first now; `ports` are what to publish
        if nothing was so far, for want of a way out.
        """
        with self._lock, ExitStack() as undo:
            before, netns_fd = self._record(sandbox_id), self._held_netns(sandbox_id)
            network = self.get(request.network)
            if any(existing.network_id == network.id for existing in before.endpoints):
                raise Forbidden(f"endpoint with name {before.name} already exists in network {network.name}")
            taken = {int(existing.interface.removeprefix("eth")) for existing in before.endpoints}
            position = next(number for number in range(len(taken) + 1) if number not in taken)
            attached = self._allocate(request, position, undo)
            self._save(msgspec.structs.replace(before, is_changing=True))
            undo.callback(self._save, before)
            undo.callback(self._route_out, before, netns_fd)
            undo.callback(endpoint.unplug, self._route, attached.device)
            after = msgspec.structs.replace(before, endpoints=(*before.endpoints, attached))
            with closing(netns.run_inside(netns_fd, RouteSocket)) as inside:
                self._plug([attached], netns_fd, inside, has_first=False)
            self._route_out(after, netns_fd)
            if before.publications:
                after = self._move_ports(before, after)
                undo.callback(self._move_ports, after, before)
            else:
                after = self._publish(after, ports, undo)
            undo.callback(self._serve_names, before, netns_fd)
            after = self._serve_names(after, netns_fd)
            self._save(after)
            undo.pop_all()
            return self._sandbox(after)

    def disconnect(self, sandbox_id: str, network_name_or_id: str) -> Sandbox:
        """Detach a running sandbox from a network. Forbidden, in Docker's words: it is not connected.

        Default routes and published ports move to the endpoint that comes first then; with no way out left, ports are
        withdrawn.
        """
        with self._lock:
            before, network = self._record(sandbox_id), self.get(network_name_or_id)
            leaving = next((e for e in before.endpoints if e.network_id == network.id), None)
            if leaving is None:
                raise Forbidden(f"container {sandbox_id} is not connected to network {network.name}")
            netns_fd = self._held_netns(sandbox_id)
            remaining = tuple(e for e in before.endpoints if e is not leaving)
            after = msgspec.structs.replace(before, endpoints=remaining, is_changing=True)
            self._save(after)
            if endpoint.outward(remaining):
                after = self._move_ports(before, after)
            else:
                after = msgspec.structs.replace(after, publications=())
                self._ports.withdraw(sandbox_id, before.publications)
            after = self._serve_names(after, netns_fd)
            endpoint.unplug(self._route, leaving.device)
            self._release_addresses(leaving)
            self._route_out(after, netns_fd)
            self._save(msgspec.structs.replace(after, is_changing=False))
            return self._sandbox(after)

    def rename(self, sandbox_id: str, name: str) -> None:
        """Make a sandbox known by its container's new name; nothing happens if there is none."""
        with self._lock:
            if sandbox_id in self._sandboxes:
                self._save(msgspec.structs.replace(self._sandboxes[sandbox_id], name=name))

    def leave(self, sandbox_id: str) -> None:
        """End a sandbox: ports, addresses, names and our hold on its namespace go. Harmless to repeat."""
        with self._lock:
            record = self._sandboxes.get(sandbox_id)
            if record is None:
                return
            self._records.delete_sandbox(sandbox_id)
            del self._sandboxes[sandbox_id]
            self._names.forget(sandbox_id)
            self._ports.withdraw(sandbox_id, record.publications)
            endpoint.silence(self._route, [attached.device for attached in record.endpoints])
            for attached in record.endpoints:
                self._release_addresses(attached)
            netns_fd = self._netns.pop(sandbox_id, -1)
            if netns_fd >= 0:
                os.close(netns_fd)

    def restore(self, sandbox_id: str, netns_fd: int) -> Sandbox:
        """Take up a running sandbox after a restart: hold its namespace (a duplicate), its ports and its names."""
        with self._lock:
            record = self._record(sandbox_id)
            if sandbox_id not in self._netns:
                self._netns[sandbox_id] = os.dup(netns_fd)
            self._ports.restore(sandbox_id, record.publications)
            served = self._serve_names(record, netns_fd)
            if served != record:
                self._save(served)
            return self._sandbox(served)

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
        return endpoint.allocate(network, self._addresses[network.id], request, position=position, undo=undo)

    def _held_netns(self, sandbox_id: str) -> int:
        try:
            return self._netns[sandbox_id]
        except KeyError:
            raise Conflict(f"sandbox {sandbox_id} is not restored") from None

    def _save(self, record: SandboxRecord) -> None:
        self._records.save_sandbox(record)
        self._sandboxes[record.id] = record
        self._names.know(record)

    def _plug_first(
        self, attached: Sequence[Endpoint], namespaces: MutableSequence[ReadyNamespace]
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
                self._plug(plugged, ready.netns_fd, ready.route)
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
        self, attached: Sequence[Endpoint], netns_fd: int, inside: RouteSocket, *, has_first: bool = True
    ) -> None:
        """Attach endpoints to a namespace; `has_first`: it is new, and the veth of the first exists already."""
        host_side: list[Message] = []
        inner_side: list[Message] = []
        settings: list[tuple[Network, Endpoint, int]] = []
        for position, e in enumerate(attached):
            network = self._networks[e.network_id]
            if position or not has_first:
                host_side.append(endpoint.new_veth(e, netns_fd, mtu=network.mtu))
            mtu = self._settings.mtu if has_first and not position else network.mtu
            host_side += endpoint.plug_host_side(network, self._bridge_index[network.id], e, mtu=mtu)
            settings.append((network, e, mtu))
        self._route.transact(host_side)
        indexes = endpoint.indexes_of_new(attached) if has_first else _indexes(inside)
        for network, e, mtu in settings:
            inner_side += endpoint.plug_inside(network, e, indexes[e.interface], mtu=mtu)
        if has_first:
            inner_side += endpoint.default_routes(attached, indexes)
        with_ipv6 = [e.interface for e in attached if e.ip6 or any(":" in address for address in e.link_local)]
        if with_ipv6:
            netns.run_inside(netns_fd, lambda: _enable_ipv6(with_ipv6))
        inside.transact(inner_side)

    def _route_out(self, record: SandboxRecord, netns_fd: int) -> None:
        with closing(netns.run_inside(netns_fd, RouteSocket)) as inside:
            inside.transact(endpoint.default_routes(record.endpoints, _indexes(inside)))

    def _settle(self, record: SandboxRecord) -> None:
        """Finish what a killed daemon had begun to a sandbox: devices that the record does not name are gone by now."""
        outward = endpoint.outward(record.endpoints)
        publications: Sequence[Publication] = ()
        if outward:
            self._route_out(record, self._held_netns(record.id))
            publications = self._ports.move(record.id, outward)
        else:
            self._ports.withdraw(record.id, record.publications)
        self._save(msgspec.structs.replace(record, publications=tuple(publications), is_changing=False))

    def _publish(self, record: SandboxRecord, ports: Sequence[PortBinding], undo: ExitStack) -> SandboxRecord:
        outward = endpoint.outward(record.endpoints)
        if not outward or not ports:
            return record
        options = self._networks[outward.network_id].options
        publications = self._ports.publish(
            record.id,
            outward,
            ports,
            name=record.name or record.id,
            default_host_ip=options.get(OPTION_HOST_BINDING) or self._settings.default_host_ip,
            undo=undo,
        )
        return msgspec.structs.replace(record, publications=publications)

    def _move_ports(self, before: SandboxRecord, after: SandboxRecord) -> SandboxRecord:
        """Lead published ports to where the sandbox's way out is now, if that is elsewhere."""
        outward = endpoint.outward(after.endpoints)
        if not outward or not before.publications or outward == endpoint.outward(before.endpoints):
            return after
        return msgspec.structs.replace(after, publications=self._ports.move(before.id, outward))

    def _serve_names(self, record: SandboxRecord, netns_fd: int) -> SandboxRecord:
        is_closed_in = all(self._networks[attached.network_id].internal for attached in record.endpoints)
        ports = self._names.serve(record, netns_fd, can_forward=not is_closed_in)
        return msgspec.structs.replace(record, dns_ports=ports)

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
        if network.is_bridge:
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
    return {subnet.network.version: ipam.Pool(subnet) for subnet in network.subnets if network.is_bridge}


def _enable_ipv6(interfaces: Sequence[str]) -> None:
    for interface in interfaces:
        write_sysctl(f"ipv6/conf/{interface}/disable_ipv6", "0")


def _indexes(inside: RouteSocket) -> dict[str, int]:
    return {link.name: link.number for link in inside.links()}


def _boot_id() -> str:
    return Path(_BOOT_ID).read_text(encoding="ascii").strip()
