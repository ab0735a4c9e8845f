"""Networks and published ports by the unmodified docker command line, tried from the daemon's side and from outside."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from daemon import Daemon, call_in, wait_until

pytestmark = pytest.mark.root

SERVE = 'mkdir /www && echo "$0" >/www/index.html && exec httpd -f -p 80 -h /www'


def serve(narud: Daemon, name: str, *options: str) -> None:
    narud("run", "--detach", "--name", name, *options, "busybox", "sh", "-c", SERVE, f"i am {name}")
    wait_until(lambda: narud.docker("exec", name, "wget", "-qO-", "http://127.0.0.1/").code == 0)


def get(url: str) -> str:
    with urlopen(url, timeout=5) as response:
        return str(response.read().decode().strip())


def fails(action: Callable[[], object]) -> bool:
    try:
        action()
    except (URLError, OSError):
        return True
    return False


def test_a_published_port_is_reached_from_everywhere(narud: Daemon) -> None:
    serve(narud, "web", "-p", "8080:80")
    inside = narud.namespace.address
    assert get(f"http://{inside}:8080") == "i am web"
    assert narud.namespace.call(get, "http://127.0.0.1:8080") == "i am web"
    assert narud.namespace.call(get, "http://[::1]:8080") == "i am web"
    assert narud.namespace.call(get, f"http://{inside}:8080") == "i am web"
    assert narud("run", "--rm", "busybox", "wget", "-qO-", f"http://{inside}:8080") == "i am web"
    shown = [line.replace(":::", "[::]:") for line in narud("port", "web").splitlines()]  # as clients before 27 write
    assert shown == ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]
    assert narud("ps", "--format", "{{.Ports}}").startswith("0.0.0.0:8080->80/tcp, ")


def test_a_port_published_on_loopback_is_not_reached_from_outside(narud: Daemon) -> None:
    serve(narud, "web", "-p", "127.0.0.1:8081:80")
    assert narud.namespace.call(get, "http://127.0.0.1:8081") == "i am web"
    assert fails(lambda: get(f"http://{narud.namespace.address}:8081"))


def test_a_port_of_the_engines_choice(narud: Daemon) -> None:
    serve(narud, "web", "-p", "80")
    port = narud("port", "web", "80/tcp").splitlines()[0].rpartition(":")[2]
    assert get(f"http://{narud.namespace.address}:{port}") == "i am web"


def test_a_stopped_container_gives_its_port_back(narud: Daemon) -> None:
    serve(narud, "web", "-p", "8082:80")
    narud("stop", "--time", "0", "web")
    assert fails(lambda: get(f"http://{narud.namespace.address}:8082"))
    serve(narud, "next", "-p", "8082:80")
    assert get(f"http://{narud.namespace.address}:8082") == "i am next"


def test_udp_is_published(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "box", "-p", "5353:53/udp", "busybox", "sleep", "100")
    inside = f"/proc/{narud('inspect', '--format', '{{.State.Pid}}', 'box')}/ns/net"
    with (
        call_in(inside, socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as serving,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
    ):
        serving.settimeout(5)
        asking.settimeout(5)
        serving.bind(("0.0.0.0", 53))
        asking.sendto(b"hello", (narud.namespace.address, 5353))
        question, client = serving.recvfrom(100)
        serving.sendto(question.upper(), client)
        assert asking.recvfrom(100) == (b"HELLO", (narud.namespace.address, 5353))


def test_a_port_in_use_by_another_container_is_refused_in_dockers_words(narud: Daemon) -> None:
    serve(narud, "web", "-p", "8083:80")
    done = narud.docker("run", "--name", "late", "-p", "8083:80", "busybox")
    assert done.code == 125
    assert "Bind for 0.0.0.0:8083 failed: port is already allocated" in done.err
    assert narud("inspect", "--format", "{{.State.Status}}", "late") == "created"


def test_a_port_in_use_by_a_program_is_refused(narud: Daemon) -> None:
    with narud.namespace.call(socket.create_server, ("0.0.0.0", 8084)):
        done = narud.docker("run", "--rm", "-p", "8084:80", "busybox")
    assert done.code == 125
    assert "address already in use" in done.err


def test_containers_reach_each_other_by_address_and_the_world_by_translation(narud: Daemon) -> None:
    serve(narud, "web")
    address = narud("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web")
    assert narud("run", "--rm", "busybox", "wget", "-qO-", f"http://{address}") == "i am web"
    with socket.create_server((narud.namespace.outer, 0)) as listener:
        target = [narud.namespace.outer, str(listener.getsockname()[1])]
        narud("run", "--detach", "busybox", "sh", "-c", f"echo out | nc {' '.join(target)}")
        listener.settimeout(10)
        connection, peer = listener.accept()
        with connection:
            assert connection.recv(10) == b"out\n"
    assert peer[0] == narud.namespace.address


def test_the_host_network_is_the_daemons(narud: Daemon) -> None:
    printed = narud("run", "--rm", "--network", "host", "busybox", "ip", "-o", "address", "show", "eth0")
    assert narud.namespace.address in printed


def test_no_network_is_loopback_alone(narud: Daemon) -> None:
    script = "ls /sys/class/net; ping -c 1 -W 1 127.0.0.1 >/dev/null && echo ok"
    assert narud("run", "--rm", "--network", "none", "busybox", "sh", "-c", script).split() == ["lo", "ok"]


def test_another_containers_network_is_shared(narud: Daemon) -> None:
    serve(narud, "web")
    shared = ["--network", "container:web"]
    assert narud("run", "--rm", *shared, "busybox", "wget", "-qO-", "http://127.0.0.1") == "i am web"
    refused = narud.docker("run", "--rm", *shared, "-p", "1:1", "busybox")
    assert "conflicting options: port publishing and the container type network mode" in refused.err


def test_a_network_of_ones_own_is_apart(narud: Daemon) -> None:
    narud("network", "create", "--subnet", "10.55.0.0/24", "apart")
    serve(narud, "web", "--network", "apart", "--ip", "10.55.0.9")
    assert narud("run", "--rm", "--network", "apart", "busybox", "wget", "-qO-", "http://10.55.0.9") == "i am web"
    outsider = narud.docker("run", "--rm", "busybox", "wget", "-T", "1", "-qO-", "http://10.55.0.9")
    assert outsider.code == 1
    assert "has active endpoints" in narud.docker("network", "rm", "apart").err
    narud("rm", "--force", "web")
    narud("network", "rm", "apart")
    assert "bridge" in narud("network", "ls", "--format", "{{.Name}}").split()


def test_inspect_shows_addresses_and_ports(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "web", "-p", "8085:80", "busybox", "sleep", "100")
    settings = json.loads(narud("inspect", "--format", "{{json .NetworkSettings}}", "web"))
    bridge = settings["Networks"]["bridge"]
    assert bridge["IPAddress"].startswith("172.17.")
    assert bridge["Gateway"] == "172.17.0.1"
    assert settings["Ports"]["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": "8085"}
    assert json.loads(narud("network", "inspect", "bridge"))[0]["Containers"]
