"""The unmodified docker CLI understands us: negotiation, tables, hijacked streams, progress, errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_double import Served, unix_server

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI")

DEADLINE_S = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    served = unix_server(tmp_path)
    yield served
    served.engine.may_answer.set()
    served.close()


def command(server: Served, *arguments: str) -> tuple[list[str], dict[str, str]]:
    return ["docker", *arguments], {**os.environ, "DOCKER_HOST": f"unix://{server.addresses[0]}"}


def docker(server: Served, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    line, env = command(server, *arguments)
    return subprocess.run(line, env=env, input=stdin, capture_output=True, timeout=DEADLINE_S)


def test_version_and_ps(server: Served) -> None:
    assert docker(server, "version", "--format", "{{.Server.APIVersion}}").stdout == b"1.55\n"
    assert docker(server, "ps", "--format", "{{.ID}} {{.Names}}").stdout == b"0123456789ab web\n"


def test_exec_with_input_from_a_pipe(server: Served) -> None:
    assert docker(server, "exec", "-i", "web", "cat", stdin=b"x" * 300_000).stdout == b"ready\n" + b"x" * 300_000


def test_attach_ends_with_the_exit_code(server: Served) -> None:
    done = docker(server, "attach", "web", stdin=b"typed\n")
    assert (done.stdout, done.returncode) == (b"hello\ntyped\n", 7)


def test_logs_come_while_they_are_followed(server: Served) -> None:
    line, env = command(server, "logs", "-f", "web")
    with subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as logs:
        assert logs.stdout.readline() == b"first\n"
        server.engine.log.grow()
        assert logs.communicate(timeout=DEADLINE_S) == (b"", b"second\n")


def test_build_sends_its_context_and_prints_progress(server: Served, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM busybox\n")
    done = docker(server, "build", "-t", "web:1", "--build-arg", "A=b", str(tmp_path / "context"))
    assert b"context: Dockerfile\n" in done.stdout
    options = server.engine.calls[-1][1]
    assert (options.tags, options.build_args, options.remove) == (["web:1"], {"A": "b"}, True)


def test_cp_and_load_and_save(server: Served, tmp_path: Path) -> None:
    archive = docker(server, "cp", "web:/etc", "-")
    assert b"file2" in archive.stdout
    assert docker(server, "load", stdin=bytes(1 << 20)).stdout == b"Loaded image: busybox:latest\n"
    assert docker(server, "save", "busybox").stdout == b"tar of busybox"


def test_an_error_is_one_line_with_dockers_prefix(server: Served) -> None:
    done = docker(server, "kill", "web")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error response from daemon: cannot kill container: web")
