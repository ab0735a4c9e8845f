"""docker-compose 1.29 (Debian's) and Compose v5 (built from its released Go module), unmodified, on one project.

Both bring up two services, one waiting for the other's health check, that talk by name; then scale, run, exec and take
everything down again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon import Daemon, Done, pull, wait_until

pytestmark = [pytest.mark.root, pytest.mark.packages, pytest.mark.timeout(900)]

_PINNED = Path(__file__).parent / "compose"
_KEPT = Path(tempfile.gettempdir()) / "naru-test-cache" / "compose"

PROJECT = """
version: "2.4"
services:
  cache:
    image: redis:8.0
    volumes: ["data:/data"]
    healthcheck: {test: ["CMD", "redis-cli", "ping"], interval: 1s, timeout: 5s, retries: 10}
  client:
    image: redis:8.0
    command: sleep 1000
    depends_on: {cache: {condition: service_healthy}}
    environment: ["WHO=client"]
    networks: {default: {aliases: [asker]}}
volumes: {data: {}}
"""

Compose = Callable[..., Done]


def _built() -> str:
    """Return the path of Compose v5, built on first use and kept while its version is the same."""
    program = _KEPT / "docker-compose"
    if program.exists() and program.stat().st_mtime > (_PINNED / "go.sum").stat().st_mtime:
        return str(program)
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs go")
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    fetched = subprocess.run([go, "mod", "download"], cwd=_PINNED, env=environment, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"needs Go modules, from the module cache or a proxy: {fetched.stderr.strip()[-200:]}")
    _KEPT.mkdir(parents=True, exist_ok=True)
    package = "github.com/docker/compose/v5/cmd"
    subprocess.run([go, "build", "-o", str(program), package], cwd=_PINNED, env=environment, check=True)
    return str(program)


def _debians() -> str:
    found = shutil.which("docker-compose")
    if found is None:
        pytest.skip("needs docker-compose (libexec/install-test-peers)")
    return found


@pytest.fixture(scope="module", params=["1.29", "5"])
def program(request: pytest.FixtureRequest) -> str:
    return _debians() if request.param == "1.29" else _built()


@pytest.fixture
def compose(shared_narud: Daemon, program: str, tmp_path: Path) -> Iterator[Compose]:
    pull(shared_narud, "redis:8.0")
    (tmp_path / "compose.yaml").write_text(PROJECT)

    def run(*arguments: str) -> Done:
        command = [program, "-p", "trial", "-f", str(tmp_path / "compose.yaml"), *arguments]
        done = subprocess.run(
            command, env=shared_narud.client_env, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        return Done(done.returncode, done.stdout, done.stderr)

    yield run
    shared_narud.clear()
    shared_narud.docker("network", "rm", "trial_default")


def _ok(done: Done) -> str:
    assert done.code == 0, f"{done.out}{done.err}"
    return done.out


def test_services_come_up_in_order_and_find_each_other_by_name(compose: Compose, shared_narud: Daemon) -> None:
    _ok(compose("up", "-d"))

    assert "PONG" in _ok(compose("exec", "-T", "client", "redis-cli", "-h", "cache", "ping"))
    assert "OK" in _ok(compose("exec", "-T", "client", "redis-cli", "-h", "cache", "set", "k", "v"))
    labels = shared_narud("ps", "--filter", "label=com.docker.compose.project=trial", "--format", "{{.Names}}")
    assert len(labels.splitlines()) == 2
    assert "Ready to accept connections" in _ok(compose("logs", "cache"))

    _ok(compose("down", "-v"))
    assert shared_narud("ps", "-aq") == ""
    assert "trial" not in shared_narud("volume", "ls", "-q") + shared_narud("network", "ls", "--format", "{{.Name}}")


def test_data_survives_a_new_container_of_the_service(compose: Compose) -> None:
    _ok(compose("up", "-d"))
    _ok(compose("exec", "-T", "cache", "redis-cli", "set", "k", "kept"))
    _ok(compose("exec", "-T", "cache", "redis-cli", "save"))

    _ok(compose("up", "-d", "--force-recreate"))

    wait_until(lambda: "kept" in compose("exec", "-T", "cache", "redis-cli", "get", "k").out)
    _ok(compose("down", "-v"))


def test_a_service_is_scaled_and_a_one_off_container_runs(compose: Compose, shared_narud: Daemon) -> None:
    _ok(compose("up", "-d", "--scale", "client=3"))
    named = shared_narud("ps", "--filter", "label=com.docker.compose.service=client", "-q")
    assert len(named.splitlines()) == 3

    assert "client" in _ok(compose("run", "--rm", "-T", "client", "sh", "-c", "echo $WHO"))

    _ok(compose("stop"))
    _ok(compose("start"))
    _ok(compose("restart", "client"))
    _ok(compose("down", "-v"))
