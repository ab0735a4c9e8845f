"""Container networks end to end, in namespaces of the test's own: a host, the outside world, and sandboxes.

Each test runs in a throwaway thread with a network namespace of its own, which is the host as `Networks` sees it. A
second namespace on a veth (10.9.0.2 and fd09::2, the host being .1) is the outside world. Servers and clients are plain
sockets made inside the namespace they are meant to be in.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from naru.errors import Conflict, Forbidden
from naru.kernel import netns
from naru.kernel.conntrack import ConntrackSocket
from naru.network.create import NetworkRequest
from naru.network.networks import Networks, NetworkSettings
from naru.network.record import EndpointRequest, Naming, Network, PortBinding, Sandbox, Subnet
from naru.persist.database import Database

T = TypeVar("T")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root (CAP_NET_ADMIN)"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip(8) as a second opinion"),
]
HOST, OUTSIDE = "10.9.0.1", "10.9.0.2"
HOST6, OUTSIDE6 = "fd09::1", "fd09::2"
DEADLINE_S = 5.0
WEB, DB = "a" * 64, "b" * 64


class Lab:
    """A host with `networks`, and the outside world."""

    def __init__(self, directory: Path, undo: ExitStack) -> None:
        self.directory = directory
        self.undo = undo
        run("ip link set lo up")
        self.outside_fd, _none = netns.create(lambda: run("ip link set lo up"))
        undo.callback(os.close, self.outside_fd)
        run("ip link add up0 type veth peer name eth0")
        run(f"ip link set eth0 netns /proc/{os.getpid()}/fd/{self.outside_fd}")
        run(f"ip addr add {HOST}/24 dev up0; ip addr add {HOST6}/64 dev up0 nodad; ip link set up0 up")
        self.outside(lambda: run(f"ip addr add {OUTSIDE}/24 dev eth0; ip addr add {OUTSIDE6}/64 dev eth0 nodad"))
        self.outside(lambda: run("ip link set eth0 up"))
        self.networks = self.start_networks()
        undo.callback(lambda: self.networks.close())

    def start_networks(self) -> Networks:
        networks = Networks(
            Database(self.directory / "naru.db"),
            settings=NetworkSettings(
                ready_namespaces=1, bridge_subnet="172.30.0.0/16", resolv_conf=str(self.directory / "resolv.conf")
            ),
        )
        networks.ensure_default()
        return networks

    def create(self, name: str, subnets: Sequence[Subnet] = (), **wishes: Any) -> Network:
        return self.networks.create(NetworkRequest(name, subnets=tuple(subnets), **wishes))

    def outside(self, action: Callable[[], T]) -> T:
        return netns.run_inside(self.outside_fd, action)

    def join(self, sandbox_id: str, *ports: PortBinding, network: str = "bridge", **wishes: Any) -> Sandbox:
        naming = Naming(sandbox_id[:4])
        return self.networks.join(sandbox_id, [EndpointRequest(network, **wishes)], ports, naming=naming)

    def serve(self, netns_fd: int, port: int = 80) -> None:
        """Answer TCP and UDP on `port` with the client's address, a space and what it sent."""
        listener, datagrams = netns.run_inside(netns_fd, lambda: (_listen(port), _bind_udp(port)))
        for server, body in ((listener, _serve_tcp), (datagrams, _serve_udp)):
            thread = threading.Thread(target=body, args=(server,), daemon=True)
            thread.start()
            self.undo.callback(thread.join)
            self.undo.callback(server.close)
            self.undo.callback(_shut_down, server)


def in_private_network(test: Callable[[Lab], None]) -> Callable[[Path], None]:
    """Run `test` with a Lab, in a namespace that ends with it."""

    def run_test(tmp_path: Path) -> None:
        failures: list[BaseException] = []

        def body() -> None:
            try:
                # The thread ends in the new namespace, and everything made in it with the thread.
                netns._unshare(netns.CLONE_NEWNET)
                with ExitStack() as undo:
                    test(Lab(tmp_path, undo))
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    run_test.__name__ = test.__name__
    run_test.__doc__ = test.__doc__
    return run_test


def run(command: str) -> str:
    result = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}: {result.stderr}"
    return result.stdout


def ask_tcp(address: str, port: int, *, timeout_s: float = DEADLINE_S) -> str:
    with socket.create_connection((address, port), timeout=timeout_s) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(functools.partial(client.recv, 4096), b"")).decode()


def ask_udp(address: str, port: int, *, client: socket.socket | None = None, timeout_s: float = DEADLINE_S) -> str:
    with contextlib.ExitStack() as owned:
        if client is None:
            client = owned.enter_context(socket.socket(_family(address), socket.SOCK_DGRAM))
        client.settimeout(timeout_s)
        client.sendto(b"hello", (address, port))
        return client.recv(4096).decode()


def eventually(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not claim():
        assert time.monotonic() < deadline, "did not become true in time"
        threading.Event().wait(0.01)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _listen(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


def _bind_udp(port: int) -> socket.socket:
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(("::", port))
    return datagrams


def _shut_down(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # wakes the thread in accept or recvfrom, though UDP calls it not connected
        server.shutdown(socket.SHUT_RDWR)


def _peer(address: tuple[Any, ...]) -> bytes:
    return str(address[0]).removeprefix("::ffff:").encode()


def _serve_tcp(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, address = listener.accept()
            with client, contextlib.suppress(ConnectionError):
                client.settimeout(DEADLINE_S)
                data = b"".join(iter(functools.partial(client.recv, 4096), b""))
                client.sendall(_peer(address) + b" " + data)


def _serve_udp(datagrams: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data, address = datagrams.recvfrom(65536)
            if address is None:  # shut down
                return
            datagrams.sendto(_peer(address) + b" " + data, address)


PUBLISHED = (PortBinding(80, host_port=8080), PortBinding(80, "udp", host_port=8080))


@in_private_network
def test_a_published_port_is_reached_from_outside_under_the_clients_own_address(lab: Lab) -> None:
    web = lab.join(WEB, *PUBLISHED)
    lab.serve(web.netns_fd)

    assert lab.outside(lambda: ask_tcp(HOST, 8080)) == f"{OUTSIDE} hello"
    assert lab.outside(lambda: ask_udp(HOST, 8080)) == f"{OUTSIDE} hello"


@in_private_network
def test_a_published_port_is_reached_from_the_host_by_every_address(lab: Lab) -> None:
    web = lab.join(WEB, *PUBLISHED)
    lab.serve(web.netns_fd)

    assert ask_tcp(HOST, 8080).endswith("hello")
    assert ask_udp(HOST, 8080).endswith("hello")
    assert ask_tcp("127.0.0.1", 8080) == "172.30.0.1 hello"
    assert ask_udp("127.0.0.1", 8080) == "172.30.0.1 hello"
    assert ask_tcp("::1", 8080).endswith("hello")
    assert ask_udp("::1", 8080).endswith("hello")


@in_private_network
def test_an_ipv6_client_reaches_a_container_that_has_only_ipv4(lab: Lab) -> None:
    web = lab.join(WEB, *PUBLISHED)
    lab.serve(web.netns_fd)

    assert lab.outside(lambda: ask_tcp(HOST6, 8080)) == "172.30.0.1 hello"
    assert lab.outside(lambda: ask_udp(HOST6, 8080)) == "172.30.0.1 hello"


@in_private_network
def test_containers_reach_published_ports_by_the_hosts_address_their_own_too(lab: Lab) -> None:
    web, db = lab.join(WEB, *PUBLISHED), lab.join(DB)
    lab.serve(web.netns_fd)

    assert netns.run_inside(web.netns_fd, lambda: ask_tcp(HOST, 8080)).endswith("hello")
    assert netns.run_inside(web.netns_fd, lambda: ask_udp(HOST, 8080)).endswith("hello")
    assert netns.run_inside(db.netns_fd, lambda: ask_tcp(HOST, 8080)).endswith("hello")
    assert netns.run_inside(db.netns_fd, lambda: ask_udp(HOST, 8080)).endswith("hello")


@in_private_network
def test_containers_reach_the_outside_under_the_hosts_address_and_each_other_under_their_own(lab: Lab) -> None:
    web, db = lab.join(WEB), lab.join(DB)
    lab.serve(lab.outside_fd)
    lab.serve(web.netns_fd)

    assert netns.run_inside(db.netns_fd, lambda: ask_tcp(OUTSIDE, 80)) == f"{HOST} hello"
    assert netns.run_inside(db.netns_fd, lambda: ask_udp(OUTSIDE, 80)) == f"{HOST} hello"
    assert netns.run_inside(db.netns_fd, lambda: ask_tcp(web.endpoints[0].ip, 80)) == "172.30.0.3 hello"


@in_private_network
def test_an_ipv6_network_is_published_translated_and_masqueraded(lab: Lab) -> None:
    lab.create("six", enable_ipv6=True, subnets=[Subnet("fd30::/64")])
    web = lab.join(WEB, *PUBLISHED, network="six")
    lab.serve(web.netns_fd)
    lab.serve(lab.outside_fd)

    assert web.endpoints[0].ip6 == "fd30::2"
    assert lab.outside(lambda: ask_tcp(HOST6, 8080)) == f"{OUTSIDE6} hello"
    assert lab.outside(lambda: ask_udp(HOST6, 8080)) == f"{OUTSIDE6} hello"
    assert netns.run_inside(web.netns_fd, lambda: ask_tcp(OUTSIDE6, 80)) == f"{HOST6} hello"
    assert netns.run_inside(web.netns_fd, lambda: ask_tcp(HOST6, 8080)).endswith("hello")
    assert ask_tcp("::1", 8080).endswith("hello")


@in_private_network
def test_a_network_of_ipv6_alone_has_no_ipv4_and_is_published_on_both(lab: Lab) -> None:
    lab.create("six", enable_ipv4=False, enable_ipv6=True, subnets=[Subnet("fd30::/64")])
    web = lab.join(WEB, *PUBLISHED, network="six")
    lab.serve(web.netns_fd)
    lab.serve(lab.outside_fd)

    assert (web.endpoints[0].ip, web.endpoints[0].ip6) == ("", "fd30::2")
    assert lab.outside(lambda: ask_tcp(HOST6, 8080)) == f"{OUTSIDE6} hello"
    assert lab.outside(lambda: ask_tcp(HOST, 8080)) == "fd30::1 hello"
    assert netns.run_inside(web.netns_fd, lambda: ask_tcp(OUTSIDE6, 80)) == f"{HOST6} hello"


@in_private_network
def test_nothing_is_left_after_leave(lab: Lab) -> None:
    before = run("nft list ruleset; ss -Hlntu")
    web = lab.join(WEB, *PUBLISHED, PortBinding(81, host_ip="127.0.0.1", host_port=8081))
    during = run("nft list ruleset; ss -Hlntu")

    lab.networks.leave(WEB)

    assert "8081" in during
    assert run("nft list ruleset; ss -Hlntu") == before
    eventually(lambda: web.endpoints[0].device not in run("ip -o link"))
    assert lab.networks.endpoints(web.endpoints[0].network_id) == {}
    assert lab.join(DB).endpoints[0].ip == web.endpoints[0].ip


@in_private_network
def test_a_port_published_on_127_0_0_1_is_refused_from_outside(lab: Lab) -> None:
    web = lab.join(WEB, PortBinding(80, host_ip="127.0.0.1", host_port=8080))
    lab.serve(web.netns_fd)

    assert ask_tcp("127.0.0.1", 8080).endswith("hello")
    with pytest.raises(ConnectionRefusedError):
        lab.outside(lambda: ask_tcp(HOST, 8080))


@in_private_network
def test_a_container_cannot_reach_the_hosts_loopback(lab: Lab) -> None:
    web = lab.join(WEB)
    endpoint = web.endpoints[0]
    bridge_mac = bytes.fromhex(_mac_of("naru0").replace(":", ""))
    datagram = _udp_frame(bridge_mac, bytes.fromhex(endpoint.mac.replace(":", "")), endpoint.ip, "127.0.0.1", 9999)

    def send_raw() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("eth0", 0))
            wire.send(datagram)

    netns.run_inside(web.netns_fd, send_raw)

    eventually(lambda: 'iifname "naru0" counter packets 1' in run("nft list chain ip naru guard"))


@in_private_network
def test_networks_are_isolated_but_for_published_ports(lab: Lab) -> None:
    lab.create("back")
    web, db = lab.join(WEB, *PUBLISHED), lab.join(DB, network="back")
    lab.serve(web.netns_fd)

    assert netns.run_inside(db.netns_fd, lambda: ask_tcp(HOST, 8080)).endswith("hello")
    with pytest.raises(TimeoutError):
        netns.run_inside(db.netns_fd, lambda: ask_tcp(web.endpoints[0].ip, 80, timeout_s=0.3))


@in_private_network
def test_an_outsider_with_a_route_reaches_no_unpublished_port(lab: Lab) -> None:
    web = lab.join(WEB)
    lab.serve(web.netns_fd)
    lab.outside(lambda: run(f"ip route add 172.30.0.0/16 via {HOST}"))

    with pytest.raises(TimeoutError):
        lab.outside(lambda: ask_tcp(web.endpoints[0].ip, 80, timeout_s=0.3))


@in_private_network
def test_an_internal_network_leads_nowhere(lab: Lab) -> None:
    lab.create("vault", internal=True)
    web, db = lab.join(WEB, network="vault"), lab.join(DB, network="vault")
    lab.serve(web.netns_fd)

    assert netns.run_inside(db.netns_fd, lambda: ask_tcp(web.endpoints[0].ip, 80)).endswith("hello")
    with pytest.raises(OSError, match="unreachable"):
        netns.run_inside(db.netns_fd, lambda: ask_tcp(OUTSIDE, 80))


@in_private_network
def test_traffic_passes_a_foreign_forward_chain_that_drops(lab: Lab) -> None:
    web = lab.join(WEB, *PUBLISHED)
    lab.serve(web.netns_fd)

    run("nft 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }'")

    eventually(lambda: "naru naru0 in" in run("nft list table ip filter"))
    assert lab.outside(lambda: ask_tcp(HOST, 8080)) == f"{OUTSIDE} hello"
    assert netns.run_inside(web.netns_fd, lambda: ask_tcp(HOST, 8080)).endswith("hello")


@in_private_network
def test_accept_rules_go_to_docker_user_and_disappear_with_their_network(lab: Lab) -> None:
    back = lab.create("back")
    run(
        "nft 'table ip filter { chain DOCKER-USER { }; "
        "chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }; }'"
    )
    eventually(lambda: f"naru {back.device} in" in run("nft list chain ip filter DOCKER-USER"))

    lab.networks.remove("back")

    assert back.device not in run("nft list table ip filter")
    assert "naru naru0 in" in run("nft list chain ip filter DOCKER-USER")
    assert "naru naru0" not in run("nft list chain ip filter FORWARD")


@in_private_network
def test_a_flushed_ruleset_is_installed_again(lab: Lab) -> None:
    web = lab.join(WEB, *PUBLISHED)
    lab.serve(web.netns_fd)

    run("nft flush ruleset")

    eventually(lambda: "8080" in run("nft list ruleset"))
    assert lab.outside(lambda: ask_udp(HOST, 8080)) == f"{OUTSIDE} hello"


@in_private_network
def test_a_udp_sender_that_tried_too_early_is_heard_once_the_port_is_published(lab: Lab) -> None:
    client = lab.outside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.bind((OUTSIDE, 40000))
    lab.undo.callback(client.close)
    with pytest.raises(ConnectionRefusedError):
        client.connect((HOST, 8080))
        client.settimeout(DEADLINE_S)
        client.send(b"early")
        client.recv(100)

    web = lab.join(WEB, *PUBLISHED)
    lab.serve(web.netns_fd)

    def answer() -> bytes:
        client.send(b"again")
        return client.recv(100)

    eventually(lambda: answer() == f"{OUTSIDE} again".encode())


@in_private_network
def test_a_containers_flow_to_a_port_number_that_is_then_published_goes_on(lab: Lab) -> None:
    server = lab.outside(lambda: _bind_udp(8080))
    lab.undo.callback(server.close)
    db = lab.join(DB)
    client = netns.run_inside(db.netns_fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    lab.undo.callback(client.close)
    client.settimeout(DEADLINE_S)
    client.sendto(b"hello", (OUTSIDE, 8080))
    _data, client_as_seen = server.recvfrom(100)
    early = lab.outside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    lab.undo.callback(early.close)
    early.sendto(b"early", (HOST, 8080))
    conntrack = ConntrackSocket()
    lab.undo.callback(conntrack.close)

    lab.join(WEB, *PUBLISHED)
    eventually(lambda: str(HOST) not in [str(flow.destination) for flow in conntrack.flows(socket.AF_INET, 17)])
    server.sendto(b"later", client_as_seen)

    assert client.recv(100) == b"later"


@in_private_network
def test_a_restarted_daemon_restores_what_lives_and_frees_the_rest(lab: Lab) -> None:
    web, db = lab.join(WEB, *PUBLISHED), lab.join(DB, PortBinding(81, host_port=8081))
    lab.serve(web.netns_fd)
    kept_fd, stale_fd = os.dup(web.netns_fd), os.dup(db.netns_fd)
    lab.undo.callback(os.close, kept_fd)
    lab.undo.callback(os.close, stale_fd)
    lab.networks.close()  # leaves what a kill leaves: records, devices and tables

    run("nft flush ruleset")
    lab.networks = lab.start_networks()
    restored = lab.networks.restore(WEB, kept_fd)
    lab.networks.reconcile({WEB})

    assert restored.endpoints == web.endpoints
    assert restored.ports == web.ports
    assert ask_tcp("::1", 8080).endswith("hello")
    assert lab.outside(lambda: ask_tcp(HOST, 8080)) == f"{OUTSIDE} hello"
    assert "8081" not in run("nft list ruleset; ss -Hlntu")
    assert db.endpoints[0].device not in run("ip -o link")
    assert lab.join(DB).endpoints[0].ip == db.endpoints[0].ip


@in_private_network
def test_a_port_of_another_container_is_refused_in_dockers_words(lab: Lab) -> None:
    lab.join(WEB, *PUBLISHED)

    with pytest.raises(Conflict) as refusal:
        lab.join(DB, PortBinding(80, host_port=8080))

    assert str(refusal.value).startswith("driver failed programming external connectivity on endpoint bbbb (")
    assert str(refusal.value).endswith("): Bind for 0.0.0.0:8080 failed: port is already allocated")
    assert lab.join(DB).endpoints[0].ip == "172.30.0.3"


@in_private_network
def test_a_port_of_a_foreign_server_is_refused_in_dockers_words(lab: Lab) -> None:
    with socket.create_server(("0.0.0.0", 8080)), pytest.raises(Conflict) as refusal:
        lab.join(WEB, PortBinding(80, host_port=8080))

    assert str(refusal.value).endswith("listen tcp4 0.0.0.0:8080: bind: address already in use")


@in_private_network
def test_a_published_port_cannot_be_taken_by_a_foreign_server(lab: Lab) -> None:
    lab.join(WEB, *PUBLISHED)

    with pytest.raises(OSError, match="already in use"):
        socket.create_server(("0.0.0.0", 8080), reuse_port=False)


@in_private_network
def test_free_ports_are_found_in_ranges_and_in_the_ephemeral_range(lab: Lab) -> None:
    first = lab.join(WEB, PortBinding(80, host_port=9000, host_port_end=9001), PortBinding(81))
    second = lab.join(DB, PortBinding(80, host_port=9000, host_port_end=9001), PortBinding(81))

    assert {port.host_port for port in first.ports if port.container_port == 80} == {9000}
    assert {port.host_port for port in second.ports if port.container_port == 80} == {9001}
    assert len({port.host_port for port in (*first.ports, *second.ports) if port.container_port == 81}) == 2


@in_private_network
def test_a_sandbox_on_two_networks_can_leave_and_join_one_while_running(lab: Lab) -> None:
    lab.create("back", subnets=[Subnet("10.44.0.0/24", ip_range="10.44.0.128/25")])
    web, db = lab.join(WEB, *PUBLISHED), lab.join(DB, network="back", ip="10.44.0.7")
    lab.serve(db.netns_fd)

    web = lab.networks.connect(WEB, EndpointRequest("back"))
    answer = netns.run_inside(web.netns_fd, lambda: ask_tcp("10.44.0.7", 80))
    web = lab.networks.disconnect(WEB, "bridge")

    assert answer == f"{web.endpoints[0].ip} hello"
    assert web.endpoints[0].interface == "eth1"
    assert "eth0" not in netns.run_inside(web.netns_fd, lambda: run("ip -o link"))


@in_private_network
def test_published_ports_and_the_default_route_follow_the_gateway_of_the_highest_priority(lab: Lab) -> None:
    lab.create("back", subnets=[Subnet("10.44.0.0/24")])
    lab.create("yard", subnets=[Subnet("10.45.0.0/24")])
    web = lab.join(WEB, *PUBLISHED)
    lab.serve(web.netns_fd)
    lab.serve(lab.outside_fd)

    def way_out() -> str:
        return netns.run_inside(web.netns_fd, lambda: run("ip route show default").split()[2])

    seen = [way_out()]
    for change in (
        lambda: lab.networks.connect(WEB, EndpointRequest("yard", gw_priority=1), PUBLISHED),
        lambda: lab.networks.connect(WEB, EndpointRequest("back"), PUBLISHED),
        lambda: lab.networks.disconnect(WEB, "yard"),
        lambda: lab.networks.disconnect(WEB, "back"),
    ):
        ports = change().ports
        seen.append(way_out())
        assert [port.host_port for port in ports].count(8080) == len(ports) > 0
        assert lab.outside(lambda: ask_tcp(HOST, 8080)) == f"{OUTSIDE} hello"
        assert lab.outside(lambda: ask_udp(HOST, 8080)) == f"{OUTSIDE} hello"
        assert ask_tcp("::1", 8080).endswith("hello")
        assert netns.run_inside(web.netns_fd, lambda: ask_tcp(OUTSIDE, 80)) == f"{HOST} hello"

    assert seen == ["172.30.0.1", "10.45.0.1", "10.45.0.1", "10.44.0.1", "172.30.0.1"]


@in_private_network
def test_a_sandbox_that_leaves_its_last_network_gives_its_ports_back_and_publishes_them_on_the_next(lab: Lab) -> None:
    lab.create("back", subnets=[Subnet("10.44.0.0/24")])
    web = lab.join(WEB, *PUBLISHED)
    lab.serve(web.netns_fd)

    assert lab.networks.disconnect(WEB, "bridge").ports == ()
    socket.create_server(("0.0.0.0", 8080)).close()
    assert len(lab.networks.connect(WEB, EndpointRequest("back"), PUBLISHED).ports) == 4

    assert lab.outside(lambda: ask_tcp(HOST, 8080)) == f"{OUTSIDE} hello"


@in_private_network
def test_a_connection_that_fails_changes_nothing(lab: Lab) -> None:
    lab.create("back", subnets=[Subnet("10.44.0.0/24")])
    lab.join(DB, PortBinding(80, host_port=8080))
    web = lab.join(WEB)
    routes = netns.run_inside(web.netns_fd, lambda: run("ip route"))
    links = run("ip -o link | grep master | cut -d: -f2 | sort")

    with pytest.raises(Conflict, match="port is already allocated"):
        lab.networks.connect(WEB, EndpointRequest("back"), PUBLISHED)

    assert netns.run_inside(web.netns_fd, lambda: run("ip route")) == routes
    assert run("ip -o link | grep master | cut -d: -f2 | sort") == links
    assert lab.networks.sandbox(WEB) == web
    assert lab.networks.endpoints(lab.networks.get("back").id) == {}
    assert lab.networks.connect(WEB, EndpointRequest("back")).endpoints[1].ip == "10.44.0.2"


class _KilledHere(BaseException):
    """In place of SIGKILL: nothing of ours may run after it."""


def _raise_killed(*_arguments: object) -> None:
    raise _KilledHere


@in_private_network
def test_a_daemon_killed_while_connecting_leaves_the_sandbox_as_it_was(lab: Lab) -> None:
    lab.create("back", subnets=[Subnet("10.44.0.0/24")])
    web = lab.join(WEB, *PUBLISHED)
    lab.serve(web.netns_fd)
    kept_fd = os.dup(web.netns_fd)
    lab.undo.callback(os.close, kept_fd)
    routes = netns.run_inside(web.netns_fd, lambda: run("ip route"))

    # The last thing that a connection does is to record it: up to there everything in the kernel has changed.
    save = lab.networks._records.save_sandbox
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            lab.networks._records, "save_sandbox", lambda record: save(record) if len(record.endpoints) == 1 else None
        )
        lab.networks.connect(WEB, EndpointRequest("back"), PUBLISHED)
    lab.networks.close()
    lab.networks = lab.start_networks()
    restored = lab.networks.restore(WEB, kept_fd)
    lab.networks.reconcile({WEB})

    assert restored.endpoints == web.endpoints
    assert netns.run_inside(kept_fd, lambda: run("ip route")) == routes
    assert lab.outside(lambda: ask_tcp(HOST, 8080)) == f"{OUTSIDE} hello"


@in_private_network
def test_a_daemon_killed_while_disconnecting_finishes_it(lab: Lab) -> None:
    lab.create("back", subnets=[Subnet("10.44.0.0/24")])
    web = lab.join(WEB, *PUBLISHED)
    lab.networks.connect(WEB, EndpointRequest("back"), PUBLISHED)
    lab.serve(web.netns_fd)
    kept_fd = os.dup(web.netns_fd)
    lab.undo.callback(os.close, kept_fd)

    # The first thing that it does is to record it: nothing in the kernel has changed yet.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab.networks._ports, "move", _raise_killed)
        with pytest.raises(_KilledHere):
            lab.networks.disconnect(WEB, "back")
    lab.networks.close()
    lab.networks = lab.start_networks()
    restored = lab.networks.restore(WEB, kept_fd)
    lab.networks.reconcile({WEB})

    assert [e.network_name for e in restored.endpoints] == ["bridge"]
    assert netns.run_inside(kept_fd, lambda: run("ip route show default").split()[2]) == "172.30.0.1"
    assert "eth1" not in netns.run_inside(kept_fd, lambda: run("ip -o link"))
    assert lab.outside(lambda: ask_tcp(HOST, 8080)) == f"{OUTSIDE} hello"


@in_private_network
def test_a_bridge_that_somebody_deleted_is_made_again_at_the_next_join(lab: Lab) -> None:
    run("ip link del naru0")

    web = lab.join(WEB, *PUBLISHED)

    lab.serve(web.netns_fd)
    assert lab.outside(lambda: ask_tcp(HOST, 8080)) == f"{OUTSIDE} hello"


@in_private_network
def test_a_network_in_use_is_kept_and_its_device_goes_with_it(lab: Lab) -> None:
    back = lab.create("back")
    lab.join(DB, network="back")
    with pytest.raises(Forbidden, match="has active endpoints"):
        lab.networks.remove("back")
    lab.networks.leave(DB)

    lab.networks.remove("back")

    assert back.device not in run("ip -o link")
    assert [network.name for network in lab.networks.list()] == ["bridge", "host", "none"]


@in_private_network
def test_the_relay_carries_large_transfers_both_ways(lab: Lab) -> None:
    web = lab.join(WEB, *PUBLISHED)
    lab.serve(web.netns_fd)
    payload = os.urandom(8 << 20)

    with socket.create_connection(("::1", 8080), timeout=DEADLINE_S) as client:
        client.sendall(payload)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(functools.partial(client.recv, 1 << 16), b""))

    assert answer.partition(b" ")[2] == payload


@pytest.fixture(autouse=True)
def _needs_nft() -> Iterator[None]:
    if shutil.which("nft") is None:
        pytest.skip("needs nft(8) as a second opinion")
    yield


def _mac_of(device: str) -> str:
    return run(f"ip -o link show {device}").split("link/ether ")[1].split()[0]


def _udp_frame(to_mac: bytes, from_mac: bytes, source: str, destination: str, port: int) -> bytes:
    payload = struct.pack(">HHHH", 1234, port, 8 + 2, 0) + b"hi"
    header = struct.pack(
        ">BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(payload),
        1,
        0,
        64,
        socket.IPPROTO_UDP,
        0,
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    total = sum(struct.unpack(">10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return to_mac + from_mac + b"\x08\x00" + header[:10] + struct.pack(">H", checksum) + header[12:] + payload
