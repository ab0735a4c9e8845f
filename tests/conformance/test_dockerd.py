"""Debian's dockerd and containerd with `naru-runtime` as a runtime: `docker run --runtime naru`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import Containerd, Dockerd, differences
from peers import wait_until

pytestmark = [pytest.mark.peer, pytest.mark.root]


@pytest.fixture
def service(dockerd: Dockerd) -> Iterator[str]:
    """The name of a running container."""
    name = f"service-{uuid.uuid4().hex[:8]}"
    started = dockerd.run("--detach", "--name", name, "busybox", "sleep", "1000")
    assert started.returncode == 0, started.stderr
    yield name
    dockerd("rm", "--force", name)


def test_output_and_exit_status_come_back(dockerd: Dockerd) -> None:
    done = dockerd.run("--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")

    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in $PATH'),
        ("/etc", 126, 'exec: "/etc": is a directory'),
    ],
)
def test_a_command_that_cannot_run_is_reported_by_docker_with_its_code(
    dockerd: Dockerd, command: str, code: int, words: str
) -> None:
    done = dockerd.run("--rm", "busybox", command)

    assert done.returncode == code
    assert words in done.stderr


def test_input_reaches_the_container(dockerd: Dockerd) -> None:
    assert dockerd.run("--rm", "--interactive", "busybox", "cat", input="some text").stdout == "some text"


def test_a_terminal_is_the_containers_own(dockerd: Dockerd) -> None:
    shown = dockerd.at_terminal("run", "--runtime=naru", "--rm", "-it", "busybox", "sh", "-c", "tty; stty size")

    assert shown.splitlines()[0] == "/dev/pts/0"


def test_exec_runs_beside_the_container_as_another_user_with_its_own_status(dockerd: Dockerd, service: str) -> None:
    options = ("--user", "app", "--workdir", "/tmp", "--env", "A=b")
    done = dockerd("exec", *options, service, "sh", "-c", "id -u; pwd; echo $A; exit 3")

    assert (done.returncode, done.stdout) == (3, "1000\n/tmp\nb\n")
    assert dockerd("exec", "--tty", service, "tty").stdout.strip() == "/dev/pts/0"
    assert dockerd("exec", service, "nope").returncode in (126, 127)  # 126 before Docker 23


def test_pause_freezes_and_unpause_thaws(dockerd: Dockerd, service: str) -> None:
    assert dockerd("pause", service).returncode == 0
    assert dockerd("inspect", "--format={{.State.Status}}", service).stdout == "paused\n"
    assert "is paused" in dockerd("exec", service, "true").stderr

    assert dockerd("unpause", service).returncode == 0
    assert dockerd("exec", service, "true").returncode == 0


def test_update_changes_limits_that_stats_then_shows(dockerd: Dockerd, service: str) -> None:
    updated = dockerd("update", "--memory=64m", "--memory-swap=64m", "--cpus=0.5", "--pids-limit=50", service)

    shown = json.loads(dockerd("stats", "--no-stream", "--format={{json .}}", service).stdout)

    assert updated.returncode == 0, updated.stderr
    assert shown["MemUsage"].endswith("/ 64MiB")
    assert shown["PIDs"] == "1"


def test_top_lists_what_runs(dockerd: Dockerd, service: str) -> None:
    dockerd("exec", "--detach", service, "sleep", "777")

    wait_until(lambda: "sleep 777" in dockerd("top", service).stdout)


def test_kill_and_stop_end_it_with_dockers_statuses(dockerd: Dockerd, service: str) -> None:
    assert dockerd("kill", "--signal=USR1", service).returncode == 0  # sleep, PID 1, has no handler
    assert dockerd("stop", "--time=0", service).returncode == 0
    assert dockerd("inspect", "--format={{.State.ExitCode}}", service).stdout == "137\n"

    assert dockerd("start", service).returncode == 0
    assert dockerd("kill", service).returncode == 0
    assert dockerd("wait", service).stdout == "137\n"


def test_events_tell_of_a_kill_for_want_of_memory(dockerd: Dockerd) -> None:
    """containerd watches only when `start` has ended, and is told of the end on another way: hence the pauses."""
    name = f"hungry-{uuid.uuid4().hex[:8]}"

    done = dockerd.run(
        "--name", name, "--memory=16m", "busybox", "sh", "-c", "sleep 1; tail -c 100m /dev/zero; sleep 1; exit 137"
    )

    assert done.returncode == 137
    assert dockerd("inspect", "--format={{.State.OOMKilled}}", name).stdout == "true\n"
    events = ("events", "--since=1m", "--until=0s", f"--filter=container={name}", "--format={{.Action}}")
    wait_until(lambda: {"create", "start", "oom", "die"} <= set(dockerd(*events).stdout.split()))
    dockerd("rm", name)


@pytest.mark.parametrize(
    "options",
    [
        "--init",
        "--read-only --tmpfs /x",
        "--cap-drop ALL --cap-add NET_ADMIN --security-opt no-new-privileges --user 5:6",
        "--sysctl net.ipv4.ip_forward=1 --ulimit nofile=50:60 --oom-score-adj 300",
        "--pid host --ipc host --uts host --network host",
        "--cgroupns private --hostname here --shm-size 1m",
        "--cpuset-cpus 0 --cpu-shares 512 --pids-limit 30",
        "--device /dev/loop-control:/dev/loop-control:r --group-add 44 --workdir /made/for/it",
        "--security-opt seccomp=unconfined --network none",
    ],
)
def test_a_container_looks_as_it_does_under_runc(dockerd: Dockerd, options: str) -> None:
    look = (
        "id; pwd; hostname | tr -d 0-9a-f; ulimit -n; cat /proc/sys/net/ipv4/ip_forward /proc/self/oom_score_adj; "
        "ls /dev; ls -l /dev | grep -c rw-rw-rw-; grep -E '^(Cap|NoNew|Seccomp)' /proc/1/status; ls /proc/1/ns; "
        "cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/pids/pids.max; touch /y; cut -d' ' -f5 /proc/self/mountinfo"
    )
    command = ("--rm", *options.split(), "busybox", "sh", "-c", look)

    ours, theirs = dockerd.run(*command), dockerd("run", "--runtime=runc", *command)

    assert differences(ours, theirs) == []


def test_containerds_own_client_runs_a_directory(containerd: Containerd, busybox_root: Path, tmp_path: Path) -> None:
    done = containerd.run(busybox_root, "plain", "sh", "-c", "echo from containerd; exit 5")

    assert (done.returncode, done.stdout) == (5, "from containerd\n")
