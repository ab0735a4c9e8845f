"""What `docker create` refuses, warns of and changes, in Docker's words; what a container's options make of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon, wait_until

from naru.engine.resources import this_host
from naru.oci import platform as platforms

pytestmark = pytest.mark.root

CDI = Path("/var/run/cdi")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--runtime runc", "unknown or invalid runtime name: runc"),
        ("--isolation hyperv", "invalid isolation: \"hyperv\" - linux only supports 'default'"),
        ("--storage-opt size=10M", "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
        ("--gpus all", 'could not select device driver "" with capabilities: [[gpu]]'),
        ("--device nobody.example/thing=x", "unresolvable CDI devices nobody.example/thing=x"),
        (
            "--device /dev/nowhere",
            'error gathering device information while adding custom device "/dev/nowhere": no such',
        ),
        ("--device-read-bps /dev/nowhere:1mb", "/dev/nowhere"),
        ("--cpuset-cpus 0-999", "Requested CPUs are not available - requested 0-999, available: "),
        ("--cpus 999", "Range of CPUs is from 0.01 to "),
        ("--cpu-period 10", "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
        ("--memory 4m", "Minimum memory limit allowed is 6MB"),
        ("--oom-score-adj 2000", "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        ("--ipc container:nowhere", "No such container: nowhere"),
        ("--pid container:nowhere", "No such container: nowhere"),
        ("--uts host --hostname x", "conflicting options: hostname and the UTS mode"),
        ("--network container:nowhere", "No such container: nowhere"),
        ("--network container:x --expose 80", "conflicting options: port exposing and the container type network mode"),
        (
            "--network container:x --mac-address 02:00:00:00:00:01",
            "conflicting options: mac-address and the network mode",
        ),
        ("--tmpfs /a:foo=bar", 'invalid tmpfs option ["foo" "bar"]'),
        ("--volume-driver foo", 'error looking up volume plugin foo: plugin "foo" not found'),
        ("--mount type=volume,dst=/a,volume-opt=foo=bar", 'invalid option: "foo"'),
        ("--security-opt no-new-privileges=maybe", 'invalid --security-opt 2: "no-new-privileges=maybe"'),
        ("--stop-signal FOO", "invalid signal: FOO"),
        ("--health-interval 1us", "Interval in Healthcheck cannot be less than 1ms"),
        ("--restart sometimes", "invalid restart policy: unknown policy 'sometimes'"),
    ],
)
def test_an_option_that_cannot_work_is_refused_at_create(narud: Daemon, options: str, said: str) -> None:
    done = narud.docker("create", *options.split(), "busybox")
    assert done.code == 1
    assert said in done.err
    assert narud("ps", "--all", "--quiet") == ""
    assert narud("volume", "ls", "--quiet") == ""


def test_an_image_for_another_platform_is_not_taken(narud: Daemon) -> None:
    done = narud.docker("create", "--pull", "never", "--platform", "linux/riscv64", "busybox")
    own = f"linux/{platforms.host().architecture}"
    assert f"was found but its platform ({own}) does not match the specified platform (linux/riscv64)" in done.err


def test_what_means_nothing_is_warned_of(narud: Daemon) -> None:
    host = {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}}
    made = narud.api.create_container("busybox", host_config=host)
    assert made["Warnings"] == ["Published ports are discarded when using host network mode"]


def test_inspect_shows_the_defaults_that_were_filled_in(narud: Daemon) -> None:
    narud("create", "--name", "box", "--memory", "64m", "--annotation", "colour=green", "busybox")
    host = json.loads(narud("inspect", "--format", "{{json .HostConfig}}", "box"))
    assert host["MemorySwap"] == 128 << 20
    assert host["ShmSize"] == 64 << 20
    assert host["Annotations"] == {"colour": "green"}
    assert "/proc/kcore" in host["MaskedPaths"]
    assert host["MemorySwappiness"] is None


def test_a_directory_of_devices_gives_all_below_it(narud: Daemon) -> None:
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    printed = narud("run", "--rm", "--device", "/dev/net:/dev/other:r", "busybox", "find", "/dev/other", "-type", "c")
    assert printed == "/dev/other/tun"


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[str]:
    """A CDI vendor of this test alone, and the kind of its devices."""
    kind = f"naru-test-{os.getpid()}.example/thing"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >{tmp_path}/state\n")
    hook.chmod(0o755)
    CDI.mkdir(parents=True, exist_ok=True)
    file = CDI / f"naru-test-{os.getpid()}.yaml"
    file.write_text(f"""
cdiVersion: "0.6.0"
kind: {kind}
devices:
  - name: one
    containerEdits:
      env: [THING=one]
      deviceNodes: [{{path: /dev/thing, hostPath: /dev/null}}]
      mounts: [{{hostPath: {hook}, containerPath: /opt/thing, options: [ro]}}]
      hooks: [{{hookName: createContainer, path: {hook}}}]
""")
    yield kind
    file.unlink()


def test_a_vendors_device_is_given_by_its_name(narud: Daemon, vendor: str, tmp_path: Path) -> None:
    script = "echo $THING; ls -l /dev/thing | cut -c1; head -1 /opt/thing; echo x >/dev/thing && echo written"
    printed = narud("run", "--name", "box", "--device", f"{vendor}=one", "busybox", "sh", "-c", script)
    assert printed.splitlines() == ["one", "c", "#!/bin/sh", "written"]
    state = json.loads((tmp_path / "state").read_text())
    assert state["id"] == narud("inspect", "--format", "{{.Id}}", "box")


def test_no_ipc_means_no_shared_memory_either(narud: Daemon) -> None:
    printed = narud("run", "--rm", "--ipc", "none", "busybox", "sh", "-c", "[ -e /dev/shm ] || echo none")
    assert printed == "none"


def test_shared_memory_is_shared_with_the_ipc_namespace_and_only_on_request(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "own", "busybox", "sleep", "100")
    refused = narud.docker("create", "--ipc", "container:own", "busybox")
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in refused.err
    narud("run", "--detach", "--name", "donor", "--ipc", "shareable", "--shm-size", "2m", "busybox", "sleep", "100")
    narud("exec", "donor", "sh", "-c", "echo given >/dev/shm/word")
    script = "cat /dev/shm/word; echo back >/dev/shm/answer; df -k /dev/shm | awk 'NR==2{print $2}'"
    assert narud("run", "--rm", "--ipc", "container:donor", "busybox", "sh", "-c", script) == "given\n2048"
    assert narud("exec", "donor", "cat", "/dev/shm/answer") == "back"


def test_a_cgroup_parent_is_below_the_top_however_it_is_written(narud: Daemon) -> None:
    parent = f"naru-test-{os.getpid()}"
    try:
        narud("run", "--detach", "--name", "box", "--cgroup-parent", f"../{parent}", "busybox", "sleep", "100")
        pid = narud("inspect", "--format", "{{.State.Pid}}", "box")
        box = narud("inspect", "--format", "{{.Id}}", "box")
        assert f":/{parent}/{box}" in Path(f"/proc/{pid}/cgroup").read_text()
        narud("rm", "--force", "box")
    finally:
        for directory in [*Path("/sys/fs/cgroup").glob(f"*/{parent}"), *Path("/sys/fs/cgroup").glob(parent)]:
            directory.rmdir()


def test_a_processors_share_of_a_container_is_its_cgroups(narud: Daemon) -> None:
    if this_host().support.version != 1:
        pytest.skip("reads files of cgroup version 1")
    options = ["--cpus", "0.5", "--cpu-shares", "300", "--cpuset-cpus", "0", "--memory", "64m"]
    options += ["--memory-reservation", "32m", "--memory-swap", "-1", "--memory-swappiness", "7", "--oom-kill-disable"]
    files = [
        "cpu/cpu.cfs_quota_us",
        "cpu/cpu.shares",
        "cpuset/cpuset.cpus",
        "memory/memory.limit_in_bytes",
        "memory/memory.soft_limit_in_bytes",
        "memory/memory.swappiness",
    ]
    script = "cd /sys/fs/cgroup; cat $*; head -1 memory/memory.oom_control"
    printed = narud("run", "--rm", *options, "busybox", "sh", "-c", script, "sh", *files)
    assert printed.split("\n") == ["50000", "300", "0", "67108864", "33554432", "7", "oom_kill_disable 1"]


def test_an_update_changes_what_runs_and_what_is_stopped(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "runs", "--memory", "64m", "busybox", "sleep", "100")
    narud("create", "--name", "rests", "busybox")
    narud("update", "--pids-limit", "9", "--cpus", "0.25", "--restart", "on-failure:2", "runs", "rests")
    form = "{{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"
    assert narud("inspect", "--format", form, "runs", "rests").splitlines() == ["9 250000000 2"] * 2
    files = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null"
    assert narud("exec", "runs", "sh", "-c", f"{files} || true") == "9"
    narud("update", "--pids-limit", "-1", "runs")
    assert narud("exec", "runs", "sh", "-c", f"{files} || true") == "max"
    refused = narud.docker("update", "--memory", "256m", "runs")
    assert "Memory limit should be smaller than already set memoryswap limit" in refused.err
    assert refused.err.startswith("Error response from daemon: Cannot update container ")
    assert "CPU Quota cannot be updated as NanoCPUs" in narud.docker("update", "--cpu-quota", "5000", "runs").err


def test_a_container_that_is_restarted_all_the_time_can_be_removed(narud: Daemon) -> None:
    for number in range(5):
        narud("run", "--detach", "--name", f"again{number}", "--restart", "always", "busybox", "true")
    wait_until(lambda: int(narud("inspect", "--format", "{{.RestartCount}}", "again0")) >= 2)
    narud("rm", "--force", *(f"again{number}" for number in range(5)))
    assert narud("ps", "--all", "--quiet") == ""


def test_restarts_back_off_and_end_at_the_most_that_was_asked_for(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "box", "--restart", "on-failure:3", "busybox", "sh", "-c", "exit 4")
    wait_until(lambda: narud("inspect", "--format", "{{.State.Status}}", "box") == "exited")
    assert narud("inspect", "--format", "{{.RestartCount}} {{.State.ExitCode}}", "box") == "3 4"
    times = [event["timeNano"] / 1e9 for event in _starts(narud)]
    assert len(times) == 4
    assert times[3] - times[2] >= 0.4  # 0.1, 0.2 and 0.4 seconds at least
    assert times[2] - times[1] >= 0.2


def _starts(narud: Daemon) -> list[dict[str, int]]:
    until = str(int(time.time()) + 1)
    found = narud("events", "--since", "1m", "--until", until, "--filter", "container=box", "--format", "{{json .}}")
    events = [json.loads(line) for line in found.splitlines()]
    return [event for event in events if event["Action"] == "start"][-4:]
