"""What options of `docker run` make of a container, seen from inside it and from `docker inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("options", "command", "printed"),
    [
        (["-e", "COLOUR=green", "-e", "EMPTY="], 'echo "$COLOUR-${EMPTY-unset}"', "green-"),
        ([], "echo $PATH:$HOME", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/root"),
        (
            ["--user", "nobody"],
            'echo "$(id) $HOME"',
            "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup) /home",
        ),
        (["--user", "nobody"], 'echo "$(id -u) $(id -g) $HOME"', "65534 65534 /home"),
        (["--user", "1234:www-data"], "id -u; id -g", "1234\n33"),
        (["--user", "1234", "--group-add", "33"], "id -G", "0 33"),
        (["--user", "1234", "--group-add", "www-data"], "id -G", "0 33"),
        (["--workdir", "/made/for/this"], "pwd", "/made/for/this"),
        (["--hostname", "here"], "hostname; cat /etc/hostname", "here\nhere"),
        (["--hostname", "here", "--domainname", "org"], "cat /proc/sys/kernel/domainname", "org"),
        (["--add-host", "other:10.9.8.7"], "grep other /etc/hosts", "10.9.8.7\tother"),
        (["--add-host", "host.here:host-gateway"], "grep -c host.here /etc/hosts", "1"),
        (
            ["--dns", "10.1.1.1", "--dns-search", "example.org", "--dns-opt", "ndots:3"],
            "grep -v '^#' /etc/resolv.conf",
            "nameserver 10.1.1.1\nsearch example.org\noptions ndots:3",
        ),
        (["--ulimit", "nofile=123:456"], "ulimit -n; ulimit -Hn", "123\n456"),
        (["--sysctl", "net.ipv4.ip_forward=0"], "cat /proc/sys/net/ipv4/ip_forward", "0"),
        (["--sysctl", "kernel.msgmax=9999"], "cat /proc/sys/kernel/msgmax", "9999"),
        (["--cap-drop", "ALL"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"),
        (["--cap-drop", "all", "--cap-add", "chown"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000001"),
        ([], "grep -E 'CapEff|CapBnd' /proc/self/status", "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb"),
        (["--user", "nobody"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"),
        ([], "grep Seccomp: /proc/self/status", "Seccomp:\t2"),
        (["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status", "Seccomp:\t0"),
        (["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
        (["--read-only"], "touch /here 2>&1 || echo refused", "touch: /here: Read-only file system\nrefused"),
        (["--read-only", "--tmpfs", "/scratch:size=1m,mode=700"], "touch /scratch/x; stat -c %a /scratch", "700"),
        (["--tmpfs", "/new", "--tmpfs", "/home"], "stat -c %a /new /home", "1777\n755"),
        ([], "stat -c '%a %s' /.dockerenv", "755 0"),
        (
            ["--tmpfs", "/scratch:size=1m"],
            "grep -c '/scratch tmpfs.*nosuid,nodev,noexec.*size=1024k' /proc/mounts",
            "1",
        ),
        (["--shm-size", "2m"], "df -k /dev/shm | awk 'NR==2{print $2}'", "2048"),
        ([], "df -k /dev/shm | awk 'NR==2{print $2}'", "65536"),
        (["--pids-limit", "50"], "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null || true", "50"),
        (["--entrypoint", "echo"], "said", "-c said"),
        (["--privileged"], "mkdir -p /mnt && mount -t tmpfs x /mnt && echo yes", "yes"),
        (["--pid", "host"], "[ $$ != 1 ] && echo not-one", "not-one"),
        (["--ipc", "host"], "ls /proc/sys/kernel | grep -c msgmax", "1"),
        (["--uts", "host"], "[ $(hostname) = $(cat /proc/sys/kernel/hostname) ] && echo same", "same"),
        (["--init"], "cat /proc/1/comm | grep -vc '^sh$'", "1"),
        (["--device", "/dev/fuse:/dev/other"], "[ -c /dev/other ] && echo there", "there"),
        (["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500"),
        (["--link-local-ip", "169.254.1.1"], "echo accepted", "accepted"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_does_what_it_says(narud: Daemon, options: list[str], command: str, printed: str) -> None:
    entry = [] if "--entrypoint" in options else ["sh"]
    assert narud("run", "--rm", *options, "busybox", *entry, "-c", command) == printed


def test_env_and_label_files_and_the_clients_own_environment(narud: Daemon, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nFROM_FILE=1\nPATH_LIKE=a b\n")
    (tmp_path / "labels").write_text("one=1\ntwo=\n")
    files = ["--env-file", f"{tmp_path}/env", "--label-file", f"{tmp_path}/labels", "--label", "three=a=b"]
    assert narud("run", "--name", "box", *files, "busybox", "sh", "-c", 'echo "$FROM_FILE $PATH_LIKE"') == "1 a b"
    labels = json.loads(narud("inspect", "--format", "{{json .Config.Labels}}", "box"))
    assert labels.items() >= {"one": "1", "two": "", "three": "a=b"}.items()
    assert labels["org.opencontainers.image.title"] == "busybox"


def test_the_kernels_interfaces_are_masked_and_read_only(narud: Daemon) -> None:
    script = (
        "cat /proc/keys /proc/timer_list; ls /proc/acpi /sys/firmware | grep -v :; echo x >/proc/sys/kernel/domainname"
    )
    done = narud.docker("run", "--rm", "busybox", "sh", "-c", script)
    assert done.out.split() == []
    assert "domainname: Read-only file system" in done.err


def test_more_memory_than_allowed_is_an_oom_kill(narud: Daemon) -> None:
    done = narud.docker("run", "--name", "eater", "--memory", "16m", "busybox", "sh", "-c", "tail /dev/zero")
    assert done.code == 137
    assert narud("inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "eater") == "true 137"


def test_more_processes_than_allowed_cannot_be_made(narud: Daemon) -> None:
    script = "for n in 1 2 3 4 5 6 7 8; do sleep 9 & done; echo all"
    done = narud.docker("run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", script)
    assert "can't fork" in done.err
    assert "all" not in done.out


def test_limits_can_be_changed_while_it_runs(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "box", "--memory", "32m", "busybox", "sleep", "100")
    narud("update", "--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", "--restart", "unless-stopped", "box")
    form = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.Name}}"
    assert narud("inspect", "--format", form, "box") == "67108864 500000000 unless-stopped"
    files = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"
    assert narud("exec", "box", "sh", "-c", f"{files} || true") == "67108864"


def test_another_containers_namespaces_can_be_joined(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "first", "--ipc", "shareable", "busybox", "sleep", "100")
    shared = ["--pid", "container:first", "--ipc", "container:first", "--network", "container:first"]
    script = "cat /proc/1/cmdline | tr '\\0' ' '; for n in pid ipc net; do readlink /proc/self/ns/$n; done"
    printed = narud("run", "--rm", *shared, "busybox", "sh", "-c", script).splitlines()
    seen = narud("exec", "first", "sh", "-c", "for n in pid ipc net; do readlink /proc/self/ns/$n; done").splitlines()
    assert printed == [f"sleep 100 {seen[0]}", *seen[1:]]


def test_an_init_reaps_what_is_left_to_it(narud: Daemon) -> None:
    narud("run", "--detach", "--init", "--name", "box", "busybox", "sh", "-c", "(sleep 0 &) ; echo begun; sleep 100")
    wait_until(lambda: narud("logs", "box") == "begun")
    wait_until(lambda: narud("exec", "box", "sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status || true") == "")


def test_a_stop_signal_of_the_container_is_used(narud: Daemon) -> None:
    script = 'trap "echo usr1; exit 9" USR1; echo ready; while :; do sleep 0.05; done'
    narud("run", "--detach", "--name", "box", "--stop-signal", "SIGUSR1", "busybox", "sh", "-c", script)
    wait_until(lambda: narud("logs", "box") == "ready")
    narud("stop", "box")
    assert narud("wait", "box") == "9"
    assert narud("logs", "box") == "ready\nusr1"


def test_logs_rotate_when_they_grow(narud: Daemon) -> None:
    options = ["--log-opt", "max-size=10k", "--log-opt", "max-file=2"]
    narud("run", "--name", "box", *options, "busybox", "seq", "1", "2000")
    lines = narud("logs", "box").splitlines()
    assert lines[-1] == "2000"
    assert 100 < len(lines) < 1000
    assert narud.docker("run", "--name", "silent", "--log-driver", "none", "busybox", "echo", "seen").out == "seen\n"
    assert "configured logging driver does not support reading" in narud.docker("logs", "silent").err
