"""Requests nobody would write must be refused as Docker refuses them, and leave nothing behind.

NARU_FUZZ_SECONDS makes it longer (45 by default), NARU_FUZZ_SEED another run.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from pathlib import Path

import docker
import pytest
from api_client import Client
from api_description import NEWEST, description
from api_fuzz import Fuzzer, Reply, Request, send
from api_scenario import ABSENT
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root

SECONDS = float(os.environ.get("NARU_FUZZ_SECONDS", "45"))
SEED = int(os.environ.get("NARU_FUZZ_SEED", "1"))
VERSIONS = (NEWEST, NEWEST, NEWEST, "1.51", "1.41", "1.24")
# They ask a registry of somebody else, whatever is in the request.
FAR_AWAY = ("/images/search", "/auth", "/distribution/{name}/json", "/images/{name}/push")
ROUND_REQUESTS = 150
# Most of what can be wrong is in these bodies.
WEIGHTS = {
    "POST /containers/create": 25,
    "POST /networks/create": 5,
    "POST /containers/{id}/exec": 5,
    "POST /containers/{id}/update": 3,
    "POST /volumes/create": 3,
}


def test_no_request_harms_the_daemon(own_narud: Daemon, busybox_archive: Path) -> None:
    narud, described = own_narud, description(NEWEST)
    client = Client(str(narud.run / "naru.sock"), NEWEST)
    pull_is_loaded = client.call("POST", "/images/create", {"fromImage": "localhost:1/a"})
    assert pull_is_loaded.status == 503
    known = _furnish(narud, busybox_archive)
    fuzzer = Fuzzer(described, SEED, known)
    chooser = random.Random(SEED)
    operations = [it for it in described.operations.values() if it.template not in FAR_AWAY]
    weights = [WEIGHTS.get(it.name, 0.2 if it.template.startswith(ABSENT) else 1) for it in operations]
    before: tuple[int, int] | None = None
    problems: list[str] = []
    deadline, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline and len(problems) < 20:
        operation = chooser.choices(operations, weights)[0]
        # Before 1.30, the head of a wait comes with its end.
        version = NEWEST if operation.template == "/containers/{id}/wait" else chooser.choice(VERSIONS)
        request = fuzzer.request(operation, f"/v{version}")
        try:
            reply = send(client.socket_path, request)
        except (AssertionError, TimeoutError, OSError) as error:
            problems.append(f"{error!r} to {request}")
        else:
            problems += [f"{problem} to {request}" for problem in _faults(request, reply)]
            _use(client, request, reply, chooser)
        count += 1
        if count % ROUND_REQUESTS == 0:
            _clear(narud)
            before = before or _held(narud.pid)
            known.update(_furnish(narud, busybox_archive))
    assert client.call("GET", "/_ping").body == b"OK"
    _clear(narud)
    assert not problems, "\n".join([f"seed {SEED}, {count} requests:", *problems])
    assert "Traceback" not in narud.log.read_text()
    before = before or _held(narud.pid)
    # Thousands of requests: what one in a hundred leaves shows, pools of threads may be some larger.
    wait_until(lambda: all(now <= then + 8 for now, then in zip(_held(narud.pid), before, strict=True)), 30)
    wait_until(lambda: not narud.leaks(), 10)


def _faults(request: Request, reply: Reply) -> list[str]:
    """What is wrong with an answer, whatever was asked."""
    found = []
    if reply.status >= 500 and reply.status not in (501, 503):
        found.append(f"{reply.status} {reply.body[:500]!r}")
    if b"Traceback" in reply.body or b"naru/" in reply.body.replace(b"/naru/", b""):
        found.append(f"a traceback: {reply.body[:500]!r}")
    if reply.status >= 400 and not request.head.startswith(b"HEAD"):
        try:
            message = json.loads(reply.body)["message"]
        except (ValueError, KeyError, TypeError):
            found.append(f"{reply.status} without a message: {reply.body[:200]!r}")
        else:
            is_asked_for = b"%0A" in request.head or b"\\n" in request.body  # a name in it has lines
            if not message or ("\n" in message.strip() and not is_asked_for):
                found.append(f"{reply.status} with a message of no or many lines: {message!r}")
    return found


def _use(client: Client, request: Request, reply: Reply, chooser: random.Random) -> None:
    """Go on with what was made: a create that is accepted must be startable, or say why not."""
    if request.operation == "POST /containers/create" and reply.status == 201 and chooser.random() < 0.7:
        id = json.loads(reply.body)["Id"]
        started = client.call("POST", f"/containers/{id}/start")
        assert started.status < 500, f"start: {started.status} {started.body!r} of {request}"
        client.call("GET", f"/containers/{id}/json")
        client.call("DELETE", f"/containers/{id}", {"force": 1, "v": 1})


def _furnish(narud: Daemon, archive: Path) -> dict[str, list[str]]:
    """Make the things that requests are about, where they are gone."""
    api = narud.api
    if not api.images("busybox:latest"):
        for _ in api.load_image(archive.read_bytes()):
            pass
    with contextlib.suppress(docker.errors.APIError):
        api.create_network("fuzz-net")
    api.create_volume("fuzz-volume")
    quick = api.create_host_config(init=True)  # it obeys SIGTERM
    running = api.create_container("busybox", ["sleep", "1000"], name="fuzz", stdin_open=True, host_config=quick)["Id"]
    api.start(running)
    stopped = api.create_container("busybox", ["true"], name="fuzz-stopped")["Id"]
    execs = [api.exec_create(running, ["sleep", "1000"], stdin=True)["Id"] for _ in range(3)]
    return {
        "containers": [running, "fuzz", stopped],
        "exec": execs,
        "images": ["busybox", "busybox:latest"],
        "networks": ["fuzz-net", "bridge"],
        "volumes": ["fuzz-volume"],
    }


def _clear(narud: Daemon) -> None:
    narud.clear()
    api = narud.api
    for network in api.networks():
        if network["Name"] not in ("bridge", "host", "none"):
            api.remove_network(network["Id"])
    for image in api.images(all=True):
        if "busybox:latest" not in (image["RepoTags"] or []):
            with contextlib.suppress(docker.errors.APIError):
                api.remove_image(image["Id"], force=True)


def _held(pid: int) -> tuple[int, int]:
    """How many descriptors and threads a process has."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(list(Path(f"/proc/{pid}/task").iterdir()))
