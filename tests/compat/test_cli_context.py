"""Contexts beside Docker's CLI, whose files they share; ssh; the user's settings on the wire."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon import Daemon
from programs import DOCKER, NARU, beside_docker

_SSH = '#!/bin/sh\necho "$*" >>"$SSH_LOG"\nwhile [ "$1" != -- ]; do shift; done\nshift 2\nexec sh -c "$*"\n'

Run = Callable[..., tuple[int, str, str]]


def _runner(program: list[str], directory: Path, **environ: str) -> Run:
    env = {"PATH": os.environ["PATH"], "HOME": str(directory), "DOCKER_CONFIG": str(directory), **environ}

    def run(*arguments: str, **more: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [*program, *arguments],
            env=env | more,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        texts = (text.replace(str(directory), "DIRECTORY") for text in (done.stdout, done.stderr))
        return done.returncode, *texts  # type: ignore[return-value]

    return run


@pytest.fixture
def docker(tmp_path: Path) -> Run:
    (tmp_path / "docker").mkdir()
    return _runner(DOCKER, tmp_path / "docker")


@pytest.fixture
def ours(tmp_path: Path) -> Run:
    (tmp_path / "naru").mkdir()
    return _runner(NARU, tmp_path / "naru")


_STEPS = [
    "context create one --description first --docker host=unix:///one.sock",
    "context create two --docker host=ssh://user@h:22/p",
    "context create three --from one",
    "context create four --docker from=one,skip-tls-verify=true",
    "context create one",
    "context create default",
    "context create bad --docker foo=bar",
    "context create bad --from nosuch",
    "context create bad/name",
    "context ls -q",
    "context use two",
    "context show",
    "context inspect one three four",
    "context inspect nosuch",
    "context inspect one --format {{.Endpoints.docker.Host}}",
    "context update one --description changed",
    "context update one --docker host=unix:///b",
    "context update nosuch",
    "context update default",
    "context inspect one",
    "context rm two",
    "context rm -f two",
    "context rm nosuch",
    "context rm default",
    "context show",
    "context use nosuch",
    "context use default",
    "context export three",
    "context export three",
    "context export nosuch",
    "context import five three.dockercontext",
    "context import five three.dockercontext",
    "context import six nosuch.tar",
    "context inspect five",
    "-c nosuch ps",
    "-H unix:///a -c one ps",
]


@beside_docker
def test_contexts_are_managed_as_with_docker(docker: Run, ours: Run) -> None:
    outcomes = {step: (docker(*step.split()), ours(*step.split())) for step in _STEPS}
    assert {step: mine for step, (_, mine) in outcomes.items()} == {step: real for step, (real, _) in outcomes.items()}


def test_each_program_uses_the_contexts_of_the_other(shared_narud: Daemon, tmp_path: Path) -> None:
    docker, ours = _runner(DOCKER, tmp_path), _runner(NARU, tmp_path)
    assert docker("context", "create", "theirs", "--docker", f"host={shared_narud.host}")[0] == 0
    assert ours("context", "create", "mine", "--docker", f"host={shared_narud.host}")[0] == 0
    version = ("version", "--format", "{{.Server.Platform.Name}} {{.Client.Context}}")
    assert ours(*version, DOCKER_CONTEXT="theirs") == (0, "naru theirs\n", "")
    assert docker(*version, DOCKER_CONTEXT="mine") == (0, "naru mine\n", "")
    assert ours("context", "use", "theirs")[0] == 0
    assert docker(*version)[1] == "naru theirs\n"
    assert ours(*version)[1] == "naru theirs\n"


@beside_docker
def test_the_tables_of_both_programs_are_alike(docker: Run, ours: Run) -> None:
    host = {"DOCKER_HOST": "unix:///some.sock"}
    for run in (docker, ours):
        run("context", "create", "one", "--description", "d" * 70, "--docker", "host=tcp://h:2375")
    assert ours("context", "ls", **host) == docker("context", "ls", **host)
    assert ours("context", "ls", DOCKER_CONTEXT="nosuch", **host) == docker(
        "context", "ls", DOCKER_CONTEXT="nosuch", **host
    )
    assert ours("context", "ls", "--format", "json", **host) == docker("context", "ls", "--format", "json", **host)


@pytest.mark.parametrize("path", ["", "SOCKET"])
def test_ssh_reaches_the_daemon_of_another_machine(shared_narud: Daemon, tmp_path: Path, path: str) -> None:
    (tmp_path / "ssh").write_text(_SSH)
    (tmp_path / "naru").write_text(f'#!/bin/sh\nexec {" ".join(NARU)} "$@"\n')
    for program in ("ssh", "naru"):
        (tmp_path / program).chmod(0o755)
    socket = shared_narud.host.removeprefix("unix://")
    there = {} if path else {"DOCKER_HOST": shared_narud.host}
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SSH_LOG": f"{tmp_path}/log", **there}
    run = _runner(NARU, tmp_path, **environ)
    host = f"ssh://me@there:2222{path.replace('SOCKET', socket)}"
    assert run("-H", host, "version", "--format", "{{.Server.Platform.Name}}") == (0, "naru\n", "")
    assert run("-H", host, "run", "--rm", "busybox", "sh", "-c", "echo out; exit 7") == (7, "out\n", "")
    asked = (tmp_path / "log").read_text().splitlines()[0]
    assert re.match(r"-o ConnectTimeout=30 -T -l me -p 2222 -- there sh -c '.*naru.* system dial-stdio", asked)


def test_a_machine_that_ssh_does_not_reach_is_told(tmp_path: Path) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\necho ssh: no such host >&2\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    code, _, said = _runner(NARU, tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")("-H", "ssh://nowhere", "ps")
    assert code == 1
    assert "ssh: no such host" in said
    assert "ssh to nowhere ended" in said


def test_proxies_of_the_settings_reach_containers_unless_given(shared_narud: Daemon, tmp_path: Path) -> None:
    proxies = {"default": {"httpProxy": "http://p:1", "noProxy": "lan"}}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    run = _runner(NARU, tmp_path, DOCKER_HOST=shared_narud.host)
    code, seen, _ = run("run", "--rm", "-e", "no_proxy=mine", "busybox", "sh", "-c", "env | grep -i _proxy | sort")
    assert code == 0
    assert seen.splitlines() == ["HTTP_PROXY=http://p:1", "NO_PROXY=lan", "http_proxy=http://p:1", "no_proxy=mine"]
