"""`docker logs`, attach and events: what is shown, how far they follow, and clients that are slow or vanish."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root

# Of no interest to what is no websocket.
WEBSOCKET = (
    *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
)
FLOOD = "yes {text} | head -c {size}"
FOREVER = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done"


def ended(narud: Daemon, *arguments: str) -> str:
    """Run a client that is to end by itself; its output."""
    out, _ = narud.popen(*arguments).communicate(timeout=30)
    return out.decode()


def request(narud: Daemon, line: str, *headers: str) -> socket.socket:
    """Send a request, and read the answer's head and nothing of its body."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(narud.host.removeprefix("unix://"))
    client.sendall("\r\n".join([f"{line} HTTP/1.1", "Host: naru", *headers, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert head.split()[1] in (b"200", b"101"), head
    return client


def resident_kb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def shim_of(narud: Daemon, identifier: str) -> int:
    """Return the pid of a container's shim, which says whose it is a moment after the start."""

    def found() -> list[str]:
        return [one for one in narud.namespace.processes() if f"naru-shim {identifier}" in one]

    return int(wait_until(found)[0].partition(":")[0])


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


# --- following


def test_a_follower_stays_through_restarts_by_policy_and_ends_with_the_last(narud: Daemon) -> None:
    narud("create", "--name=again", "--restart=on-failure:3", "busybox", "sh", "-c", "echo run; sleep 0.2; exit 1")
    narud("start", "again")
    assert ended(narud, "logs", "--follow", "again") == "run\n" * 4


def test_a_follower_ends_when_a_container_is_stopped_between_two_runs(narud: Daemon) -> None:
    narud("run", "-d", "--name=again", "--restart=always", "busybox", "sh", "-c", "echo run")
    follower = narud.popen("logs", "--follow", "again")
    wait_until(lambda: len(narud("logs", "again").splitlines()) > 5)  # by then there are seconds between two
    wait_until(lambda: narud.api.inspect_container("again")["State"]["Status"] == "restarting")
    narud("stop", "again")
    assert follower.wait(20) == 0


def test_a_follower_stays_through_docker_restart(narud: Daemon) -> None:
    narud("run", "-d", "--name=again", "--stop-signal=KILL", "busybox", "sh", "-c", "echo run; sleep 600")
    follower = narud.popen("logs", "--follow", "again")
    wait_until(lambda: narud("logs", "again") == "run")
    narud("restart", "again")
    wait_until(lambda: narud("logs", "again") == "run\nrun")
    narud("kill", "again")
    assert follower.communicate(timeout=20)[0] == b"run\nrun\n"


def test_a_follower_reads_across_rotation(narud: Daemon) -> None:
    command = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done"
    options = ["--log-opt=max-size=50k", "--log-opt=max-file=200"]
    narud("run", "-d", "--name=talker", *options, "busybox", "sh", "-c", command)
    assert ended(narud, "logs", "--follow", "talker").splitlines() == [f"line {n}" for n in range(1, 20001)]


def test_all_is_there_after_a_restart_of_narud_and_can_be_followed(own_narud: Daemon) -> None:
    own_narud("run", "-d", "--name=talker", "busybox", "sh", "-c", FOREVER)
    follower = own_narud.popen("logs", "--follow", "talker")
    wait_until(lambda: len(own_narud("logs", "talker").splitlines()) > 5)
    own_narud.restart()
    follower.wait(20)
    follower = own_narud.popen("logs", "--follow", "talker")
    seen = len(own_narud("logs", "talker").splitlines())
    wait_until(lambda: len(own_narud("logs", "talker").splitlines()) > seen + 5)
    own_narud("rm", "--force", "talker")
    lines = follower.communicate(timeout=20)[0].decode().splitlines()
    assert lines == [f"line {n}" for n in range(1, len(lines) + 1)] and len(lines) > seen


def test_following_a_container_that_is_removed_ends(narud: Daemon) -> None:
    narud("run", "-d", "--name=talker", "busybox", "sh", "-c", "echo here; sleep 600")
    follower = narud.popen("logs", "--follow", "talker")
    assert follower.stdout is not None and follower.stdout.readline() == b"here\n"
    narud("rm", "--force", "talker")
    assert follower.wait(20) == 0


def test_until_ends_a_follower_though_nothing_more_is_said(narud: Daemon) -> None:
    narud("run", "-d", "--name=quiet", "busybox", "sh", "-c", "echo here; sleep 600")
    assert ended(narud, "logs", "--follow", f"--until={time.time() + 1:.3f}", "quiet") == "here\n"


def test_without_follow_the_end_is_where_it_was_asked_for(narud: Daemon) -> None:
    narud("run", "-d", "--name=talker", "--log-opt=max-size=1m", "busybox", "yes", "x" * 60)
    wait_until(lambda: narud("logs", "--tail=1", "talker"))
    assert set(ended(narud, "logs", "talker").splitlines()) == {"x" * 60}


# --- what is shown


def test_times_are_taken_in_every_form(narud: Daemon) -> None:
    narud("run", "--name=timed", "busybox", "sh", "-c", "echo one; sleep 1.2; echo two >&2; sleep 1.2; echo three")
    first, second, third = narud.api.logs("timed", timestamps=True).decode().splitlines()
    stamp = second.split()[0]
    seconds = time.mktime(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone

    def shown(*options: str) -> list[str]:
        done = narud.docker("logs", *options, "timed")
        return done.out.split() + done.err.split()

    assert shown(f"--since={stamp}") == ["three", "two"]
    assert shown(f"--until={stamp}") == ["one", "two"]
    assert shown(f"--since={stamp}", f"--until={stamp}") == ["two"]
    assert shown(f"--since={seconds:.0f}.{stamp[20:29]}") == ["three", "two"]
    assert shown("--since=10m") == ["one", "three", "two"] and shown("--until=10m") == []
    assert shown("--since=2001-01-02") == ["one", "three", "two"] and shown("--since=2001-01-02T03:04:05+02:00")
    assert shown(f"--until={stamp}", "--tail=1") == ["two"] and shown(f"--since={stamp}", "--tail=1") == ["three"]
    assert (first.split()[1], third.split()[1]) == ("one", "three")


def test_each_stream_can_be_read_alone(narud: Daemon) -> None:
    narud("run", "--name=both", "busybox", "sh", "-c", "for i in 1 2 3; do echo out $i; echo err $i >&2; done")
    assert narud.api.logs("both", stderr=False) == b"out 1\nout 2\nout 3\n"
    assert narud.api.logs("both", stdout=False, tail=2) == b"err 2\nerr 3\n"


# --- clients that do not read, and clients that go


def test_a_follower_that_does_not_read_costs_neither_container_nor_daemon(narud: Daemon) -> None:
    narud(
        "run", "-d", "--name=flood", "busybox", "sh", "-c", "sleep 1; " + FLOOD.format(text="x" * 99, size=60_000_000)
    )
    before = resident_kb(narud.pid)
    client = request(narud, "GET /containers/flood/logs?follow=1&stdout=1")
    assert narud("wait", "flood") == "0"
    assert resident_kb(narud.pid) - before < 16_000
    client.close()


def test_the_tail_of_a_long_log_takes_no_memory(narud: Daemon) -> None:
    flood = FLOOD.format(text="x" * 99, size=60_000_000)
    narud("run", "--name=flood", "--log-opt=max-size=-1", "busybox", "sh", "-c", f"{flood} >/dev/stdout", timeout_s=90)
    before = resident_kb(narud.pid)
    assert narud("logs", "--tail=2", "flood") == "x" * 99 + "\n" + "x" * 99
    assert resident_kb(narud.pid) - before < 8_000


def test_an_attached_client_that_does_not_read_is_buffered_within_bounds_and_held_up_by_nobody_when_gone(
    narud: Daemon,
) -> None:
    command = "read x; " + FLOOD.format(text="x" * 99, size=30_000_000)
    identifier = narud("run", "-d", "--interactive", "--name=flood", "busybox", "sh", "-c", command)
    shim = shim_of(narud, identifier)
    before = resident_kb(shim)
    client = request(
        narud, "POST /containers/flood/attach?stream=1&stdout=1&stdin=1", "Upgrade: tcp", "Connection: Upgrade"
    )
    client.sendall(b"go\n")
    wait_until(lambda: narud("logs", "--tail=1", "flood"))
    size = wait_until(lambda: still(Path(narud("inspect", "--format={{.LogPath}}", "flood"))))
    assert size < 20_000_000 and resident_kb(shim) - before < 8_000
    client.close()
    assert narud("wait", "flood") == "0"


def still(path: Path) -> int:
    """Return the size of a file that does not grow; 0 if it does."""
    size = path.stat().st_size
    time.sleep(0.3)
    return size if path.stat().st_size == size else 0


def test_clients_that_vanish_leave_nothing(narud: Daemon) -> None:
    identifier = narud("run", "-d", "--name=talker", "busybox", "sh", "-c", FOREVER)
    shim = shim_of(narud, identifier)
    lines = [
        "GET /containers/talker/logs?follow=1&stdout=1",
        "GET /events",
        "GET /containers/talker/stats",
        "POST /containers/talker/attach?stream=1&stdout=1",
        "POST /containers/talker/attach?stream=1&stdout=1&logs=1",
        "GET /containers/talker/attach/ws?stream=1&stdout=1",
    ]
    for line in lines:  # what the first of its kind loads
        request(narud, line, *WEBSOCKET).close()
    narud("version")

    def held() -> tuple[int, int]:
        return open_files(narud.pid), open_files(shim)

    before = wait_until(lambda: steady(held))
    threads = len(os.listdir(f"/proc/{narud.pid}/task"))
    clients = [request(narud, line, *WEBSOCKET) for line in lines * 20]
    assert held() > before
    for client in clients:
        client.close()
    wait_until(lambda: held() <= before, 20)
    wait_until(lambda: len(os.listdir(f"/proc/{narud.pid}/task")) <= threads + 32)  # the pool of verbs, which stays


def test_a_client_that_asks_for_the_past_and_does_not_read_it_can_vanish_too(narud: Daemon) -> None:
    narud(
        "run", "-d", "--name=talker", "busybox", "sh", "-c", FLOOD.format(text="x" * 99, size=8_000_000) + "; sleep 600"
    )
    wait_until(lambda: still(Path(narud("inspect", "--format={{.LogPath}}", "talker"))))
    before = open_files(narud.pid)
    clients = [request(narud, "POST /containers/talker/attach?stream=1&stdout=1&logs=1") for _ in range(10)]
    assert open_files(narud.pid) > before
    for client in clients:
        client.close()
    wait_until(lambda: open_files(narud.pid) <= before)


def steady(measure: object) -> object:
    assert callable(measure)
    first = measure()
    time.sleep(0.3)
    return first if measure() == first else None
