"""The daemon is killed while containers run: they notice nothing, and the next daemon takes them over."""

from __future__ import annotations

from urllib.request import urlopen

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root

COUNT = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.005; done"
SERVE = "mkdir /www && echo served >/www/index.html && exec httpd -f -p 80 -h /www"


def test_the_log_and_an_attached_client_lose_nothing(own_narud: Daemon) -> None:
    own_narud("run", "-d", "-i", "--name", "box", "busybox", "sh", "-c", f"read begin; {COUNT}")
    attached = own_narud.popen("attach", "box")
    assert attached.stdin is not None
    assert attached.stdout is not None
    attached.stdin.write(b"\n")
    seen = [int(attached.stdout.readline())]
    own_narud.kill()
    seen += [int(attached.stdout.readline()) for _ in range(100)]
    own_narud.start()
    seen += [int(attached.stdout.readline()) for _ in range(100)]
    assert seen == list(range(201))
    logged = [int(line) for line in own_narud("logs", "box").splitlines()]
    assert logged == list(range(len(logged)))
    assert len(logged) > 200


def test_everything_works_on_a_container_that_was_taken_over(own_narud: Daemon) -> None:
    own_narud("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVE)
    own_narud("run", "-d", "-i", "--name", "cat", "busybox", "cat")
    own_narud("run", "-d", "--name", "still", "busybox", "sleep", "1000")
    own_narud("pause", "still")
    pid = own_narud("inspect", "--format", "{{.State.Pid}}", "web")
    url = f"http://{own_narud.namespace.address}:8080"
    wait_until(lambda: own_narud.docker("exec", "web", "wget", "-qO-", "http://127.0.0.1").code == 0)
    own_narud.kill()
    assert urlopen(url, timeout=5).read() == b"served\n"
    own_narud.start()
    assert own_narud("inspect", "--format", "{{.State.Pid}} {{.State.Status}}", "web") == f"{pid} running"
    assert urlopen(url, timeout=5).read() == b"served\n"
    assert own_narud("exec", "web", "cat", "/www/index.html") == "served"
    assert own_narud("inspect", "--format", "{{.State.Status}}", "still") == "paused"
    own_narud("unpause", "still")
    assert own_narud("exec", "still", "echo", "thawed") == "thawed"
    typing = own_narud.popen("attach", "cat")
    assert typing.stdin is not None
    assert typing.stdout is not None
    typing.stdin.write(b"typed\n")
    assert typing.stdout.readline() == b"typed\n"
    following = own_narud.popen("logs", "--follow", "cat")
    assert following.stdout is not None
    assert following.stdout.readline() == b"typed\n"
    own_narud("stop", "--time", "0", "web", "cat", "still")
    assert following.wait(10) == 0
    assert own_narud("ps", "-q") == ""


def test_new_containers_do_not_take_what_running_ones_have(own_narud: Daemon) -> None:
    own_narud("run", "-d", "--name", "old", "-p", "8080:80", "busybox", "sleep", "1000")
    own_narud.restart()
    own_narud("run", "-d", "--name", "new", "busybox", "sleep", "1000")
    address = "{{.NetworkSettings.IPAddress}}"
    assert own_narud("inspect", "--format", address, "old") != own_narud("inspect", "--format", address, "new")
    refused = own_narud.docker("run", "-d", "-p", "8080:80", "busybox", "sleep", "1")
    assert "port is already allocated" in refused.err


def test_an_exit_while_the_daemon_was_away_is_recorded(own_narud: Daemon) -> None:
    script = "read x; echo $x; read x; echo last words; exit 42"
    own_narud("run", "-d", "-i", "--name", "box", "busybox", "sh", "-c", script)
    own_narud("run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "0.5")
    attached = own_narud.popen("attach", "box")
    assert attached.stdin is not None
    assert attached.stdout is not None
    attached.stdin.write(b"attached\n")
    assert attached.stdout.readline() == b"attached\n"
    own_narud.kill()
    attached.stdin.write(b"end\n")
    wait_until(lambda: not own_narud.namespace.processes())
    own_narud.start()
    assert own_narud("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "box") == "exited 42"
    assert own_narud("logs", "box") == "attached\nlast words"
    assert own_narud("ps", "-a", "--format", "{{.Names}}") == "box"


def test_what_must_run_is_started_again_when_its_shim_died_with_the_daemon(own_narud: Daemon) -> None:
    own_narud("run", "-d", "--name", "always", "--restart", "always", "busybox", "sleep", "1000")
    own_narud("run", "-d", "--name", "once", "busybox", "sleep", "1000")
    own_narud.kill_everything()
    own_narud.start()
    wait_until(lambda: own_narud("ps", "--format", "{{.Names}}") == "always")
    assert own_narud("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "once") == "exited 137"
