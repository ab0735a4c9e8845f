"""The docker CLI 20.10 (Debian's), unmodified: the commands of a day's work, at that CLI's API version."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def program() -> str:
    for path in ("/usr/bin/docker", shutil.which("docker")):
        if path and Path(path).exists():
            told = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            if "version 20.10" in told:
                return path
    pytest.skip("needs the docker CLI 20.10 (Debian's docker.io)")


@pytest.fixture
def docker(program: str, narud: Daemon) -> Callable[..., str]:
    def run(*arguments: str, stdin: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [program, *arguments], env=narud.client_env, input=stdin, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout.strip() if code == 0 else done.stderr.strip()

    return run


def test_it_agrees_on_its_own_version(docker: Callable[..., str]) -> None:
    assert docker("version", "--format", "{{.Client.APIVersion}} {{.Server.APIVersion}}").startswith("1.41 ")
    assert "Storage Driver: overlay2" in docker("info")


def test_a_container_lives_and_dies(docker: Callable[..., str]) -> None:
    docker("run", "-d", "--name", "web", "-e", "A=b", "-v", "data:/data", "--restart", "no", "busybox", "sleep", "1000")
    assert docker("exec", "-e", "C=d", "web", "sh", "-c", "echo $A $C") == "b d"
    assert docker("ps", "--format", "{{.Names}} {{.Image}} {{.State}}") == "web busybox running"
    assert docker("inspect", "-f", "{{.Config.Env}} {{.HostConfig.RestartPolicy.Name}}", "web").endswith(" no")
    assert "sleep 1000" in docker("top", "web")
    assert docker("stats", "--no-stream", "--format", "{{.Name}}", "web") == "web"
    docker("pause", "web")
    docker("unpause", "web")
    docker("rename", "web", "www")
    docker("update", "--memory", "64m", "--memory-swap", "64m", "www")
    docker("restart", "-t", "0", "www")
    docker("stop", "-t", "0", "www")
    assert docker("wait", "www") == "137"
    docker("rm", "-v", "www")
    docker("volume", "rm", "data")


def test_streams_exit_codes_and_errors_are_as_ever(docker: Callable[..., str]) -> None:
    assert docker("run", "--rm", "-i", "busybox", "cat", stdin="hello\n") == "hello"
    docker("run", "--rm", "busybox", "sh", "-c", "exit 7", code=7)
    assert "executable file not found" in docker("run", "--rm", "busybox", "nosuch", code=127)
    assert "No such container: nosuch" in docker("rm", "nosuch", code=1)
    docker("run", "--name", "talker", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert docker("logs", "talker") == "out"
    wait_until(lambda: "talker" in docker("ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}"))


def test_images_are_built_tagged_saved_and_removed(docker: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo built >/built\nCMD cat /built\n")
    docker("build", "-q", "-t", "mine:1", str(tmp_path))
    assert docker("run", "--rm", "mine:1") == "built"
    docker("tag", "mine:1", "mine:2")
    docker("save", "-o", str(tmp_path / "mine.tar"), "mine:2")
    docker("rmi", "mine:1", "mine:2")
    assert "Loaded image: mine:2" in docker("load", "-i", str(tmp_path / "mine.tar"))
    assert "RUN" in docker("history", "--no-trunc", "mine:2") or "/bin/sh -c" in docker("history", "mine:2")
    docker("rmi", "mine:2")


def test_networks_are_made_and_used(docker: Callable[..., str]) -> None:
    docker("network", "create", "--subnet", "10.99.0.0/24", "lan")
    try:
        docker("run", "-d", "--name", "on-lan", "--network", "lan", "--ip", "10.99.0.9", "busybox", "sleep", "1000")
        assert docker("inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}}", "on-lan") == "10.99.0.9"
        assert "has active endpoints" in docker("network", "rm", "lan", code=1)
        docker("rm", "-f", "on-lan")
    finally:
        docker("network", "rm", "lan")


def test_events_tell_what_happened(docker: Callable[..., str]) -> None:
    docker("run", "--rm", "--name", "brief", "busybox", "true")
    until = f"{time.time():.9f}"
    told = docker("events", "--since", "1m", "--until", until, "--filter", "container=brief", "--format", "{{.Action}}")
    assert told.splitlines()[:4] == ["create", "attach", "start", "die"]
