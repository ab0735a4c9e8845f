"""Who is called what on which network, and what a container's own files say of it."""

from __future__ import annotations

from naru.network.hosts import container_hosts, own_names, with_own_addresses
from naru.network.names import Names, dns_names
from naru.network.record import Endpoint, SandboxRecord
from naru.network.resolv_conf import own_resolv_conf

WEB, DB = "a" * 64, "b" * 64


def endpoint(network: str, ip: str, **more: object) -> Endpoint:
    return Endpoint(f"id-{network}", network, f"{network}-{ip}", "eth0", "veth0", "", ip=ip, **more)  # type: ignore[arg-type]


def addresses(names: Names, sandbox_id: str, name: str) -> list[str]:
    return [found.ip for found in names.find(sandbox_id, name)]


def test_a_container_is_called_by_name_alias_short_id_and_hostname_once_each() -> None:
    assert dns_names("web", WEB, "web", ["www", "web"]) == ["web", "www", "a" * 12]


def test_names_hold_on_the_networks_of_the_one_who_asks() -> None:
    names = Names()
    names.put(SandboxRecord(WEB, "web", (endpoint("front", "10.0.0.2"),)))
    names.put(SandboxRecord(DB, "db", (endpoint("back", "10.1.0.2"),)))

    assert addresses(names, WEB, "web") == ["10.0.0.2"]
    assert addresses(names, WEB, "db") == []
    assert addresses(names, "nobody", "web") == []


def test_the_default_network_has_no_names() -> None:
    names = Names()
    names.put(SandboxRecord(WEB, "web", (endpoint("bridge", "172.17.0.2"),)))

    assert addresses(names, WEB, "web") == []


def test_the_network_of_the_highest_priority_is_looked_at_first() -> None:
    names = Names()
    names.put(SandboxRecord("1" * 64, "db", (endpoint("back", "10.1.0.3"),)))
    names.put(SandboxRecord("2" * 64, "db", (endpoint("front", "10.0.0.3"),)))
    both = (endpoint("back", "10.1.0.2"), endpoint("front", "10.0.0.2", gw_priority=1))
    names.put(SandboxRecord(WEB, "web", both))

    assert addresses(names, WEB, "db") == ["10.0.0.3"]
    assert addresses(names, WEB, "db.back") == ["10.1.0.3"]


def test_what_is_put_again_replaces_what_was_and_dropping_leaves_the_others() -> None:
    names = Names()
    names.put(SandboxRecord(WEB, "web", (endpoint("front", "10.0.0.2", aliases=("www",)),)))
    names.put(SandboxRecord(DB, "db", (endpoint("front", "10.0.0.3", aliases=("www",)),)))
    names.put(SandboxRecord(WEB, "page", (endpoint("front", "10.0.0.2", aliases=("www",)),)))
    shared = addresses(names, DB, "www")
    names.drop(WEB)

    assert sorted(shared) == ["10.0.0.2", "10.0.0.3"]
    assert addresses(names, DB, "web") == addresses(names, DB, "page") == []
    assert addresses(names, DB, "www") == ["10.0.0.3"]
    assert names.find_name(DB, "10.0.0.2") == ""
    assert names.find_name(DB, "10.0.0.3") == "db.front"


def test_own_addresses_change_and_other_lines_of_hosts_stay() -> None:
    names = own_names("box", "example.org")
    text = container_hosts(
        hostname="box", domainname="example.org", addresses=["10.0.0.2"], extra_hosts=["a:192.0.2.1"]
    )

    changed = with_own_addresses(text + "# 10.0.0.2\tbox\n192.0.2.7 mine", names, ["10.1.0.2", "fd00::2"])

    assert "10.0.0.2\tbox.example.org" not in changed
    assert changed.endswith("192.0.2.7 mine\n10.1.0.2\tbox.example.org box\nfd00::2\tbox.example.org box\n")
    assert "192.0.2.1\ta\n" in changed
    assert with_own_addresses(changed, names, ["10.1.0.2", "fd00::2"]) == changed


def test_the_resolver_is_told_of_our_server_the_hosts_search_and_no_dots() -> None:
    host = "nameserver 192.0.2.53\nsearch example.org\noptions edns0\n"

    assert own_resolv_conf(host).text() == "nameserver 127.0.0.11\nsearch example.org\noptions edns0 ndots:0\n"
    assert own_resolv_conf(host, dns_search=["."], dns_options=["ndots:2"]).text() == (
        "nameserver 127.0.0.11\noptions ndots:2\n"
    )
