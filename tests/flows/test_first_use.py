"""A machine where nothing runs: ./naru by itself, on the default socket and data root, which are empty here."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Namespace, wait_until

NARU = Path(__file__).parents[2] / "naru"
# A mount namespace of its own, in which the default directories are this test's; it ends with its last process.
ISOLATE = (
    "mkdir -p /run/naru /var/lib/naru && mount --bind $0/run /run/naru && mount --bind $0/data /var/lib/naru "
    "&& echo ready && exec cat"
)
pytestmark = pytest.mark.root


class Machine:
    """Runs ./naru as a user of a fresh machine would."""

    def __init__(self, directory: Path, namespace: Namespace) -> None:
        for name in ("run", "data"):
            (directory / name).mkdir()
        self.directory = directory
        self._holder = subprocess.Popen(
            namespace.command("unshare", "-m", "sh", "-c", ISOLATE, str(directory)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    def naru(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key not in ("DOCKER_HOST", "NARU_HOST")}
        enter = ["nsenter", "-m", "-n", "-t", str(self._holder.pid), str(NARU)]
        return subprocess.run([*enter, *arguments], env=environment, capture_output=True, text=True, timeout=60)

    def daemon_pid(self) -> int:
        return int((self.directory / "run/narud.pid").read_text())

    def close(self) -> None:
        if (self.directory / "run/narud.pid").exists():
            self.naru("rm", "-f", *self.naru("ps", "-aq").stdout.split())
            os.kill(self.daemon_pid(), signal.SIGTERM)
            wait_until(lambda: not (self.directory / "run/narud.pid").exists())
        self._holder.communicate()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    if os.geteuid():
        pytest.skip("needs root")
    namespace = Namespace()
    made = Machine(tmp_path, namespace)
    yield made
    made.close()
    namespace.close()


def test_the_first_command_starts_the_daemon_and_the_next_ones_find_it(machine: Machine, busybox_archive: Path) -> None:
    loaded = machine.naru("load", "-i", str(busybox_archive))
    assert loaded.stdout == "Loaded image: busybox:latest\n", loaded.stderr
    first = machine.daemon_pid()
    assert machine.naru("run", "--rm", "busybox", "echo", "hello").stdout == "hello\n"
    assert machine.daemon_pid() == first


def test_a_killed_daemon_is_started_again_by_the_next_command(machine: Machine, busybox_archive: Path) -> None:
    machine.naru("load", "-i", str(busybox_archive))
    machine.naru("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    os.kill(machine.daemon_pid(), signal.SIGKILL)
    assert machine.naru("exec", "box", "echo", "alive").stdout == "alive\n"


def test_exit_codes_are_dockers(machine: Machine, busybox_archive: Path) -> None:
    machine.naru("load", "-i", str(busybox_archive))
    codes = {
        command: machine.naru("run", "--rm", "busybox", *command.split()).returncode
        for command in ("true", "false", "nosuchcommand", "/etc/passwd")
    }
    assert codes == {"true": 0, "false": 1, "nosuchcommand": 127, "/etc/passwd": 126}
    assert machine.naru("run", "--nosuchflag", "busybox").returncode == 125
