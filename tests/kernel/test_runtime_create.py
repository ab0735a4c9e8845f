"""What a container made by `runtime.create` looks like from inside."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from naru.errors import CannotStart, InvalidArgument
from naru.kernel import mount as m
from naru.kernel import process
from naru.oci.runtime import Box as Size
from naru.oci.runtime import Device, Hook, Hooks, IOPriority, Mount, Rlimit, Scheduler, User
from naru.runtime.create import Stdio

pytestmark = pytest.mark.root


def test_the_program_is_pid_1_in_a_root_of_its_own_with_dockers_capabilities_and_seccomp(box):
    result = box.run("sh", "-c", "echo $$; hostname; cat /proc/self/status; ls /")

    assert result.code == 0
    assert result.output.startswith("1\nbox\n")
    assert "CapEff:\t00000000a80425fb" in result.output
    assert "CapBnd:\t00000000a80425fb" in result.output
    assert "Seccomp:\t2" in result.output
    assert "home" in result.output.split()


def test_only_standard_streams_are_open_in_the_program(box):
    leak = os.open("/", os.O_PATH)
    os.set_inheritable(leak, True)

    result = box.run("sh", "-c", "echo /proc/self/fd/*")
    os.close(leak)

    assert result.output.split() == [f"/proc/self/fd/{n}" for n in range(4)]  # 3 is the shell reading the directory


def test_dev_has_dockers_nodes_and_links(box):
    result = box.run(
        "sh", "-c", "cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty; readlink fd; readlink ptmx"
    )

    assert result.output.splitlines() == [
        "null character special file 1:3 666",
        "zero character special file 1:5 666",
        "full character special file 1:7 666",
        "random character special file 1:8 666",
        "urandom character special file 1:9 666",
        "tty character special file 5:0 666",
        "/proc/self/fd",
        "pts/ptmx",
    ]


def test_masked_and_read_only_paths_hold_and_the_mask_cannot_be_chmodded(box):
    result = box.run(
        "sh",
        "-c",
        "wc -c </proc/keys; ls /sys/firmware | wc -l; chmod 600 /proc/keys; echo 1 >/proc/sys/kernel/panic; >/sys/x",
    )

    lines = result.output.splitlines()
    assert lines[:2] == ["0", "0"]
    assert all("Read-only file system" in line or "read-only" in line.lower() for line in lines[2:])
    assert len(lines) == 5


def _host_mounts() -> list[str]:
    """Without network namespaces, which others on this host make and remove meanwhile (`ip netns`)."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - nsfs " not in line]


def test_nothing_is_mounted_on_the_host(box):
    before = _host_mounts()

    created = box.start(box.spec("sleep", "100"))

    assert _host_mounts() == before
    assert str(box.root) not in Path(f"/proc/{created.pid}/mountinfo").read_text().split(" - ")[-1]


def test_a_read_only_root_is_read_only_and_its_volumes_are_not(box, tmp_path):
    (tmp_path / "data").mkdir()
    mount = Mount("/data", "bind", str(tmp_path / "data"), ["rbind"])

    result = box.run("sh", "-c", "touch /x; touch /data/y /dev/shm/z && echo ok", read_only=True, mounts=[mount])

    assert result.output == "touch: /x: Read-only file system\nok\n"
    assert (tmp_path / "data/y").exists()


def test_bind_options_apply_to_the_mount_and_recursive_ones_to_what_is_below(box, tmp_path):
    (tmp_path / "data").mkdir()
    mount = Mount("/data", "bind", str(tmp_path / "data"), ["rbind", "rro", "nosuid", "noexec"])

    result = box.run("sh", "-c", "grep ' /data ' /proc/mounts; touch /data/x", mounts=[mount])

    assert re.search(r"/data \S+ ro,nosuid,noexec", result.output)
    assert "Read-only file system" in result.output


def test_a_file_is_bound_onto_a_file_that_gets_made(box, tmp_path):
    (tmp_path / "hosts").write_text("here\n")

    result = box.run(
        "cat", "/etc/deep/hosts", mounts=[Mount("/etc/deep/hosts", "bind", str(tmp_path / "hosts"), ["bind"])]
    )

    assert result.output == "here\n"


def test_a_directory_over_a_file_fails_in_dockers_words(box, tmp_path):
    with pytest.raises(CannotStart, match="Are you trying to mount a directory onto a file"):
        box.run("true", mounts=[Mount("/etc/passwd", "bind", str(tmp_path), ["rbind"])])


def test_a_mount_target_that_is_a_link_to_the_host_stays_inside_the_root(box, tmp_path):
    overlay = box.overlay()
    outside = tmp_path / "outside"
    Path("/" + overlay.upper, "data").symlink_to(f"../../../../..{outside}/made")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").touch()
    mount = Mount("/data", "bind", str(tmp_path / "source"), ["rbind"])

    result = box.run("ls", "/data/", mounts=[mount], create_options={"overlay": overlay})

    assert result.output == "file\n"
    assert not outside.exists()


def test_a_bind_inside_proc_is_refused(box, tmp_path):
    with pytest.raises(CannotStart, match='"/proc/sys" cannot be mounted because it is inside /proc'):
        box.run("true", mounts=[Mount("/proc/sys", "bind", str(tmp_path), ["rbind"])])


def test_a_proc_that_is_a_link_is_refused(box):
    overlay = box.overlay()
    upper = Path("/" + overlay.upper)
    os.mknod(upper / "elsewhere", 0o600)
    (upper / "elsewhere").unlink()
    (upper / "elsewhere").mkdir()
    (upper / "proc").symlink_to("elsewhere")

    with pytest.raises(CannotStart, match="must be mounted on an ordinary directory"):
        box.run("true", create_options={"overlay": overlay})


def test_a_tmpfs_has_its_size_and_mode_and_can_start_as_a_copy_of_what_it_covers(box):
    options = ["size=1m", "mode=1770", "tmpcopyup"]

    result = box.run(
        "sh",
        "-c",
        "cat /etc/passwd | wc -l; stat -c %a /etc; df -k /etc | tail -1",
        mounts=[Mount("/etc", "tmpfs", "tmpfs", options)],
    )

    lines = result.output.splitlines()
    assert lines[:2] == ["3", "1770"]
    assert lines[2].split()[1] == "1024"


def test_a_user_name_brings_its_groups_and_home_and_may_reopen_its_output(box):
    result = box.run("sh", "-c", "id; echo $HOME; echo again >/dev/stdout", process={"user": User(username="app")})

    assert result.output == "uid=1000(app) gid=1000(app) groups=10(wheel),50(staff),1000(app)\n/home/app\nagain\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("app:staff", "uid=1000(app) gid=50(staff) groups=50(staff)"),
        ("4321", "uid=4321 gid=0(root) groups=0(root)"),
        ("4321:99", "uid=4321 gid=99 groups=99"),
        ("", "uid=0(root) gid=0(root) groups=0(root),10(wheel)"),
    ],
)
def test_a_user_is_looked_up_as_docker_does(box, user, expected):
    username = user or "root"

    assert box.run("id", process={"user": User(username=username)}).output.strip() == expected


def test_an_unknown_user_is_an_error_in_dockers_words(box):
    with pytest.raises(CannotStart, match=r"^unable to find user zed: no matching entries in passwd file$"):
        box.run("true", process={"user": User(username="zed")})


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in $PATH'),
        ("/nope", 127, 'exec: "/nope": stat /nope: no such file or directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
        ("/etc", 126, 'exec: "/etc": is a directory'),
    ],
)
def test_a_program_that_cannot_be_found_or_run_fails_with_dockers_words_and_code(box, program, code, words):
    with pytest.raises(CannotStart) as failure:
        box.run(program)

    assert (failure.value.exit_code, str(failure.value)) == (code, words)


def test_a_file_that_is_no_program_fails_at_execve(box):
    overlay = box.overlay()
    script = Path("/" + overlay.upper, "garbage")
    script.write_bytes(b"\x01\x02")
    script.chmod(0o755)

    with pytest.raises(CannotStart, match=r"^exec /garbage: exec format error$") as failure:
        box.run("/garbage", create_options={"overlay": overlay})

    assert failure.value.exit_code == 126


def test_a_failed_start_leaves_no_process_cgroup_or_descriptor(box):
    descriptors, children = len(os.listdir("/proc/self/fd")), _children()
    spec = box.spec("nope")

    with pytest.raises(CannotStart):
        box.create(spec)

    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not Path(f"/sys/fs/cgroup/pids{spec.linux.cgroups_path}").exists()
    assert _children() <= children


def _children() -> set[str]:
    """Our children, zombies included: other tests of this process may have some of their own."""
    return {pid for tasks in Path("/proc/self/task").glob("*/children") for pid in tasks.read_text().split()}


def test_a_missing_working_directory_is_made(box):
    assert box.run("pwd", process={"cwd": "/srv/app"}, read_only=True).output == "/srv/app\n"


def test_a_terminal_is_the_containers_own_console_with_its_size(box):
    spec = box.spec("sh", "-c", "tty; stty size; stat -c %t:%T /dev/console; ps -o tty= | head -1; exit 7")
    spec.process.terminal, spec.process.console_size = True, Size(height=33, width=77)

    created = box.start(spec)
    output = b""
    try:
        while data := os.read(created.console, 4096):
            output += data
    except OSError:
        pass

    assert os.waitstatus_to_exitcode(os.waitpid(created.pid, 0)[1]) == 7
    assert output.decode().split("\r\n")[:3] == ["/dev/pts/0", "33 77", "88:0"]


def test_sysctls_are_written_and_those_of_the_host_are_refused(box):
    result = box.run("cat", "/proc/sys/kernel/shmmax", sysctls={"kernel.shmmax": "123456789"})
    assert result.output == "123456789\n"

    with pytest.raises(InvalidArgument, match=r'sysctl "kernel.panic" is not in a separate kernel namespace'):
        box.run("true", sysctls={"kernel.panic": "1"})
    with pytest.raises(
        InvalidArgument, match=r'sysctl "net.ipv4.ip_forward" is not allowed in the host network namespace'
    ):
        box.run("true", sysctls={"net.ipv4.ip_forward": "1"}, share={"network": "host"})


def test_rlimits_umask_and_oom_score_reach_the_program(box):
    process = {
        "rlimits": [Rlimit(type="RLIMIT_NOFILE", soft=100, hard=200)],
        "user": User(umask=0o027),
        "oom_score_adj": 500,
    }

    result = box.run("sh", "-c", "ulimit -Sn; ulimit -Hn; umask; cat /proc/self/oom_score_adj", process=process)

    assert result.output.split() == ["100", "200", "0027", "500"]


def test_the_scheduler_and_io_priority_of_the_process_are_set(box):
    process = {
        "scheduler": Scheduler(policy="SCHED_BATCH", nice=7),
        "io_priority": IOPriority(class_="IOPRIO_CLASS_IDLE", priority=0),
    }

    result = box.run("sh", "-c", "cut -d' ' -f19,41 /proc/$$/stat; ionice -p $$; true", process=process)

    assert result.output == "7 3\nidle\n"  # nice, and the number of SCHED_BATCH


def test_a_device_of_the_spec_is_made_with_its_mode_and_owner(box):
    device = Device(type="c", path="/dev/deep/fuse", major=10, minor=229, file_mode=0o640, uid=3, gid=4)

    assert box.run("stat", "-c", "%t:%T %a %u:%g", "/dev/deep/fuse", devices=[device]).output == "a:e5 640 3:4\n"


def test_a_new_network_namespace_has_its_loopback_up_and_an_inherited_one_is_joined(box):
    first = box.start(box.spec("sleep", "100"))
    network = os.open(f"/proc/{first.pid}/ns/net", os.O_RDONLY)

    joined = box.run("readlink", "/proc/self/ns/net", create_options={"inherited": {"network": network}})
    os.close(network)

    assert joined.output.strip() == os.readlink(f"/proc/{first.pid}/ns/net")
    assert "UP" in box.run("ip", "link", "show", "lo").output


def test_a_pid_namespace_can_be_joined_by_path(box):
    first = box.start(box.spec("sleep", "100"))

    result = box.run("ps", share={"pid": f"/proc/{first.pid}/ns/pid"})

    assert "sleep 100" in result.output


def test_hooks_run_at_their_points_with_the_state_and_a_failing_one_stops_the_container(box, tmp_path):
    log = tmp_path / "log"
    shell = ["sh", "-c", f"read -r state; echo $0 $state >>{log}"]
    spec = box.spec("true")
    spec.hooks = Hooks(
        create_runtime=[Hook("/bin/sh", [*shell, "createRuntime"])],
        create_container=[Hook("/bin/sh", [*shell, "createContainer"])],
        poststart=[Hook("/bin/sh", [*shell, "poststart"])],
    )
    created = box.start(spec)
    lines = log.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["createRuntime", "createContainer", "poststart"]
    assert all(f'"pid":{created.pid}' in line for line in lines)

    spec = box.spec("true")
    spec.hooks = Hooks(create_runtime=[Hook("/bin/sh", ["sh", "-c", "exit 3"])])
    with pytest.raises(CannotStart, match="error running createRuntime hook #0: /bin/sh: exit status 3"):
        box.create(spec)


def test_init_reaps_orphans_forwards_signals_and_exits_with_the_commands_status(box):
    reaped = box.run(
        "sh", "-c", "(sleep 0 &) ; sleep 0.1; ps | grep -c '[Z]ombie'; exit 9", create_options={"init": True}
    )
    assert (reaped.code, reaped.output) == (9, "0\n")

    created = box.start(box.spec("sleep", "100"), init=True)
    os.kill(created.pid, 15)
    assert os.waitstatus_to_exitcode(os.waitpid(created.pid, 0)[1]) == 128 + 15


def test_ignored_and_blocked_signals_of_the_caller_do_not_reach_the_program(box):
    result = box.run("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")

    assert result.output == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"


VOLUMES = ("shared", "slave", "private")


def share_in_own_namespace(directory: Path) -> None:
    """Leave the host's mount namespace, and make each volume's directory a shared mount."""
    process.unshare(process.CLONE_NEWNS)
    m.mount(None, "/", None, m.MS_PRIVATE | m.MS_REC)
    for name in VOLUMES:
        for below in ("in", "out"):
            (directory / name / below).mkdir(parents=True)
        m.mount(str(directory / name), str(directory / name), None, m.MS_BIND)
        m.mount(None, str(directory / name), None, m.MS_SHARED)


def mount_on_both_sides(box, directory: Path, output: int) -> None:
    """Mount `in` of volumes inside a container and `out` outside; write how many of `out`, and which `in`, crossed."""
    share_in_own_namespace(directory)
    volumes = [Mount(f"/{name}", "bind", str(directory / name), ["rbind", f"r{name}"]) for name in VOLUMES]
    inside = (
        "for v in shared slave private; do mount -t tmpfs in /$v/in; done; echo; read x; grep -c '/out ' /proc/mounts"
    )
    spec = box.spec("sh", "-c", inside, mounts=volumes, capabilities=["CAP_SYS_ADMIN"], seccomp=None)
    release, released = os.pipe()
    done, mounted = os.pipe()
    created = box.start(spec, stdio=Stdio(release, mounted, mounted))
    os.read(done, 1)
    seen = [name for name in VOLUMES if f"/{name}/in " in Path("/proc/self/mounts").read_text()]
    for name in VOLUMES:
        m.mount("out", f"{directory}/{name}/out", "tmpfs", 0)
    os.write(released, b"\n")
    os.waitpid(created.pid, 0)
    created.cgroup.remove()
    os.write(output, os.read(done, 10) + " ".join(seen).encode())


def test_a_volumes_mounts_travel_only_as_its_propagation_says(box, tmp_path):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            mount_on_both_sides(box, tmp_path, write)
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)

    with open(read) as pipe:
        assert pipe.read() == "2\nshared"


def test_namespaces_of_the_host_are_shared_when_none_is_asked_for(box):
    kinds = ("cgroup", "ipc", "net", "pid", "uts")
    share = dict.fromkeys(("cgroup", "ipc", "network", "pid", "uts"), "host")

    result = box.run(
        "sh",
        "-c",
        "cd /proc/self/ns; readlink cgroup; readlink ipc; readlink net; readlink pid; readlink uts",
        share=share,
    )

    assert result.output.split() == [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]


def test_cgroups_are_seen_read_only_with_and_without_a_namespace(box):
    look = "cd /sys/fs/cgroup; cat */cgroup.procs cgroup.procs 2>/dev/null | sort -u; mkdir pids/x"

    private = box.run("sh", "-c", look)
    host = box.run("sh", "-c", look, share={"cgroup": "host"})

    assert private.output.splitlines()[0] == host.output.splitlines()[0] == "1"
    assert "can't create directory" in private.output
    assert "can't create directory" in host.output


def test_a_root_can_be_moved_into_place_where_pivot_root_cannot_work(box):
    result = box.run("sh", "-c", "ls / | head -1; grep -c ' / ' /proc/mounts", create_options={"use_pivot": False})

    assert result.output == "bin\n1\n"


def test_descriptors_of_the_caller_are_closed_before_the_child_does_anything(box, tmp_path):
    log = tmp_path / "log"
    look = f's=$(cat); p=${{s#*\\"pid\\":}}; p=${{p%%[,\\}}]*}}; ls -l /proc/$p/fd >{log}'
    spec = box.spec("true")
    spec.hooks = Hooks(create_container=[Hook("/bin/sh", ["sh", "-c", look])])

    with open("/etc/hostname") as _secret:
        box.start(spec)

    assert "socket:" in log.read_text()  # the way to the parent
    assert "/etc/hostname" not in log.read_text()
