"""The containers' DNS server end to end: clients in sandboxes, other servers on the host and outside.

Queries are written and answers read with dnspython on sockets made inside the namespaces, by both protocols.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset
import pytest
from test_network import HOST, OUTSIDE, Lab, eventually, in_private_network, run

from naru.kernel import netns
from naru.network.record import EndpointRequest, Naming, Sandbox, Subnet

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root (CAP_NET_ADMIN)"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip(8) as a second opinion"),
]
WEB, DB, APP = "a" * 64, "b" * 64, "c" * 64
SERVER = "127.0.0.11"
DEADLINE_S = 5.0


def join(
    lab: Lab, sandbox_id: str, name: str, *networks: str, naming: Naming | None = None, **wishes: object
) -> Sandbox:
    requests = [EndpointRequest(network, **wishes) for network in networks]  # type: ignore[arg-type]
    return lab.networks.join(sandbox_id, requests, naming=naming or Naming(name))


def ask(
    client: Sandbox | int,
    name: str,
    kind: str = "A",
    *,
    by_tcp: bool = False,
    payload: int | None = None,
    timeout_s: float = DEADLINE_S,
) -> dns.message.Message:
    """Ask the server from inside a sandbox."""
    query = dns.message.make_query(name, kind, use_edns=payload is not None, payload=payload or 0)
    send = dns.query.tcp if by_tcp else dns.query.udp
    netns_fd = client if isinstance(client, int) else client.netns_fd
    return netns.run_inside(netns_fd, lambda: send(query, SERVER, timeout=timeout_s))


def texts(answer: dns.message.Message) -> list[str]:
    return sorted(record.to_text() for rrset in answer.answer for record in rrset)


class Upstream:
    """A DNS server that knows every name: it answers each with `address`, or with what `respond` makes of a query."""

    def __init__(
        self,
        lab: Lab,
        address: str,
        *,
        inside: Callable[[Callable[[], socket.socket]], socket.socket] = lambda make: make(),
        respond: Callable[[dns.message.Message, bool], dns.message.Message | None] | None = None,
        answer: str = "192.0.2.1",
    ) -> None:
        self.asked: list[tuple[str, str, bool]] = []
        self._respond = respond or (lambda query, _by_tcp: response(query, answer))
        datagrams = inside(functools.partial(_bind, address))
        listener = inside(functools.partial(socket.create_server, (address, 53)))
        for end, body in ((datagrams, self._serve_udp), (listener, self._serve_tcp)):
            thread = threading.Thread(target=body, args=(end,), daemon=True)
            thread.start()
            lab.undo.callback(thread.join)
            lab.undo.callback(end.close)
            lab.undo.callback(_shut_down, end)

    def _serve_udp(self, datagrams: socket.socket) -> None:
        while True:
            try:
                data, client = datagrams.recvfrom(65536)
            except OSError:
                return
            if client is None:
                return
            made = self._made(data, client[0], by_tcp=False)
            if made:
                datagrams.sendto(made.to_wire(), client)

    def _serve_tcp(self, listener: socket.socket) -> None:
        while True:
            try:
                client, address = listener.accept()
            except OSError:
                return
            with client:
                length = int.from_bytes(client.recv(2), "big")
                made = self._made(client.recv(length), address[0], by_tcp=True)
                if made:
                    data = made.to_wire()
                    client.sendall(len(data).to_bytes(2, "big") + data)

    def _made(self, data: bytes, client: str, *, by_tcp: bool) -> dns.message.Message | None:
        query = dns.message.from_wire(data)
        self.asked.append((query.question[0].name.to_text(), client, by_tcp))
        return self._respond(query, by_tcp)


def response(query: dns.message.Message, *addresses: str) -> dns.message.Message:
    made = dns.message.make_response(query)
    made.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *addresses))
    return made


def failed(query: dns.message.Message, _by_tcp: bool) -> dns.message.Message:
    made = dns.message.make_response(query)
    made.set_rcode(dns.rcode.SERVFAIL)
    return made


def _bind(address: str) -> socket.socket:
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, 53))
    return datagrams


def _shut_down(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def two_networks(lab: Lab) -> None:
    lab.create("front", subnets=[Subnet("10.44.0.0/24")])
    lab.create("back", subnets=[Subnet("10.45.0.0/24")])


def use(lab: Lab, *servers: str) -> None:
    """Write the host's resolv.conf."""
    path = lab.directory / "resolv.conf"
    new = path.with_name("new")
    new.write_text("".join(f"nameserver {server}\n" for server in servers))
    new.rename(path)


@in_private_network
def test_containers_find_each_other_by_name_alias_hostname_and_short_id_and_in_any_case(lab: Lab) -> None:
    two_networks(lab)
    web = join(lab, WEB, "web", "front")
    join(lab, DB, "db", "front", naming=Naming("db", "store"), aliases=("database",))

    found = {name: texts(ask(web, name)) for name in ("db", "DB", "database", "store", "b" * 12, "db.front", "web")}

    assert found == {name: ["10.44.0.3"] for name in found} | {"web": ["10.44.0.2"]}


@in_private_network
def test_an_alias_of_several_gives_all_of_them_each_time_in_another_order(lab: Lab) -> None:
    two_networks(lab)
    web = join(lab, WEB, "web", "front")
    for number in range(4):
        join(lab, str(number) * 64, f"db{number}", "front", aliases=("db",))

    answers = [ask(web, "db") for _ in range(20)]

    assert texts(answers[0]) == [f"10.44.0.{number}" for number in (3, 4, 5, 6)]
    assert len({answer.answer[0][0].to_text() for answer in answers}) > 1


@in_private_network
def test_the_same_name_on_two_networks_is_somebody_else_on_each(lab: Lab) -> None:
    two_networks(lab)
    join(lab, "1" * 64, "db1", "front", aliases=("db",))
    join(lab, "2" * 64, "db2", "back", aliases=("db",))

    front, back, both = (
        join(lab, WEB, "web", "front"),
        join(lab, DB, "job", "back"),
        join(lab, APP, "all", "front", "back"),
    )

    assert texts(ask(front, "db")) == ["10.44.0.2"]
    assert texts(ask(back, "db")) == ["10.45.0.2"]
    assert texts(ask(both, "db")) == ["10.45.0.2"]  # the first network in alphabetical order
    assert texts(ask(both, "db.front")) == ["10.44.0.2"]
    assert ask(front, "db2").rcode() != dns.rcode.NOERROR


@in_private_network
def test_names_come_and_go_with_connections_and_renames(lab: Lab) -> None:
    two_networks(lab)
    web = join(lab, WEB, "web", "front")
    join(lab, DB, "db", "back")
    seen = [texts(ask(web, "db"))]

    lab.networks.connect(DB, EndpointRequest("front", aliases=("database",)))
    seen += [texts(ask(web, "db")), texts(ask(web, "database"))]
    lab.networks.rename(DB, "store")
    seen += [texts(ask(web, "db")), texts(ask(web, "store"))]
    lab.networks.disconnect(DB, "front")
    seen += [texts(ask(web, "store")), texts(ask(web, "database"))]

    assert seen == [[], ["10.44.0.3"], ["10.44.0.3"], [], ["10.44.0.3"], [], []]


@in_private_network
def test_links_are_names_for_one_alone(lab: Lab) -> None:
    two_networks(lab)
    web = join(lab, WEB, "web", "front", links=(("db", "store"),))
    other = join(lab, APP, "app", "front")
    join(lab, DB, "db", "front")

    assert texts(ask(web, "store")) == ["10.44.0.4"]
    assert texts(ask(other, "store")) == []


@in_private_network
def test_addresses_of_both_versions_and_their_names(lab: Lab) -> None:
    lab.create("six", enable_ipv6=True, subnets=[Subnet("10.46.0.0/24"), Subnet("fd46::/64")])
    web = join(lab, WEB, "web", "six")
    join(lab, DB, "db", "six")

    assert texts(ask(web, "db", "AAAA")) == ["fd46::3"]
    assert texts(ask(web, dns.reversename.from_address("fd46::3").to_text(), "PTR")) == ["db.six."]
    assert texts(ask(web, dns.reversename.from_address("10.46.0.3").to_text(), "PTR")) == ["db.six."]


@in_private_network
def test_a_name_without_what_was_asked_is_empty_and_not_missing(lab: Lab) -> None:
    two_networks(lab)
    upstream = Upstream(lab, "127.0.0.1")
    use(lab, "127.0.0.1")
    web = join(lab, WEB, "web", "front")

    answers = [ask(web, "web", kind) for kind in ("AAAA", "MX", "TXT", "HTTPS")]

    assert [(answer.rcode(), texts(answer)) for answer in answers] == [(dns.rcode.NOERROR, [])] * 4
    assert upstream.asked == []


@in_private_network
def test_a_large_answer_is_cut_and_whole_by_tcp_or_to_a_client_that_takes_it(lab: Lab) -> None:
    two_networks(lab)
    web = join(lab, WEB, "web", "front")
    for number in range(60):
        join(lab, f"{number:02}" + "d" * 62, f"db{number}", "front", aliases=("db",))

    cut, by_tcp, large = ask(web, "db"), ask(web, "db", by_tcp=True), ask(web, "db", payload=4096)

    assert cut.flags & dns.flags.TC
    assert len(cut.to_wire()) <= 512
    assert 20 < len(texts(cut)) < 60
    assert len(texts(by_tcp)) == len(texts(large)) == 60


@in_private_network
def test_other_names_are_asked_of_the_hosts_servers_from_where_they_are_reached(lab: Lab) -> None:
    two_networks(lab)
    on_host = Upstream(lab, "127.0.0.1", answer="192.0.2.1")
    outside = Upstream(lab, OUTSIDE, inside=lambda make: lab.outside(make), answer="192.0.2.2")
    web = join(lab, WEB, "web", "front")

    use(lab, "127.0.0.1")
    first = texts(ask(web, "example.org"))
    use(lab, OUTSIDE)
    second = texts(ask(web, "example.org", by_tcp=True))

    assert (first, second) == (["192.0.2.1"], ["192.0.2.2"])
    assert on_host.asked == [("example.org.", "127.0.0.1", False)]
    assert outside.asked == [("example.org.", HOST, True)]  # translated: it came from the container


@in_private_network
def test_a_containers_own_servers_are_asked_in_place_of_the_hosts(lab: Lab) -> None:
    two_networks(lab)
    on_host = Upstream(lab, "127.0.0.1")
    Upstream(lab, OUTSIDE, inside=lambda make: lab.outside(make), answer="192.0.2.2")
    use(lab, "127.0.0.1")

    web = join(lab, WEB, "web", "front", naming=Naming("web", dns=(SERVER, OUTSIDE)))

    assert texts(ask(web, "example.org")) == ["192.0.2.2"]
    assert texts(ask(web, "web")) == ["10.44.0.2"]
    assert on_host.asked == []


@in_private_network
def test_what_a_server_says_reaches_the_client_as_it_is(lab: Lab) -> None:
    two_networks(lab)

    def large_or_missing(query: dns.message.Message, by_tcp: bool) -> dns.message.Message:
        if query.question[0].name.to_text() == "missing.org.":
            made = dns.message.make_response(query)
            made.set_rcode(dns.rcode.NXDOMAIN)
            return made
        made = response(query, *[f"192.0.2.{number}" for number in range(200)])
        if not by_tcp:
            made.answer.clear()
            made.flags |= dns.flags.TC
        return made

    Upstream(lab, "127.0.0.1", respond=large_or_missing)
    use(lab, "127.0.0.1")
    web = join(lab, WEB, "web", "front")

    assert ask(web, "missing.org").rcode() == dns.rcode.NXDOMAIN
    assert ask(web, "large.org").flags & dns.flags.TC
    assert len(texts(ask(web, "large.org", by_tcp=True))) == 200


@in_private_network
def test_the_next_server_is_asked_when_one_fails_is_not_there_or_says_nothing(lab: Lab) -> None:
    two_networks(lab)
    Upstream(lab, "127.0.0.1", respond=failed)
    Upstream(lab, "127.0.0.3", respond=lambda _query, _by_tcp: None)
    Upstream(lab, "127.0.0.4", answer="192.0.2.4")
    web = join(lab, WEB, "web", "front")

    use(lab, "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")

    assert texts(ask(web, "example.org")) == ["192.0.2.4"]
    assert texts(ask(web, "example.org", by_tcp=True)) == ["192.0.2.4"]
    use(lab, "127.0.0.2")
    assert ask(web, "example.org").rcode() == dns.rcode.SERVFAIL


@in_private_network
def test_a_silent_server_delays_nobody_who_asks_for_a_name_that_is_known(lab: Lab) -> None:
    two_networks(lab)
    silent = Upstream(lab, "127.0.0.1", respond=lambda _query, _by_tcp: None)
    use(lab, "127.0.0.1")
    web, db = join(lab, WEB, "web", "front"), join(lab, DB, "db", "front")
    waiting = [threading.Thread(target=ask, args=(web, f"n{number}.org")) for number in range(40)]
    [thread.start() for thread in waiting]
    eventually(lambda: len(silent.asked) == 40)

    began = time.monotonic()
    assert texts(ask(db, "web")) == texts(ask(web, "web")) == ["10.44.0.2"]
    took_s = time.monotonic() - began
    [thread.join() for thread in waiting]

    assert took_s < 1.0  # the silent server has two seconds


@in_private_network
def test_what_one_container_may_have_under_way_is_bounded(lab: Lab) -> None:
    two_networks(lab)
    Upstream(lab, "127.0.0.1", respond=lambda _query, _by_tcp: None)
    use(lab, "127.0.0.1")
    web = join(lab, WEB, "web", "front")

    def flood() -> int:
        refused = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1.0)
            for number in range(200):
                client.sendto(dns.message.make_query(f"n{number}.org", "A").to_wire(), (SERVER, 53))
            with contextlib.suppress(TimeoutError):
                while dns.message.from_wire(client.recv(4096)).rcode() == dns.rcode.SERVFAIL:
                    refused += 1
                    if refused == 72:
                        break
        return refused

    assert netns.run_inside(web.netns_fd, flood) == 72
    assert texts(ask(web, "web")) == ["10.44.0.2"]


@in_private_network
def test_a_container_of_internal_networks_alone_asks_nobody_outside(lab: Lab) -> None:
    two_networks(lab)
    lab.create("inner", internal=True, subnets=[Subnet("10.47.0.0/24")])
    upstream = Upstream(lab, "127.0.0.1")
    use(lab, "127.0.0.1")
    web = join(lab, WEB, "web", "inner")

    refused, known = ask(web, "secret.example.org"), texts(ask(web, "web"))
    lab.networks.connect(WEB, EndpointRequest("front"))

    assert (refused.rcode(), known, upstream.asked) == (dns.rcode.SERVFAIL, ["10.47.0.2"], [])
    assert texts(ask(web, "example.org")) == ["192.0.2.1"]


@in_private_network
def test_port_53_stays_free_for_the_containers_own_server(lab: Lab) -> None:
    two_networks(lab)
    web = join(lab, WEB, "web", "front")

    with netns.run_inside(web.netns_fd, lambda: socket.create_server(("0.0.0.0", 53))) as own:
        by_name = ask(web, "web", by_tcp=True)
        client = netns.run_inside(web.netns_fd, lambda: socket.create_connection(("127.0.0.1", 53), DEADLINE_S))
        with client:
            own.settimeout(DEADLINE_S)
            own.accept()[0].close()

    assert texts(by_name) == ["10.44.0.2"]


@in_private_network
def test_the_default_bridge_has_no_server_and_a_container_gets_one_with_its_first_network(lab: Lab) -> None:
    two_networks(lab)
    web = join(lab, WEB, "web", "bridge")

    def listens() -> bool:
        return SERVER in netns.run_inside(web.netns_fd, lambda: run("ss -Hlntu"))

    assert not listens()
    lab.networks.connect(WEB, EndpointRequest("front"))
    assert listens()
    assert texts(ask(web, "web")) == ["10.44.0.2"]
    lab.networks.disconnect(WEB, "front")
    assert not listens()
    lab.networks.connect(WEB, EndpointRequest("back"))
    assert texts(ask(web, "web")) == ["10.45.0.2"]


@in_private_network
def test_a_restarted_daemon_answers_again_and_nothing_holds_a_namespace_that_ended(lab: Lab) -> None:
    two_networks(lab)
    web = join(lab, WEB, "web", "front", naming=Naming("web", "front"), aliases=("www",))
    join(lab, DB, "db", "front")
    kept_fd = os.dup(web.netns_fd)
    lab.networks.close()

    lab.networks = lab.start_networks()
    lab.networks.restore(WEB, kept_fd)
    lab.networks.reconcile({WEB})
    again, gone = ask(kept_fd, "www"), ask(kept_fd, "db")
    device = web.endpoints[0].device
    assert device in run("ip -o link")
    os.close(kept_fd)
    lab.networks.leave(WEB)

    assert texts(again) == ["10.44.0.2"]
    assert texts(gone) == []
    eventually(lambda: device not in run("ip -o link"))


@in_private_network
def test_a_client_that_keeps_its_socket_is_answered_by_the_next_daemon_too(lab: Lab) -> None:
    two_networks(lab)
    web = join(lab, WEB, "web", "front")
    kept_fd = os.dup(web.netns_fd)
    lab.undo.callback(os.close, kept_fd)
    client = netns.run_inside(kept_fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    lab.undo.callback(client.close)
    client.settimeout(DEADLINE_S)
    client.connect((SERVER, 53))

    def answered() -> list[str]:
        client.send(dns.message.make_query("web", "A").to_wire())
        return texts(dns.message.from_wire(client.recv(4096)))

    before = answered()
    lab.networks.close()
    lab.networks = lab.start_networks()
    lab.networks.restore(WEB, kept_fd)

    assert before == answered() == ["10.44.0.2"]


@in_private_network
def test_rubbish_is_refused_or_ignored_and_stops_nothing(lab: Lab) -> None:
    two_networks(lab)
    web = join(lab, WEB, "web", "front")
    query = dns.message.make_query("web", "A")
    two = dns.message.make_query("web", "A")
    two.question.append(two.question[0])
    update = dns.message.make_query("web", "A")
    update.set_opcode(4)

    def tell(data: bytes) -> dns.message.Message:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(DEADLINE_S)
            client.sendto(data, (SERVER, 53))
            return dns.message.from_wire(client.recv(4096))

    def inside(data: bytes) -> dns.message.Message:
        return netns.run_inside(web.netns_fd, lambda: tell(data))

    assert inside(query.to_wire()[:-3]).rcode() == dns.rcode.FORMERR
    assert inside(two.to_wire()).rcode() == dns.rcode.FORMERR
    assert inside(update.to_wire()).rcode() == dns.rcode.NOTIMP
    with pytest.raises(TimeoutError):  # an answer, and less than a header
        netns.run_inside(web.netns_fd, lambda: _both_ignored(dns.message.make_response(query).to_wire()))
    assert texts(ask(web, "web")) == ["10.44.0.2"]


def _both_ignored(answer: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.3)
        for data in (answer, b"short", b""):
            client.sendto(data, (SERVER, 53))
        client.recv(4096)


@in_private_network
def test_hundreds_of_connections_of_one_container_do_not_keep_another_from_its_answers(lab: Lab) -> None:
    two_networks(lab)
    web, db = join(lab, WEB, "web", "front"), join(lab, DB, "db", "front")
    connections: Sequence[socket.socket] = netns.run_inside(
        web.netns_fd, lambda: [socket.create_connection((SERVER, 53), DEADLINE_S) for _ in range(200)]
    )
    try:
        assert texts(ask(db, "web", by_tcp=True)) == ["10.44.0.2"]
        assert texts(ask(web, "web", by_tcp=True)) == ["10.44.0.2"]
    finally:
        [connection.close() for connection in connections]
