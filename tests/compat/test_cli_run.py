"""`docker run` by the unmodified docker command line: output, input, terminals, exit codes."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from pathlib import Path

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root

NO_COMMAND = 'exec: "nonesuch": executable file not found in $PATH'


def test_output_and_error_output_arrive_apart(narud: Daemon) -> None:
    done = narud.docker("run", "--rm", "busybox", "sh", "-c", "echo to-out; echo to-err >&2")
    assert (done.code, done.out, done.err) == (0, "to-out\n", "to-err\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["/etc/passwd"], 126),
        (["nonesuch"], 127),
        (["/nonesuch"], 127),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -15 $PPID; kill -15 $$; sleep 9 & wait"], 143),
    ],
)
def test_the_exit_code_is_the_commands_or_dockers(narud: Daemon, command: list[str], code: int) -> None:
    assert narud.docker("run", "--rm", "--init", "busybox", *command).code == code
    assert narud("ps", "--all", "--quiet") == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["busybox", "nonesuch"], 127, NO_COMMAND),
        (["busybox", "/etc/passwd"], 126, "permission denied"),
        (["--nonesuch", "busybox"], 125, "unknown flag: --nonesuch"),
        (["--memory=1k", "busybox"], 125, "Minimum memory limit allowed is 6MB"),
        (["--network=nonesuch", "busybox"], 125, "network nonesuch not found"),
        (["--volumes-from=nonesuch", "busybox"], 125, "No such container: nonesuch"),
        (["-v", "relative/path:/x", "busybox"], 125, "includes invalid characters for a local volume name"),
        (["--mount", "type=bind,source=/nonesuch,target=/x", "busybox"], 125, "bind source path does not exist"),
        (["-v", "/tmp:relative", "busybox"], 125, "mount path must be absolute"),
        (["--user", "nobodyknows", "busybox", "id"], 125, "unable to find user nobodyknows"),
        (["--workdir", "relative", "busybox"], 125, "is invalid, it needs to be an absolute path"),
        (["--cap-add", "NONESUCH", "busybox"], 125, "CAP_NONESUCH"),
        (["--restart=always", "--rm", "busybox"], 125, "onflicting options"),
        (["--pull=never", "nonesuch"], 125, "No such image: nonesuch:latest"),
        (["UPPER"], 125, "must be lowercase"),
    ],
)
def test_a_mistake_is_one_clear_error_with_dockers_exit_code(
    narud: Daemon, arguments: list[str], code: int, said: str
) -> None:
    done = narud.docker("run", "--rm", *arguments)
    assert (done.code, said in done.err) == (code, True), done
    assert narud("ps", "--all", "--quiet") == ""


def test_a_container_that_could_not_start_stays_and_says_why(narud: Daemon) -> None:
    assert narud.docker("run", "--name", "broken", "busybox", "nonesuch").code == 127
    assert narud("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "broken") == "created 127"
    assert NO_COMMAND in narud("inspect", "--format", "{{.State.Error}}", "broken")


def test_detached_it_prints_the_id_and_runs_on(narud: Daemon) -> None:
    container = narud("run", "--detach", "--name", "web", "busybox", "sleep", "100")
    assert re.fullmatch("[0-9a-f]{64}", container)
    assert narud("ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}") == f"{container} web"


def test_a_name_is_taken_once(narud: Daemon) -> None:
    container = narud("create", "--name", "web", "busybox")
    done = narud.docker("create", "--name", "web", "busybox")
    assert done.code == 1
    assert f'The container name "/web" is already in use by container "{container}"' in done.err


def test_the_image_itself_is_pulled_when_it_is_not_there(narud: Daemon) -> None:
    done = narud.docker("run", "--rm", "127.0.0.1:9/team/app")
    assert done.code == 125
    assert "Unable to find image '127.0.0.1:9/team/app:latest' locally" in done.err


def test_a_terminal_is_one_with_its_size_and_keys(narud: Daemon) -> None:
    terminal = narud.terminal("run", "-it", "--rm", "--name", "tty", "busybox", "sh", rows=33, columns=101)
    terminal.expect("# ")
    terminal.send("stty size; tty; echo TERM=$TERM\n")
    terminal.expect("33 101")
    terminal.expect("/dev/pts/0")
    terminal.expect("TERM=xterm")
    terminal.send("sleep 100\n")
    wait_until(lambda: "sleep 100" in narud("top", "tty"))
    terminal.send("\x03")
    terminal.expect("# ")
    terminal.send("exit 7\n")
    assert terminal.end() == 7


def test_a_resized_window_is_a_resized_terminal(narud: Daemon) -> None:
    terminal = narud.terminal("run", "-it", "--rm", "--name", "tty", "busybox", "sh")
    terminal.expect("# ")
    size = ["exec", "tty", "stty", "-F", "/dev/pts/0", "size"]
    # The client listens for a changed window only some time after the first prompt.
    wait_until(lambda: terminal.resize(rows=40, columns=120) or narud(*size) == "40 120")


def test_piped_input_reaches_the_command_to_its_end(narud: Daemon) -> None:
    data = os.urandom(1 << 20) * 50
    assert narud("run", "-i", "--rm", "busybox", "wc", "-c", stdin=data) == str(len(data))
    assert narud("run", "-i", "--rm", "busybox", "sha256sum", stdin=data).split()[0] == hashlib.sha256(data).hexdigest()


def test_output_goes_on_after_the_end_of_the_input(narud: Daemon) -> None:
    script = "cat >/dev/null; echo input-ended; sleep 0.1; echo still-here"
    assert narud("run", "-i", "--rm", "busybox", "sh", "-c", script, stdin=b"x") == "input-ended\nstill-here"


def test_fifty_megabytes_of_output_arrive_whole(narud: Daemon) -> None:
    writing = narud.popen("run", "--rm", "busybox", "head", "-c", "50000000", "/dev/zero")
    out, _ = writing.communicate(timeout=60)
    assert out.count(b"\0") == len(out) == 50_000_000


def test_a_command_that_ignores_its_input_ends_the_client(narud: Daemon) -> None:
    running = narud.popen("run", "-i", "--rm", "busybox", "echo", "done")
    assert running.stdout is not None
    assert running.stdout.read() == b"done\n"
    assert running.wait(10) == 0


def test_a_signal_to_the_client_is_passed_on(narud: Daemon) -> None:
    script = 'trap "echo got-term; exit 5" TERM; echo ready; while :; do sleep 0.05; done'
    running = narud.popen("run", "--rm", "busybox", "sh", "-c", script)
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.terminate()
    assert running.stdout.read() == b"got-term\n"
    assert running.wait(10) == 5


def test_the_container_id_goes_into_a_cidfile(narud: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    container = narud("run", "--detach", "--cidfile", str(file), "busybox", "sleep", "100")
    assert file.read_text() == container


def test_restart_on_failure_counts_its_tries(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "fails", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo run; exit 4")
    form = "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}"
    wait_until(lambda: narud("inspect", "--format", form, "fails") == "exited 2 4")
    assert narud("logs", "fails") == "run\nrun\nrun"


def test_eight_runs_at_once_each_get_their_own_output(narud: Daemon) -> None:
    outputs: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: outputs.append(narud("run", "--rm", "busybox", "echo", str(n))))
        for n in range(8)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(outputs) == [str(n) for n in range(8)]
