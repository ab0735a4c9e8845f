"""The seed lines: a real service from the library, with its data, beside another version of itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon, pull, wait_until

pytestmark = [pytest.mark.root, pytest.mark.packages]


@pytest.fixture(scope="module")
def with_redis(shared_narud: Daemon) -> Daemon:
    """The shared daemon, with both versions of redis from the library."""
    pull(shared_narud, "redis:8.0", "redis:7.0")
    return shared_narud


@pytest.fixture
def narud(with_redis: Daemon) -> Iterator[Daemon]:
    yield with_redis
    with_redis.clear()


def answers(narud: Daemon, name: str) -> bool:
    return narud.docker("exec", name, "redis-cli", "ping").out == "PONG\n"


def test_pull_run_use_stop_start_and_remove(narud: Daemon) -> None:
    assert "docker.io/library/redis:latest" in narud("pull", "redis")
    assert len(narud("run", "--name", "some-redis", "-d", "redis")) == 64
    wait_until(lambda: answers(narud, "some-redis"))
    assert narud("exec", "some-redis", "redis-cli", "set", "k", "v") == "OK"
    assert "Ready to accept connections" in narud("logs", "some-redis")
    assert "redis-server" in narud("ps", "--no-trunc", "--format", "{{.Command}}")
    narud("stop", "some-redis")
    assert narud("inspect", "--format", "{{.State.ExitCode}}", "some-redis") == "0"
    narud("start", "some-redis")
    wait_until(lambda: answers(narud, "some-redis"))
    assert narud("exec", "some-redis", "redis-cli", "get", "k") == "v"
    narud("rm", "-f", "some-redis")
    assert narud("ps", "-aq") == ""


def test_the_documented_arguments_are_the_servers(narud: Daemon) -> None:
    line = "run --name some-redis -d redis redis-server --save 60 1 --loglevel warning"
    narud(*line.split())
    wait_until(lambda: answers(narud, "some-redis"))
    assert narud("exec", "some-redis", "redis-cli", "config", "get", "save").splitlines() == ["save", "60 1"]
    assert narud("exec", "some-redis", "redis-cli", "config", "get", "loglevel").splitlines()[1] == "warning"
    assert "redis-server" in narud("top", "some-redis", "-o", "pid,comm")


def test_a_snapshot_appears_in_the_volume_and_another_container_reads_it(narud: Daemon) -> None:
    narud("run", "--name", "some-redis", "-d", "redis", "redis-server", "--save", "1 1", "--loglevel", "warning")
    wait_until(lambda: answers(narud, "some-redis"))
    narud("exec", "some-redis", "redis-cli", "set", "k", "v")
    data = narud("inspect", "--format", "{{(index .Mounts 0).Source}}", "some-redis")
    wait_until(lambda: (Path(data) / "dump.rdb").exists(), 15)
    listed = narud("run", "--rm", "--volumes-from", "some-redis", "busybox", "ls", "-n", "/data")
    assert listed.split()[-1] == "dump.rdb"
    assert listed.splitlines()[-1].split()[2] == "999"


def test_data_in_a_host_directory_survives_the_container(narud: Daemon, tmp_path: Path) -> None:
    directory = tmp_path / "docker/host/dir"
    run = ["run", "--name", "some-redis", "-d", "-v", f"{directory}:/data", "redis"]
    narud(*run)
    wait_until(lambda: answers(narud, "some-redis"))
    narud("exec", "some-redis", "redis-cli", "set", "k", "v")
    narud("exec", "some-redis", "redis-cli", "save")
    narud("rm", "-f", "some-redis")
    assert (directory / "dump.rdb").exists()
    narud(*run)
    wait_until(lambda: answers(narud, "some-redis"))
    assert narud("exec", "some-redis", "redis-cli", "get", "k") == "v"


def test_two_versions_side_by_side_answer_with_their_own(narud: Daemon) -> None:
    narud("run", "-d", "--name", "seven", "-p", "6379:6379", "redis:7.0")
    narud("run", "-d", "--name", "eight", "-p", "6380:6379", "redis:8.0")
    wait_until(lambda: answers(narud, "seven") and answers(narud, "eight"))
    assert "redis_version:7.0" in ask(narud, 6379)
    assert "redis_version:8.0" in ask(narud, 6380)


def ask(narud: Daemon, port: int) -> str:
    with socket.create_connection((narud.namespace.address, port), timeout=5) as connection:
        connection.sendall(b"INFO server\r\nQUIT\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
