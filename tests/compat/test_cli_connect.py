"""Networks of one's own by the unmodified docker command line: names, connect, disconnect, and what inspect says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def front(narud: Daemon) -> Iterator[Daemon]:
    """The daemon with networks `front` and `back`, and a container `web` on `front`."""
    narud("network", "create", "--subnet", "10.61.0.0/24", "front")
    narud("network", "create", "--subnet", "10.62.0.0/24", "back")
    run(narud, "web", "--network", "front", "--network-alias", "www")
    yield narud
    narud.clear()
    narud("network", "prune", "--force")


def run(narud: Daemon, name: str, *options: str) -> None:
    narud("run", "--detach", "--name", name, *options, "busybox", "sleep", "1000")


def inside(narud: Daemon, name: str, script: str) -> str:
    return narud("exec", name, "sh", "-c", script)


def pings(narud: Daemon, name: str, whom: str) -> bool:
    return narud.docker("exec", name, "ping", "-c", "1", "-W", "2", whom).code == 0


def networks(narud: Daemon, name: str) -> dict[str, Any]:
    return dict(json.loads(narud("inspect", "--format", "{{json .NetworkSettings.Networks}}", name)))


def members(narud: Daemon, network: str) -> dict[str, str]:
    found = json.loads(narud("network", "inspect", network))[0]["Containers"]
    return {entry["Name"]: entry["IPv4Address"] for entry in found.values()}


def refusal(narud: Daemon, *arguments: str) -> str:
    done = narud.docker("network", *arguments)
    assert done.code == 1
    return done.err.strip().removeprefix("Error response from daemon: ")


def test_containers_of_one_network_know_each_other_by_name_and_alias(front: Daemon) -> None:
    run(front, "app", "--network", "front", "--network-alias", "api", "--network-alias", "service")
    assert [pings(front, "web", name) for name in ("app", "api", "service")] == [True] * 3
    assert pings(front, "app", "www")
    assert "10.61.0.2" in inside(front, "app", "nslookup www")
    assert "web.front" in inside(front, "app", "nslookup 10.61.0.2")
    run(front, "outsider")
    assert not pings(front, "outsider", "web")


def test_an_alias_of_two_is_both(front: Daemon) -> None:
    run(front, "web2", "--network", "front", "--network-alias", "www")
    run(front, "app", "--network", "front")
    answer = inside(front, "app", "nslookup www")
    assert "10.61.0.2" in answer
    assert "10.61.0.3" in answer


def test_the_resolver_is_told_as_docker_tells_it(front: Daemon) -> None:
    run(front, "app", "--network", "front", "--dns", "192.0.2.53", "--dns-search", "example.org")
    assert inside(front, "app", "cat /etc/resolv.conf").splitlines() == [
        "nameserver 127.0.0.11",
        "search example.org",
        "options ndots:0",
    ]
    run(front, "plain", "--dns", "192.0.2.53")
    assert inside(front, "plain", "cat /etc/resolv.conf").splitlines()[0] == "nameserver 192.0.2.53"


def test_a_running_container_is_connected_and_disconnected(front: Daemon) -> None:
    run(front, "db", "--network", "back")
    assert not pings(front, "web", "db")

    front("network", "connect", "--alias", "site", "--ip", "10.62.0.77", "back", "web")
    assert pings(front, "web", "db")
    assert "10.62.0.77" in inside(front, "db", "nslookup site")
    assert "10.62.0.77\t" in inside(front, "web", "cat /etc/hosts")
    assert members(front, "back") == {"db": "10.62.0.2/24", "web": "10.62.0.77/24"}
    shown = networks(front, "web")
    assert set(shown) == {"front", "back"}
    assert shown["back"]["IPAddress"] == "10.62.0.77"
    assert shown["back"]["Gateway"] == "10.62.0.1"
    assert shown["back"]["IPAMConfig"] == {"IPv4Address": "10.62.0.77"}
    assert shown["back"]["Aliases"][0] == "site"
    assert shown["back"]["DNSNames"][:2] == ["web", "site"]

    front("network", "disconnect", "back", "web")
    assert not pings(front, "web", "db")
    assert not pings(front, "db", "web")
    assert "10.62.0.77" not in inside(front, "web", "cat /etc/hosts")
    assert "eth1" not in inside(front, "web", "ip -o link")
    assert members(front, "back") == {"db": "10.62.0.2/24"}
    assert list(networks(front, "web")) == ["front"]


def test_link_local_addresses_are_given(front: Daemon) -> None:
    front("network", "connect", "--link-local-ip", "169.254.7.7", "--link-local-ip", "fe80::7", "back", "web")
    shown = inside(front, "web", "ip -o address show eth1")
    assert "169.254.7.7/16" in shown
    assert "fe80::7/64" in shown


def test_the_same_name_on_two_networks_is_somebody_else_on_each(front: Daemon) -> None:
    run(front, "db1", "--network", "front", "--network-alias", "db")
    run(front, "db2", "--network", "back", "--network-alias", "db")
    run(front, "job", "--network", "back")
    assert "10.61.0.3" in inside(front, "web", "nslookup db")
    assert "10.62.0.2" in inside(front, "job", "nslookup db")
    front("network", "connect", "front", "job")
    front("network", "disconnect", "back", "job")
    assert "10.61.0.3" in inside(front, "job", "nslookup db")


def test_a_container_that_does_not_run_is_connected_for_its_next_start(front: Daemon) -> None:
    front("create", "--name", "box", "--network", "front", "busybox", "sleep", "1000")
    front("network", "connect", "--alias", "later", "back", "box")
    front("network", "disconnect", "front", "box")
    assert list(networks(front, "box")) == ["back"]
    assert members(front, "back") == {}

    front("start", "box")
    assert "10.62.0.2/24" in inside(front, "box", "ip -o address")
    assert pings(front, "box", "later")
    front("stop", "--time", "0", "box")
    front("network", "connect", "front", "box")
    front("start", "box")
    assert pings(front, "box", "web")
    assert set(networks(front, "box")) == {"back", "front"}


def test_connections_survive_a_restart_of_the_container(front: Daemon) -> None:
    front("network", "connect", "--alias", "site", "back", "web")
    front("network", "disconnect", "front", "web")
    front("restart", "--time", "0", "web")
    run(front, "job", "--network", "back")
    assert pings(front, "job", "site")
    assert list(members(front, "front")) == []


def test_a_container_without_a_network_gets_one(front: Daemon) -> None:
    run(front, "box", "--network", "none")
    assert "private (none) mode" in refusal(front, "connect", "front", "box")
    front("network", "disconnect", "none", "box")
    front("network", "connect", "front", "box")
    assert pings(front, "box", "web")


def test_a_container_of_the_default_bridge_gets_names_with_its_first_network(front: Daemon) -> None:
    run(front, "box")
    before = inside(front, "box", "cat /etc/resolv.conf")
    front("network", "connect", "front", "box")
    assert "nameserver 127.0.0.11" in inside(front, "box", "cat /etc/resolv.conf")
    assert pings(front, "box", "web")
    front("network", "disconnect", "front", "box")
    assert inside(front, "box", "cat /etc/resolv.conf") == before


def test_a_file_that_somebody_changed_keeps_the_changes(front: Daemon) -> None:
    run(front, "box")
    inside(front, "box", "echo '192.0.2.9 mine' >>/etc/hosts; echo 'nameserver 192.0.2.53' >/etc/resolv.conf")
    front("network", "connect", "front", "box")
    assert "192.0.2.9 mine" in inside(front, "box", "cat /etc/hosts")
    assert inside(front, "box", "cat /etc/resolv.conf") == "nameserver 192.0.2.53"


def test_the_way_out_and_published_ports_follow_the_priority(front: Daemon) -> None:
    run(front, "box", "--network", "front", "-p", "8090:80")
    assert "via 10.61.0.1" in inside(front, "box", "ip route show default")
    request = {"Container": "box", "EndpointConfig": {"GwPriority": 1}}  # an old command line knows no --gw-priority
    api = front.api
    back = front("network", "inspect", "--format", "{{.Id}}", "back")
    api._raise_for_status(api._post_json(api._url("/networks/{0}/connect", back), data=request))
    assert "via 10.62.0.1" in inside(front, "box", "ip route show default")
    assert any("10.62.0.2" in element for element in front.namespace.translations())
    assert front("port", "box", "80").splitlines()[0] == "0.0.0.0:8090"
    front("network", "disconnect", "back", "box")
    assert "via 10.61.0.1" in inside(front, "box", "ip route show default")
    assert any("10.61.0.3" in element for element in front.namespace.translations())


def test_refusals_in_dockers_words(front: Daemon) -> None:
    identifier = front("inspect", "--format", "{{.Id}}", "web")
    run(front, "hosted", "--network", "host")
    run(front, "guest", "--network", "container:web")
    shared = (
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )
    hosts = "container cannot be disconnected from host network or connected to host network"
    assert refusal(front, "connect", "front", "web") == "endpoint with name web already exists in network front"
    assert refusal(front, "disconnect", "back", "web") == f"container {identifier} is not connected to network back"
    assert refusal(front, "connect", "host", "web") == hosts
    assert refusal(front, "disconnect", "host", "hosted") == hosts
    assert refusal(front, "connect", "front", "hosted") == shared
    assert refusal(front, "connect", "front", "guest") == shared
    assert refusal(front, "connect", "nowhere", "web") == "network nowhere not found"
    assert refusal(front, "connect", "front", "nobody") == "No such container: nobody"
    assert refusal(front, "disconnect", "--force", "front", "nobody") == "endpoint nobody not found"
    assert "supported on user defined networks only" in refusal(front, "connect", "--ip", "172.17.0.9", "bridge", "web")
    assert "network-scoped alias is supported only" in refusal(front, "connect", "--alias", "x", "bridge", "web")
    assert "no configured subnet contains" in refusal(front, "connect", "--ip", "10.1.1.1", "back", "web")
    invalid = "invalid link local IP address: 10.62.0.9"
    assert refusal(front, "connect", "--link-local-ip", "10.62.0.9", "back", "web") == invalid
    option = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    assert "not offered" in refusal(front, "connect", "--driver-opt", option, "back", "web")
    assert members(front, "back") == {}


def test_events_tell_of_connections(front: Daemon) -> None:
    began = f"{time.time():.6f}"
    front("network", "connect", "back", "web")
    front("network", "disconnect", "back", "web")
    front("restart", "--time", "0", "web")
    form = "{{.Action}} {{.Actor.Attributes.name}}"
    span = ["--since", began, "--until", f"{time.time():.6f}"]
    seen = front("events", *span, "--filter", "type=network", "--format", form).splitlines()
    assert seen == ["connect back", "disconnect back", "disconnect front", "connect front"]


def test_links_on_networks_of_ones_own_are_names(front: Daemon) -> None:
    run(front, "app", "--network", "front", "--link", "web:site")
    assert pings(front, "app", "site")
    front("restart", "--time", "0", "web")
    assert pings(front, "app", "site")


def test_a_renamed_container_is_found_by_its_new_name(front: Daemon) -> None:
    run(front, "app", "--network", "front")
    front("rename", "web", "page")
    assert pings(front, "app", "page")
    assert not pings(front, "app", "web")


def test_a_container_in_anothers_namespace_finds_names_too(front: Daemon) -> None:
    run(front, "guest", "--network", "container:web")
    run(front, "app", "--network", "front")
    assert pings(front, "guest", "app")


def test_a_step_of_a_build_finds_names_on_the_network_it_is_given(front: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN ping -c 1 -W 2 www\n")
    front("build", "--no-cache", "--network", "front", "--tag", "pinged", str(tmp_path))
    front("rmi", "pinged")


def test_by_docker_py(front: Daemon) -> None:
    client = docker.DockerClient(base_url=front.host, version="1.44")
    network, container = client.networks.get("back"), client.containers.get("web")
    network.connect(container, aliases=["site"], ipv4_address="10.62.0.9", mac_address="02:42:0a:3e:00:99")
    network.reload()
    container.reload()
    shown = container.attrs["NetworkSettings"]["Networks"]["back"]
    assert [found.name for found in network.containers] == ["web"]
    assert (shown["IPAddress"], shown["MacAddress"]) == ("10.62.0.9", "02:42:0a:3e:00:99")
    network.disconnect(container)
    network.reload()
    assert network.containers == []
    network.remove()


def test_a_restarted_daemon_answers_and_connects_as_before(own_narud: Daemon) -> None:
    own_narud("network", "create", "front")
    own_narud("network", "create", "back")
    run(own_narud, "web", "--network", "front", "--network-alias", "www")
    run(own_narud, "app", "--network", "front")
    own_narud("network", "connect", "back", "app")
    own_narud.restart()
    assert pings(own_narud, "app", "www")
    own_narud("network", "disconnect", "front", "app")
    own_narud("network", "connect", "back", "web")
    assert pings(own_narud, "app", "web")
    own_narud("rm", "--force", "app", "web")
    own_narud("network", "rm", "front", "back")
    wait_until(lambda: not own_narud.leaks())


@pytest.fixture
def made(narud: Daemon) -> Iterator[Daemon]:
    """The daemon; the networks of the test are removed."""
    yield narud
    narud.clear()
    names = narud("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}").split()
    # Configurations last: they are in use until then.
    [narud.docker("network", "rm", name) for _ in range(2) for name in names]


def test_options_of_a_new_network_are_in_force_and_shown(made: Daemon) -> None:
    bridge = "com.docker.network.bridge"
    made(
        *("network", "create", "--attachable", "--scope", "local", "--label", "a=b"),
        *("--subnet", "10.63.0.0/16", "--ip-range", "10.63.5.0/24", "--gateway", "10.63.0.1"),
        *("--aux-address", "router=10.63.5.0", "--aux-address", "printer=10.63.5.1"),
        *("-o", f"{bridge}.name=tested0", "-o", f"{bridge}.enable_icc=false"),
        *("-o", f"{bridge}.enable_ip_masquerade=false", "-o", "com.docker.network.driver.mtu=1400"),
        "net",
    )
    shown = json.loads(made("network", "inspect", "--verbose", "net"))[0]
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "10.63.0.0/16",
            "IPRange": "10.63.5.0/24",
            "Gateway": "10.63.0.1",
            "AuxiliaryAddresses": {"router": "10.63.5.0", "printer": "10.63.5.1"},
        }
    ]
    assert (shown["Attachable"], shown["Scope"], shown["Labels"]) == (True, "local", {"a": "b"})
    assert "tested0" in made.namespace.links()
    run(made, "one", "--network", "net")
    run(made, "two", "--network", "net")
    assert "10.63.5.2/16" in inside(made, "one", "ip -o address show eth0")
    assert "mtu 1400" in inside(made, "one", "ip -o link show eth0")
    assert "10.63.5.3" in inside(made, "one", "nslookup two")
    assert not pings(made, "one", "two")
    assert made.docker("exec", "one", "ping", "-c", "1", "-W", "1", made.namespace.outer).code == 1


def test_a_configuration_is_the_pattern_of_others(made: Daemon) -> None:
    made("network", "create", "--config-only", "--subnet", "10.64.0.0/24", "--label", "a=b", "pattern")
    made("network", "create", "--config-from", "pattern", "--label", "c=d", "net")
    shown = json.loads(made("network", "inspect", "net"))[0]
    assert (shown["ConfigFrom"]["Network"], shown["Labels"]) == ("pattern", {"a": "b", "c": "d"})
    assert shown["IPAM"]["Config"][0]["Subnet"] == "10.64.0.0/24"
    assert json.loads(made("network", "inspect", "pattern"))[0]["ConfigOnly"]
    run(made, "box", "--network", "net")
    assert 'configuration network "pattern" is in use' in refusal(made, "rm", "pattern")
    assert "takes no endpoints" in refusal(made, "connect", "pattern", "box")
    assert 'configuration network "x" does not exist' in refusal(made, "create", "--config-from", "x", "y")


def test_new_networks_that_cannot_be_are_refused_in_dockers_words(made: Daemon) -> None:
    icc, mtu = "com.docker.network.bridge.enable_icc", "com.docker.network.driver.mtu"
    parsing = f'failed to parse {icc} value: maybe (strconv.ParseBool: parsing "maybe": invalid syntax)'
    assert refusal(made, "create", "-o", f"{icc}=maybe", "x") == parsing
    assert refusal(made, "create", "-o", f"{mtu}=-3", "x") == "invalid MTU number: -3"
    assert "swarm is not active" in refusal(made, "create", "--scope", "swarm", "x")
    assert refusal(made, "create", "--ingress", "x") == "Ingress network can only be global scope network"
    assert refusal(made, "create", "--ipam-driver", "foo", "x") == 'plugin "foo" not found'
    mode = "com.docker.network.bridge.gateway_mode_ipv4=routed"
    assert "is not offered by this engine" in refusal(made, "create", "-o", mode, "x")


def test_networks_are_listed_and_pruned_by_filters(made: Daemon) -> None:
    made("network", "create", "--label", "keep", "kept")
    made("network", "create", "--label", "project=x", "first")
    made("network", "create", "--label", "project=y", "second")
    run(made, "box", "--network", "second")

    def listed(*filters: str) -> set[str]:
        flags = [part for value in filters for part in ("--filter", value)]
        return set(made("network", "ls", "--format", "{{.Name}}", *flags).split())

    assert listed("type=builtin") == {"bridge", "host", "none"}
    assert listed("type=custom") == {"kept", "first", "second"}
    assert listed("label=project") == {"first", "second"}
    assert listed("label=project=y") == {"second"}
    assert listed("type=custom", "dangling=true") == {"kept", "first"}
    assert listed("name=irs") == {"first"}
    assert listed("driver=null") == {"none"}
    assert listed("scope=swarm") == set()
    assert refusal(made, "ls", "--filter", "type=x") == "invalid filter: 'type'='x'"
    assert "invalid filter 'nothing'" in refusal(made, "ls", "--filter", "nothing=x")
    assert made("network", "prune", "--force", "--filter", "until=1h") == ""
    assert "first" in made("network", "prune", "--force", "--filter", "label!=keep")
    assert listed("type=custom") == {"kept", "second"}
