"""A container's life by the unmodified docker command line: ps, exec, logs, attach, stop, kill, events and the rest."""

from __future__ import annotations

import json
import re
import select
import time
from pathlib import Path

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root

HOST_CAPABILITIES = next(
    line for line in Path("/proc/self/status").read_text().splitlines(keepends=True) if line.startswith("CapEff")
)
UNTIL_TERM = 'trap "echo ended; exit 0" TERM; echo ready; while :; do sleep 0.05; done'


def status(narud: Daemon, name: str) -> str:
    return narud("inspect", "--format", "{{.State.Status}}", name)


def run_until_ready(narud: Daemon, name: str, *options: str) -> str:
    container = narud("run", "--detach", "--name", name, *options, "busybox", "sh", "-c", UNTIL_TERM)
    wait_until(lambda: "ready" in narud("logs", name))
    return container


def test_ps_shows_filters_and_formats(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "up", "--label", "tier=web", "busybox", "sleep", "100")
    narud.docker("run", "--name", "gone", "busybox", "sh", "-c", "exit 3")
    narud("create", "--name", "new", "busybox")
    assert narud("ps", "--format", "{{.Names}}") == "up"
    assert narud("ps", "--all", "--format", "{{.Names}}").split() == ["new", "gone", "up"]
    assert narud("ps", "--last", "1", "--format", "{{.Names}}") == "new"
    assert narud("ps", "--all", "--filter", "status=exited", "--format", "{{.Names}}") == "gone"
    assert narud("ps", "--all", "--filter", "exited=3", "--format", "{{.Names}}") == "gone"
    assert narud("ps", "--filter", "label=tier=web", "--format", "{{.Names}}") == "up"
    assert narud("ps", "--all", "--filter", "name=^/?ne", "--format", "{{.Names}}") == "new"
    assert narud("ps", "--all", "--filter", "ancestor=busybox", "--quiet").count("\n") == 2
    assert narud("ps", "--all", "--filter", "before=gone", "--format", "{{.Names}}") == "up"
    line = narud("ps", "--all", "--filter", "name=gone", "--format", "{{.Image}}|{{.Command}}|{{.Status}}")
    assert re.fullmatch(r'busybox\|"sh -c \'exit 3\'"\|Exited \(3\) .* ago', line)
    assert re.search(r"Up (Less than a|\d+) second", narud("ps"))


def test_stop_start_restart_and_the_times_in_between(narud: Daemon) -> None:
    run_until_ready(narud, "box")
    assert narud("stop", "box") == "box"
    assert status(narud, "box") == "exited"
    assert narud("start", "box") == "box"
    assert status(narud, "box") == "running"
    wait_until(lambda: narud("logs", "box") == "ready\nended\nready")
    assert narud("restart", "box") == "box"
    wait_until(lambda: narud("logs", "box") == "ready\nended\nready\nended\nready")
    state = json.loads(narud("inspect", "--format", "{{json .State}}", "box"))
    assert state["StartedAt"] > state["FinishedAt"]
    assert state["Pid"] > 0


def test_stop_kills_what_does_not_listen(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "deaf", "busybox", "sh", "-c", 'trap "" TERM; while :; do sleep 0.1; done')
    narud("stop", "--time", "1", "deaf")
    assert narud("inspect", "--format", "{{.State.ExitCode}}", "deaf") == "137"


def test_verbs_on_what_is_not_there_or_not_running_are_clear(narud: Daemon) -> None:
    narud("create", "--name", "new", "busybox")
    missing = narud.docker("stop", "nonesuch")
    assert missing.code == 1
    assert "No such container: nonesuch" in missing.err
    assert "is not running" in narud.docker("kill", "new").err
    assert "is not running" in narud.docker("exec", "new", "true").err
    assert "is not running" in narud.docker("pause", "new").err
    assert "is not paused" in narud.docker("unpause", "new").err
    assert "You cannot attach to a stopped container" in narud.docker("attach", "new").err


def test_kill_sends_any_signal(narud: Daemon) -> None:
    run_until_ready(narud, "box")
    narud("kill", "--signal", "TERM", "box")
    assert narud("wait", "box") == "0"
    narud("start", "box")
    narud("kill", "box")
    assert narud("wait", "box") == "137"
    assert narud.docker("kill", "--signal", "NONESUCH", "box").code == 1


def test_pause_stands_still_until_unpause(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "box", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.02; done")
    wait_until(lambda: narud("logs", "box"))
    narud("pause", "box")
    assert status(narud, "box") == "paused"
    assert "(Paused)" in narud("ps")
    before = narud("logs", "box")
    assert "paused" in narud.docker("exec", "box", "true").err
    assert narud("logs", "box") == before
    narud("unpause", "box")
    wait_until(lambda: len(narud("logs", "box")) > len(before))
    narud("pause", "box")
    narud("rm", "--force", "box")


def test_a_renamed_container_answers_to_its_new_name(narud: Daemon) -> None:
    narud("create", "--name", "old", "busybox")
    narud("create", "--name", "taken", "busybox")
    narud("rename", "old", "new")
    assert narud("ps", "--all", "--filter", "name=new", "--format", "{{.Names}}") == "new"
    assert narud.docker("inspect", "old").code == 1
    assert 'name "/taken" is already in use' in narud.docker("rename", "new", "taken").err


def test_wait_returns_every_exit_code(narud: Daemon) -> None:
    narud("create", "--name", "one", "busybox", "sh", "-c", "exit 4")
    run_until_ready(narud, "two")
    narud("start", "one")
    waiting = narud.popen("wait", "one", "two")
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == b"4\n"
    narud("stop", "two")
    assert waiting.stdout.read() == b"0\n"


def test_rm_refuses_what_runs_and_force_does_not(narud: Daemon) -> None:
    run_until_ready(narud, "box")
    refused = narud.docker("rm", "box")
    assert refused.code == 1
    assert "container is running: stop the container before removing or force remove" in refused.err
    assert narud("rm", "--force", "box") == "box"
    assert narud("ps", "--all", "--quiet") == ""
    assert narud("rm", "--force", "nonesuch") == ""


@pytest.mark.parametrize(
    ("options", "command", "code", "printed"),
    [
        ([], ["echo", "hi"], 0, "hi\n"),
        ([], ["sh", "-c", "exit 6"], 6, ""),
        (["--user", "nobody"], ["id", "-un"], 0, "nobody\n"),
        (["--workdir", "/etc"], ["pwd"], 0, "/etc\n"),
        (["--env", "A=b"], ["sh", "-c", "echo $A$FROM_RUN"], 0, "bc\n"),
        (["--privileged"], ["grep", "CapEff", "/proc/self/status"], 0, HOST_CAPABILITIES),
        (["--detach"], ["sleep", "1"], 0, ""),
    ],
)
def test_exec_runs_another_process(
    narud: Daemon, options: list[str], command: list[str], code: int, printed: str
) -> None:
    narud("run", "--detach", "--name", "box", "--env", "FROM_RUN=c", "busybox", "sleep", "100")
    done = narud.docker("exec", *options, "box", *command)
    assert (done.code, done.out, done.err) == (code, printed, "")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["nonesuch"], 127, "executable file not found in $PATH"),
        (["/etc/passwd"], 126, "permission denied"),
        (["--user", "nobodyknows", "id"], 126, "unable to find user nobodyknows"),
    ],
)
def test_an_exec_that_cannot_run_says_why(narud: Daemon, command: list[str], code: int, said: str) -> None:
    narud("run", "--detach", "--name", "box", "busybox", "sleep", "100")
    options = command[:2] if command[0].startswith("--") else []
    done = narud.docker("exec", *options, "box", *command[len(options) :])
    assert (done.code, said in done.err + done.out) == (code, True), done


def test_exec_reads_piped_input_and_half_closes(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "box", "busybox", "sleep", "100")
    data = b"0123456789abcdef" * 1_000_000
    assert narud("exec", "-i", "box", "sh", "-c", "wc -c; echo end", stdin=data) == f"{len(data)}\nend"


def test_exec_on_a_terminal(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "box", "busybox", "sleep", "100")
    terminal = narud.terminal("exec", "-it", "box", "sh", rows=31, columns=99)
    terminal.expect("# ")
    terminal.send("tty; stty size; exit 5\n")
    terminal.expect("/dev/pts/")
    terminal.expect("31 99")
    assert terminal.end() == 5


def test_logs_of_both_streams_by_tail_time_and_stamp(narud: Daemon) -> None:
    narud("run", "--name", "box", "busybox", "sh", "-c", "seq 1 5; echo six >&2; sleep 1.1; printf seven", timeout_s=20)
    done = narud.docker("logs", "box")
    assert (done.out, done.err) == ("1\n2\n3\n4\n5\nseven", "six\n")
    assert narud("logs", "--tail", "1", "box") == "seven"
    assert narud("logs", "--tail", "0", "box") == ""
    stamped = narud.docker("logs", "--timestamps", "box").out.splitlines()
    assert [line.split(" ", 1)[1] for line in stamped] == ["1", "2", "3", "4", "5", "seven"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", line) for line in stamped)
    assert narud("logs", "--since", stamped[-1].split()[0], "box") == "seven"
    assert narud("logs", "--until", stamped[0].split()[0], "box").splitlines()[0] == "1"
    assert narud("logs", "--since", "1h", "--tail", "2", "box") == "seven"


def test_followed_logs_come_as_they_are_written_and_end_with_the_container(narud: Daemon) -> None:
    run_until_ready(narud, "box")
    following = narud.popen("logs", "--follow", "box")
    assert following.stdout is not None
    assert following.stdout.readline() == b"ready\n"
    narud("exec", "box", "sh", "-c", "echo from-exec >/proc/1/fd/1")
    assert following.stdout.readline() == b"from-exec\n"
    narud("stop", "box")
    assert following.stdout.read() == b"ended\n"
    assert following.wait(10) == 0


def test_attach_sees_output_from_now_on_and_the_exit_code(narud: Daemon) -> None:
    script = "echo early; read line; echo got-$line; exit 3"
    narud("run", "--detach", "-i", "--name", "box", "busybox", "sh", "-c", script)
    wait_until(lambda: narud("logs", "box") == "early")
    attached = narud.popen("attach", "box")
    assert attached.stdin is not None
    assert attached.stdout is not None
    attached.stdin.write(b"it\n")
    assert attached.stdout.read() == b"got-it\n"
    assert attached.wait(10) == 3


def test_detach_keys_leave_it_running(narud: Daemon) -> None:
    narud("run", "-dit", "--name", "box", "busybox", "sh")
    first = narud.terminal("attach", "box")
    wait_until(lambda: first.send("\n") or first.sees("# "))
    first.send("\x10\x11")
    first.expect("read escape sequence")
    assert first.end() == 1
    second = narud.terminal("attach", "--detach-keys", "ctrl-a,x", "box")
    wait_until(lambda: second.send("\n") or second.sees("# "))
    second.send("\x01x")
    second.expect("read escape sequence")
    assert second.end() == 1
    assert status(narud, "box") == "running"


def test_start_attached_with_input(narud: Daemon) -> None:
    narud("create", "-i", "--name", "box", "busybox", "cat")
    assert narud("start", "--attach", "--interactive", "box", stdin=b"through\n") == "through"


def test_top_and_stats_show_what_runs(narud: Daemon) -> None:
    narud("run", "--detach", "--name", "box", "--memory", "64m", "busybox", "sleep", "1000")
    assert re.search(r"^root +\d+ .*sleep 1000$", narud("top", "box"), re.MULTILINE)
    assert narud("top", "box", "-o", "pid,comm").splitlines()[1].split()[1] == "sleep"
    form = "{{.Name}} {{.PIDs}} {{.MemUsage}} {{.NetIO}}"
    name, pids, used, _, limit, *network = narud("stats", "--no-stream", "--format", form, "box").split()
    assert (name, pids, limit) == ("box", "1", "64MiB")
    assert used != "0B"
    assert len(network) == 3


def test_diff_names_what_changed(narud: Daemon) -> None:
    narud("run", "--name", "box", "busybox", "sh", "-c", "echo x >/new; rm /etc/group; touch /root/.x")
    assert sorted(narud("diff", "box").splitlines()) == ["A /new", "A /root/.x", "C /etc", "C /root", "D /etc/group"]


def test_events_tell_a_containers_story(narud: Daemon) -> None:
    since = f"{time.time():.9f}"
    narud.docker("run", "--rm", "--name", "box", "--label", "a=b", "busybox", "sh", "-c", "exit 2")
    until = f"{time.time():.9f}"
    form = "{{.Type}} {{.Action}}"
    told = narud("events", "--since", since, "--until", until, "--format", form).splitlines()
    story = [line for line in told if line.startswith("container")]
    assert story == [f"container {action}" for action in ("create", "attach", "start", "die", "destroy")]
    assert [line for line in told if line.startswith("network")] == ["network connect", "network disconnect"]
    chosen = ["--filter", "event=die", "--filter", "container=box", "--format", "{{json .Actor.Attributes}}"]
    died = json.loads(narud("events", "--since", since, "--until", until, *chosen))
    assert (died["exitCode"], died["name"], died["image"], died["a"]) == ("2", "box", "busybox", "b")


def test_events_are_told_while_they_happen(narud: Daemon) -> None:
    watching = narud.popen("events", "--filter", "type=container", "--format", "{{.Action}}")
    assert watching.stdout is not None
    wait_until(lambda: narud("create", "busybox") and select.select([watching.stdout], [], [], 0.05)[0])
    assert watching.stdout.readline() == b"create\n"


def test_prune_removes_only_what_has_stopped(narud: Daemon) -> None:
    narud("run", "--name", "gone", "busybox")
    narud("run", "--detach", "--name", "up", "busybox", "sleep", "100")
    narud("container", "prune", "--force")
    assert narud("ps", "--all", "--format", "{{.Names}}") == "up"


def test_log_options_put_labels_variables_and_a_tag_into_every_line(narud: Daemon) -> None:
    options = ["--log-opt", "labels=team", "--log-opt", "env-regex=^AP", "--log-opt", "tag={{.Name}}/{{.ID}}"]
    narud("run", "--name", "box", "-l", "team=red", "-l", "other=x", "-e", "APP=web", *options, "busybox", "echo", "hi")
    short = narud("inspect", "--format", "{{.Id}}", "box")[:12]
    assert narud("logs", "--details", "box") == f"APP=web,tag=box%2F{short},team=red hi"
