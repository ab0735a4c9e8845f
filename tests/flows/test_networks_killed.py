"""The daemon is killed while containers are connected and disconnected: each is then on a network or it is not."""

from __future__ import annotations

import json
import random
import re
import threading

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root

KILLS = 8


def test_killed_while_connecting_and_disconnecting_it_leaves_nothing_half_done(own_narud: Daemon) -> None:
    for name in ("front", "back", "yard"):
        own_narud("network", "create", name)
    own_narud("run", "-d", "--name", "web", "--network", "front", "-p", "8080:80", "busybox", "sleep", "1000")
    own_narud("run", "-d", "--name", "job", "--network", "yard", "busybox", "sleep", "1000")
    chance, ended = random.Random(3), threading.Event()

    def connects(network: str, container: str) -> None:
        while not ended.is_set():
            own_narud.docker("network", "connect", network, container, timeout_s=30)
            own_narud.docker("network", "disconnect", network, container, timeout_s=30)

    clients = [
        threading.Thread(target=connects, args=pair)
        for pair in (("back", "web"), ("yard", "web"), ("front", "job"), ("back", "job"))
    ]
    [client.start() for client in clients]
    for _ in range(KILLS):
        threading.Event().wait(chance.uniform(0.1, 0.5))
        own_narud.restart()
    ended.set()
    [client.join() for client in clients]
    own_narud.restart()

    for name in ("web", "job"):
        assert_whole(own_narud, name)
    own_narud("rm", "--force", "web", "job")
    own_narud("network", "prune", "--force")
    wait_until(lambda: not own_narud.leaks(), 5)


def assert_whole(narud: Daemon, name: str) -> None:
    """What inspect says of both sides is what is inside."""
    settings = json.loads(narud("inspect", "--format", "{{json .NetworkSettings}}", name))
    shown = {network: settings["Networks"][network]["IPAddress"] for network in settings["Networks"]}
    inside = narud("exec", name, "ip", "-o", "-4", "address")
    assert sorted(shown.values()) == sorted(set(re.findall(r"inet ([\d.]+)", inside)) - {"127.0.0.1"})
    for network, address in shown.items():
        members = json.loads(narud("network", "inspect", network))[0]["Containers"].values()
        assert [member["IPv4Address"].split("/")[0] for member in members if member["Name"] == name] == [address]
    way_out = settings["Networks"][min(shown)]["Gateway"]
    assert f"default via {way_out} " in narud("exec", name, "ip", "route") + " "
    hosts = [line.split()[0] for line in narud("exec", name, "cat", "/etc/hosts").splitlines()]
    assert [address for address in hosts if address in shown.values()] == list(dict.fromkeys(shown.values()))
    if settings["Ports"]:
        assert any(shown[min(shown)] in element for element in narud.namespace.translations())
    assert narud.docker("exec", name, "ping", "-c", "1", "-W", "2", name).code == 0
