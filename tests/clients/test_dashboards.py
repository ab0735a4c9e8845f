"""What dashboards ask of an engine, in their order: lazydocker's (lists, streams), Portainer's (lists, a console)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import docker
import pytest
import websocket
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def api(narud: Daemon) -> docker.APIClient:
    return narud.api


@pytest.fixture
def web(narud: Daemon) -> Iterator[str]:
    """A container that prints a line a second."""
    narud(
        "run", "-d", "--name", "web", "--label", "tier=front", "busybox", "sh", "-c", "while :; do date; sleep 1; done"
    )
    yield "web"


def test_a_terminal_dashboard_lists_and_follows_everything(api: docker.APIClient, web: str, narud: Daemon) -> None:
    told: list[str] = []
    events = api.events(decode=True)
    listening = threading.Thread(target=lambda: [told.append(event["Action"]) for event in events], daemon=True)
    listening.start()

    assert api.info()["ContainersRunning"] == 1
    (container,) = api.containers(all=True)
    details = api.inspect_container(container["Id"])
    stats = api.stats(container["Id"], stream=True, decode=True)
    first, second = next(stats), next(stats)
    top = api.top(container["Id"])
    lines = api.logs(container["Id"], stream=True, follow=True, tail=10, timestamps=True)
    images = api.images(all=True)
    history = api.history("busybox")

    assert details["State"]["Running"]
    assert second["cpu_stats"]["system_cpu_usage"] > first["cpu_stats"]["system_cpu_usage"]
    assert second["precpu_stats"]["cpu_usage"]["total_usage"] == first["cpu_stats"]["cpu_usage"]["total_usage"]
    assert second["memory_stats"]["usage"] > 0
    assert second["networks"]["eth0"]["rx_bytes"] >= 0
    assert len(top["Processes"]) >= 1
    assert next(lines)[:2] == b"20"
    assert "busybox:latest" in [tag for image in images for tag in image["RepoTags"]]
    assert history[0]["Tags"] == ["busybox:latest"]
    assert api.volumes()["Volumes"] in ([], None)
    assert {network["Name"] for network in api.networks()} >= {"bridge", "host", "none"}

    api.restart(web, timeout=0)
    wait_until(lambda: {"kill", "die", "start", "restart"} <= set(told))
    api.remove_container(web, force=True)
    wait_until(lambda: "destroy" in told)
    events.close()


def test_a_web_dashboard_fills_its_pages_and_opens_a_console(api: docker.APIClient, web: str, narud: Daemon) -> None:
    assert api.version()["Os"] == "linux"
    assert api.info()["Swarm"]["LocalNodeState"] == "inactive"
    filters = json.dumps({"label": ["tier=front"], "status": ["running"]})
    listed = api._get(api._url("/containers/json"), params={"all": 1, "filters": filters, "size": 1}).json()
    assert [one["Names"] for one in listed] == [["/web"]]
    assert listed[0]["SizeRootFs"] > 0
    usage = api.df()
    assert usage["LayersSize"] > 0
    assert [one["Names"] for one in usage["Containers"]] == [["/web"]]
    for path, status in (("/swarm", 503), ("/services", 503), ("/nodes", 503), ("/secrets", 503), ("/plugins", 200)):
        assert api._get(api._url(path)).status_code == status

    started = api.exec_create(web, ["sh"], tty=True, stdin=True)
    console = api.exec_start(started["Id"], tty=True, socket=True)
    api.exec_resize(started["Id"], height=40, width=100)
    console._sock.sendall(b"stty size; exit 3\n")
    said = b"".join(iter(lambda: console._sock.recv(4096), b""))
    assert b"40 100" in said
    wait_until(lambda: not api.exec_inspect(started["Id"])["Running"])
    assert api.exec_inspect(started["Id"])["ExitCode"] == 3


def test_a_web_console_attaches_by_websocket(narud: Daemon, api: docker.APIClient) -> None:
    made = api.create_container("busybox", "cat", stdin_open=True, tty=False, name="echo")
    api.start(made)
    socket_path = narud.host.removeprefix("unix://")
    console = websocket.WebSocket()
    transport = docker.transport.unixconn.UnixHTTPConnection(narud.host, socket_path, 60)
    transport.connect()
    console.connect(
        f"ws://localhost/v1.44/containers/{made['Id']}/attach/ws?stream=1&stdin=1&stdout=1", socket=transport.sock
    )

    console.send("hello\n")

    assert console.recv() in (b"hello\n", "hello\n")
    console.close()
