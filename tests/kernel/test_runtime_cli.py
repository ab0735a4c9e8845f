"""`naru-runtime` on a bundle, as containerd or Podman call it."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.root


class Runtime:
    """The program with a state directory of its own, and one bundle."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.state = directory / "state"
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        shutil.copytree(root, self.bundle / "rootfs", symlinks=True)
        self("spec", "--bundle", self.bundle)
        self.configure("sleep", "100")

    def configure(self, *args: str, terminal: bool = False, **process: object) -> None:
        path = self.bundle / "config.json"
        spec = json.loads(path.read_text())
        spec["process"] |= {"args": args, "env": ["PATH=/bin"], "terminal": terminal} | process
        path.write_text(json.dumps(spec))

    def __call__(self, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "naru.runtime.cli", "--root", str(self.state), *map(str, arguments)]
        options = {"capture_output": True, "text": True, "timeout": 30, "stdin": subprocess.DEVNULL} | options
        return subprocess.run(command, **options)

    def create(self, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """With streams to nowhere: a created container keeps what it is given open."""
        quiet = {"capture_output": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self("create", "--bundle", self.bundle, *arguments, name, **quiet)

    def status(self, name: str) -> str:
        return json.loads(self("state", name).stdout)["status"]


@pytest.fixture
def runtime(tmp_path, busybox_root):
    if os.geteuid():
        pytest.skip("needs root")
    made = Runtime(tmp_path, busybox_root)
    yield made
    for name in json.loads(made("list", "--format", "json").stdout):
        made("delete", "--force", name["id"])


def test_a_container_goes_through_the_specifications_statuses(runtime, tmp_path):
    assert runtime.create("c", "--pid-file", tmp_path / "pid").returncode == 0
    assert runtime.status("c") == "created"
    pid = int((tmp_path / "pid").read_text())
    pidfd = os.pidfd_open(pid)

    assert runtime("start", "c").returncode == 0
    assert runtime.status("c") == "running"
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00100\x00"
    assert runtime("pause", "c").returncode == 0
    assert runtime.status("c") == "paused"
    assert runtime("resume", "c").returncode == 0
    assert "cannot start a container that is running" in runtime("start", "c").stderr
    assert "that is not stopped: running" in runtime("delete", "c").stderr

    assert runtime("kill", "c", "KILL").returncode == 0
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
    assert runtime.status("c") == "stopped"
    assert runtime("kill", "c").stderr == "naru-runtime kill failed: container not running\n"
    assert runtime("delete", "c").returncode == 0
    assert "container does not exist: c" in runtime("state", "c").stderr


def test_run_relays_output_and_exit_status_and_leaves_nothing(runtime):
    runtime.configure("sh", "-c", "echo out; echo err >&2; exit 4")

    done = runtime("run", "--bundle", runtime.bundle, "c")

    assert (done.returncode, done.stdout, done.stderr) == (4, "out\n", "err\n")
    assert os.listdir(runtime.state) == []


def test_exec_runs_beside_the_container_from_options_or_a_process_file(runtime, tmp_path):
    runtime.create("c")
    runtime("start", "c")
    process = {
        "args": ["sh", "-c", "echo $X; exit 6"],
        "env": ["PATH=/bin", "X=y"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
    }
    (tmp_path / "process.json").write_text(json.dumps(process))

    from_file = runtime("exec", "--process", tmp_path / "process.json", "c")
    from_options = runtime("exec", "--user", "1000:50", "--cwd", "/tmp", "c", "sh", "-c", "id -u; pwd")
    missing = runtime("exec", "c", "nope")

    assert (from_file.returncode, from_file.stdout) == (6, "y\n")
    assert from_options.stdout == "1000\n/tmp\n"
    assert missing.returncode == 127


def test_a_program_that_does_not_exist_fails_create_and_is_logged_for_the_caller(runtime, tmp_path):
    runtime.configure("nope")

    failed = runtime("--log", tmp_path / "log", "--log-format", "json", "create", "--bundle", runtime.bundle, "c")

    assert failed.returncode == 1
    record = json.loads((tmp_path / "log").read_text())
    assert record["level"] == "error"
    assert record["msg"] == 'unable to start container process: exec: "nope": executable file not found in $PATH'
    assert os.listdir(runtime.state) == []


def test_the_console_is_sent_to_the_console_socket(runtime, tmp_path):
    runtime.configure("tty", terminal=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "console"))
        listener.listen()
        assert runtime.create("c", "--console-socket", tmp_path / "console").returncode == 0
        connection, _address = listener.accept()
        _name, fds, _flags, _sender = socket.recv_fds(connection, 100, 1)
        connection.close()

    runtime("start", "c")

    assert os.read(fds[0], 100) == b"/dev/pts/0\r\n"
    os.close(fds[0])


def test_a_terminal_without_a_console_socket_is_an_error(runtime):
    runtime.configure("tty", terminal=True)

    assert "without a console socket" in runtime("create", "--bundle", runtime.bundle, "c").stderr


def test_preserved_descriptors_reach_the_program(runtime, tmp_path):
    runtime.configure("sh", "-c", "cat <&3; ls /proc/$$/fd | wc -l; true")
    (tmp_path / "input").write_text("hello\n")
    command = [sys.executable, "-m", "naru.runtime.cli", "--root", runtime.state]
    command += ["run", "--bundle", runtime.bundle, "--preserve-fds", "1", "c"]
    redirected = ["sh", "-c", f'exec "$@" 3<{tmp_path}/input', "sh", *map(str, command)]

    done = subprocess.run(redirected, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)

    assert done.stdout == "hello\n4\n"


def test_limits_are_updated_and_use_is_reported(runtime):
    runtime.create("c")
    runtime("start", "c")

    assert runtime("update", "--resources", "-", "c", input='{"pids":{"limit":7}}', stdin=None).returncode == 0

    event = json.loads(runtime("events", "--stats", "c").stdout)
    assert event["data"]["pids"] == {"current": 1, "limit": 7}
    assert json.loads(runtime("ps", "--format", "json", "c").stdout) == [
        json.loads(runtime("state", "c").stdout)["pid"]
    ]


ATTACK = """
import os
held = os.open("/proc/self/exe", os.O_RDONLY)
os.set_inheritable(held, True)
attempts = f"for n in $(seq 20); do echo overwritten >/proc/self/fd/{held} && exit; sleep 0.05; done"
os.execv("/bin/sh", ["sh", "-c", attempts])  # more than one, for it is busy until the runtime has ended
"""


def overwrite_interpreter(runtime: Runtime, directory: Path, program: str) -> str:
    """Run `program`, a runtime, with an interpreter nobody else runs, on a container that attacks it; its stderr."""
    interpreter = directory / "python"
    shutil.copy(os.path.realpath(sys.executable), interpreter)
    path = runtime.bundle / "config.json"
    spec = json.loads(path.read_text())
    for source in {"/usr", "/lib", "/lib64", sys.base_prefix}:
        spec["mounts"].append({"destination": source, "type": "bind", "source": source, "options": ["rbind"]})
    path.write_text(json.dumps(spec))
    home = f"PYTHONHOME={sys.base_prefix}"
    runtime.configure("/proc/self/exe", "-c", ATTACK, env=["PATH=/bin", home])
    environment = os.environ | {"PYTHONHOME": sys.base_prefix, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [interpreter, "-c", program, "--root", runtime.state, "run", "--detach", "--bundle", runtime.bundle, "c"]
    errors = directory / "errors"
    with errors.open("wb") as stderr:
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, timeout=30)
    deadline = time.monotonic() + 10
    while runtime.status("c") != "stopped" and time.monotonic() < deadline:
        pass
    return errors.read_text()


def test_an_interpreter_that_is_not_protected_can_be_overwritten_by_a_container(runtime, tmp_path):
    """CVE-2019-5736, to show that the attack of the next test is real."""
    program = "from naru.runtime import cli, self_exe; self_exe.protect = lambda: None; cli.main()"

    overwrite_interpreter(runtime, tmp_path, program)

    assert (tmp_path / "python").read_bytes() == b"overwritten\n"


def test_the_interpreter_of_the_runtime_cannot_be_overwritten_by_a_container(runtime, tmp_path):
    errors = overwrite_interpreter(runtime, tmp_path, "from naru.runtime import cli; cli.main()")

    assert "Read-only file system" in errors
    assert (tmp_path / "python").read_bytes() == Path(os.path.realpath(sys.executable)).read_bytes()
