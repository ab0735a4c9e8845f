"""/etc/hosts and /etc/resolv.conf of a container, as Docker's users expect them."""

from __future__ import annotations

import pytest

from naru.errors import InvalidArgument
from naru.network.hosts import container_hosts, host_network_hosts
from naru.network.resolv_conf import container_resolv_conf

HEAD = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def test_hosts_names_the_container_last() -> None:
    text = container_hosts(hostname="web", domainname="example.org", addresses=["172.17.0.2", "fd00::2"])

    assert text == HEAD + "172.17.0.2\tweb.example.org web\nfd00::2\tweb.example.org web\n"


def test_extra_hosts_and_links_come_before_the_container() -> None:
    text = container_hosts(
        hostname="web",
        addresses=["172.17.0.2"],
        extra_hosts=["gate:host-gateway", "six:fd00::9", "equals=10.0.0.1"],
        host_gateway="172.17.0.1",
        links=[("172.17.0.3", ("db", "1a2b3c", "postgres"))],
    )

    assert text == (
        HEAD + "172.17.0.1\tgate\nfd00::9\tsix\n10.0.0.1\tequals\n172.17.0.3\tdb 1a2b3c postgres\n172.17.0.2\tweb\n"
    )


@pytest.mark.parametrize("extra", ["nonsense", "name:", ":10.0.0.1", "name:not-an-address"])
def test_a_bad_extra_host_is_refused(extra: str) -> None:
    with pytest.raises(InvalidArgument, match="add-host"):
        container_hosts(hostname="web", extra_hosts=[extra])


def test_the_host_network_keeps_the_hosts_file() -> None:
    assert host_network_hosts("127.0.0.1 host", extra_hosts=["a:1.2.3.4"]) == "127.0.0.1 host\n1.2.3.4\ta\n"


def test_loopback_nameservers_are_left_out() -> None:
    host = "nameserver 127.0.0.1\nnameserver 10.0.0.53 # ours\nsearch corp.example\noptions ndots:2\n"

    conf = container_resolv_conf(host)

    assert conf.text() == "nameserver 10.0.0.53\nsearch corp.example\noptions ndots:2\n"


def test_the_stub_of_systemd_resolved_stands_for_its_servers() -> None:
    conf = container_resolv_conf(
        "nameserver 127.0.0.53\noptions edns0 trust-ad\n", systemd_text="nameserver 192.168.1.1\nsearch lan\n"
    )

    assert conf.text() == "nameserver 192.168.1.1\nsearch lan\noptions edns0 trust-ad\n"


def test_the_public_fallback_is_for_hosts_without_any_reachable_server() -> None:
    assert container_resolv_conf("").text() == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_ipv6_servers_are_for_containers_with_ipv6() -> None:
    host = "nameserver fd00::53\nnameserver fe80::1%eth0\nnameserver 10.0.0.53\n"

    assert container_resolv_conf(host).nameservers == ("10.0.0.53",)
    assert container_resolv_conf(host, has_ipv6=True).nameservers == ("fd00::53", "10.0.0.53")


def test_what_was_asked_for_replaces_what_the_host_says() -> None:
    conf = container_resolv_conf(
        "nameserver 10.0.0.53\nsearch corp.example\noptions ndots:2\n",
        dns=["127.0.0.1"],
        dns_search=["."],
        dns_options=["timeout:1"],
    )

    assert conf.text() == "nameserver 127.0.0.1\noptions timeout:1\n"
