"""Podman with `naru-runtime` as its runtime."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from engines import Podman, differences
from peers import in_full_run

pytestmark = [pytest.mark.peer, pytest.mark.root]

_IMAGE = "localhost/busybox"
_MAPPED = ("--uidmap=0:100000:1000", "--gidmap=0:100000:1000")


@pytest.fixture
def service(podman: Podman) -> Iterator[str]:
    """The name of a running container."""
    name = f"service-{uuid.uuid4().hex[:8]}"
    started = podman.run("--detach", "--name", name, _IMAGE, "sleep", "1000")
    assert started.returncode == 0, started.stderr
    yield name
    podman("rm", "--force", "--time=0", name)


def test_output_and_exit_status_come_back(podman: Podman) -> None:
    done = podman.run("--rm", _IMAGE, "sh", "-c", "echo out; exit 7")

    assert (done.returncode, done.stdout) == (7, "out\n")


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/etc", 126)])
def test_a_command_that_cannot_run_has_podmans_code(podman: Podman, command: str, code: int) -> None:
    assert podman.run("--rm", _IMAGE, command).returncode == code


def test_exec_pause_and_kill_work_on_a_service(podman: Podman, service: str) -> None:
    executed = podman("exec", "--user=1000", "--workdir=/tmp", service, "sh", "-c", "id -u; pwd; exit 3")
    paused = podman("pause", service)
    status = podman("ps", "--all", "--format={{.State}}", f"--filter=name={service}").stdout
    resumed = podman("unpause", service)
    killed = podman("kill", service)

    assert (executed.returncode, executed.stdout, executed.stderr) == (3, "1000\n/tmp\n", "")
    assert (paused.returncode, status, resumed.returncode, killed.returncode) == (0, "Paused\n", 0, 0)
    assert podman("wait", service).stdout == "137\n"


def test_a_user_namespace_maps_root_and_exec_enters_it(podman: Podman) -> None:
    name = f"mapped-{uuid.uuid4().hex[:8]}"

    started = podman.run("--detach", "--name", name, *_MAPPED, _IMAGE, "sleep", "1000")
    seen = podman("exec", "--tty", name, "sh", "-c", "tty; id -u; touch /x && stat -c %u /x; cat /proc/self/uid_map")
    podman("rm", "--force", "--time=0", name)

    assert started.returncode == 0, started.stderr
    assert seen.stdout.split() == ["/dev/pts/0", "0", "0", "0", "100000", "1000"]


@in_full_run
@pytest.mark.parametrize(
    "options",
    [
        "--init",
        "--read-only",
        "--cap-drop=ALL --security-opt=no-new-privileges --user=5:6",
        "--pid=host --ipc=host --uts=host",
        "--cgroupns=private",
        "--mount=type=tmpfs,dst=/etc,tmpcopyup",
        "--sysctl=net.ipv4.ip_forward=1 --ulimit=nofile=50:60 --ulimit=nproc=50:60 --umask=0077 --group-add=44",
        "--systemd=always",
        "--uidmap=0:100000:1000 --gidmap=0:100000:1000",
    ],
)
def test_a_container_looks_as_it_does_under_runc(podman: Podman, options: str) -> None:
    look = (
        "id; umask; ulimit -n; ls /etc; ls -ln /dev | cut -c1-24; grep -E '^(Cap|NoNew|Seccomp)' /proc/1/status; "
        "touch /y; cut -d' ' -f5 /proc/self/mountinfo | sort"
    )
    command = ("run", "--rm", "--network=none", *options.split(), _IMAGE, "sh", "-c", look)

    ours, theirs = podman(*command), podman.by("runc", *command)

    assert differences(ours, theirs) == []
