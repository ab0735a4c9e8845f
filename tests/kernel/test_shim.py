"""Containers under real shims: output, input, ends, execs, and narud's absence."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_box import Client, Narud, ended, wait_for

from naru import launcher
from naru.errors import CannotStart, Conflict
from naru.oci.runtime import Memory, Process, Resources
from naru.runtime.cgroup import open_cgroup
from naru.shim import protocol, record
from naru.task import AttachClosed, ExecExited, ExecRequest, Exited, ExitRecord, OomKilled, Task

pytestmark = pytest.mark.root

SLEEP = ("sleep", "1000")


@pytest.fixture(scope="module")
def launched() -> Iterator[socket.socket]:
    pid, requests = launcher.spawn()
    yield requests
    requests.close()
    os.waitpid(pid, 0)


@pytest.fixture
def narud(launched: socket.socket, busybox_root: Path, tmp_path: Path) -> Iterator[Narud]:
    if os.geteuid():
        pytest.skip("needs root")
    tmp_path.chmod(0o755)
    made = Narud(launched, busybox_root, tmp_path)
    yield made
    made.close()


def logged(bundle: Path) -> list[tuple[str, str]]:
    lines = (bundle / "json.log").read_text().splitlines()
    return [(record["stream"], record["log"]) for record in map(json.loads, lines)]


def shim_of(narud: Narud, task: Task) -> int:
    birth = record.read_birth(f"{narud.run_dir}/{task.container_id}")
    assert birth is not None
    # The start is answered a moment before the container is handed over to it.
    command_line = Path(f"/proc/{birth.pid}/cmdline")
    wait_for(lambda: command_line.read_bytes().startswith(b"naru-shim"))
    return birth.pid


def exec_request(exec_id: str, *args: str, terminal: bool = False) -> ExecRequest:
    return ExecRequest(exec_id=exec_id, process=Process(args=list(args), env=["PATH=/bin"]), terminal=terminal)


# --- output and end


def test_output_is_logged_by_stream_and_the_exit_code_is_told(narud: Narud) -> None:
    exited, bundle = narud.run("sh", "-c", "echo out; echo err >&2; printf unfinished; exit 3")
    assert (exited.exit_code, exited.signal, exited.oom_killed, exited.reason) == (3, 0, False, "")
    assert sorted(logged(bundle)) == [("stderr", "err\n"), ("stdout", "out\n"), ("stdout", "unfinished")]
    assert narud.events == [exited]


def test_a_container_that_is_over_leaves_a_record_until_it_is_deleted(narud: Narud) -> None:
    task = narud.start("true")
    exited = ended(task)
    directory = f"{narud.run_dir}/{task.container_id}"
    assert record.read_exit(directory) == ExitRecord(exited)
    assert not open_cgroup(f"/naru/{task.container_id}").exists
    shim = shim_of(narud, task)
    ticks = record.start_ticks(shim)
    task.delete()
    assert narud.tasks.found() == []
    wait_for(lambda: not record.is_alive(shim, ticks))


def test_a_program_that_does_not_exist_is_127_and_nothing_is_left(narud: Narud) -> None:
    request = narud.request("no-such-program")
    with pytest.raises(CannotStart, match='exec: "no-such-program": executable file not found in \\$PATH') as caught:
        narud.tasks.start(request, on_event=narud.events.append)
    assert caught.value.exit_code == 127
    assert narud.tasks.found() == []
    assert not open_cgroup(f"/naru/{request.container_id}").exists
    assert narud.events == []


def test_a_client_that_was_to_be_attached_can_still_be_told_why_nothing_started(narud: Narud) -> None:
    client = Client()
    with pytest.raises(CannotStart):
        narud.start("no-such-program", attach=(client.attachment,))
    client.theirs.sendall(b"sorry")
    assert client.socket.recv(100) == b"sorry"


def test_a_killed_container_is_137(narud: Narud) -> None:
    task = narud.start(*SLEEP)
    task.kill(9)
    exited = ended(task)
    assert (exited.exit_code, exited.signal) == (137, 9)
    with pytest.raises(Conflict):
        task.kill(9)


def test_running_out_of_memory_is_told_and_recorded(narud: Narud) -> None:
    resources = Resources(memory=Memory(limit=16 << 20, swap=16 << 20))
    exited, _ = narud.run("sh", "-c", "tail -c 100000000 /dev/zero | tail > /dev/null", resources=resources)
    assert exited.oom_killed
    assert narud.heard(OomKilled)


def test_the_program_starts_with_default_signals_and_no_descriptors_but_its_own(narud: Narud) -> None:
    script = "grep -E 'Sig(Ign|Blk)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; cat /proc/self/oom_score_adj"
    _, bundle = narud.run("sh", "-c", script)
    text = "".join(line for _, line in logged(bundle))
    assert text.split() == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16, "0", "1", "2", "3", "0"]


def test_a_user_without_privileges_can_open_dev_stdout(narud: Narud) -> None:
    process = Process(args=["sh", "-c", "echo hi > /dev/stdout; echo ho > /dev/stderr"], env=["PATH=/bin"])
    process.user.username = "app"
    _, bundle = narud.run(*process.args, process={"user": process.user})
    assert sorted(logged(bundle)) == [("stderr", "ho\n"), ("stdout", "hi\n")]


def test_a_spec_larger_than_a_packet_is_no_trouble(narud: Narud) -> None:
    environment = ["PATH=/bin", *(f"V{number}={'x' * 1000}" for number in range(300))]
    _, bundle = narud.run("sh", "-c", "echo ${#V299}", process={"env": environment})
    assert logged(bundle) == [("stdout", "1000\n")]


# --- attached clients


def test_an_attached_client_gets_frames_of_both_streams_and_then_the_end(narud: Narud) -> None:
    client = Client(attach_id="a")
    task = narud.start("sh", "-c", "echo out; echo err >&2", attach=(client.attachment,))
    assert client.frames() == {1: b"out\n", 2: b"err\n"}
    exited = ended(task)
    assert narud.events == [AttachClosed(task.container_id, "", "a", detached=False), exited]


def test_a_client_of_one_stream_gets_only_that(narud: Narud) -> None:
    client = Client(stdout=False)
    narud.start("sh", "-c", "echo out; echo err >&2", attach=(client.attachment,))
    assert client.frames() == {2: b"err\n"}


def test_what_a_client_typed_before_it_was_handed_over_comes_first(narud: Narud) -> None:
    client = Client(stdin=True, multiplexed=False, prefix=b"one\n")
    narud.start("cat", open_stdin=True, stdin_once=True, attach=(client.attachment,))
    client.socket.sendall(b"two\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.read_to_end() == b"one\ntwo\n"


def test_half_closing_ends_the_input_of_a_container_that_reads_once(narud: Narud) -> None:
    client = Client(stdin=True, multiplexed=False)
    task = narud.start("cat", open_stdin=True, stdin_once=True, attach=(client.attachment,))
    data = os.urandom(3_000_000)
    sender = threading.Thread(target=lambda: (client.socket.sendall(data), client.socket.shutdown(socket.SHUT_WR)))
    sender.start()
    assert client.read_to_end() == data
    sender.join()
    assert ended(task).exit_code == 0


def test_a_client_that_leaves_does_not_end_a_container_that_keeps_its_input_open(narud: Narud) -> None:
    client = Client(stdin=True, multiplexed=False, attach_id="first")
    task = narud.start("cat", open_stdin=True, attach=(client.attachment,))
    client.handed_over()
    client.socket.sendall(b"one\n")
    client.read_until(b"one\n")
    client.socket.close()
    wait_for(lambda: narud.heard(AttachClosed))
    second = Client(stdin=True, multiplexed=False)
    task.attach(*second.attachment)
    second.socket.sendall(b"two\n")
    assert second.read_until(b"two\n") == b"two\n"
    assert task.exited is None


def test_a_client_that_does_not_read_holds_the_container_up_and_loses_nothing(narud: Narud) -> None:
    client = Client(multiplexed=False)
    task = narud.start("sh", "-c", "yes | head -c 8000000; echo end >&2", attach=(client.attachment,))
    client.handed_over()
    process = Path(f"/proc/{task.pid}/task/{task.pid}/children")
    wait_for(lambda: any("pipe_write" in wchan(child) for child in process.read_text().split()))
    assert client.read_to_end() == b"y\n" * 4_000_000 + b"end\n"
    assert ended(task).exit_code == 0


def wchan(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/wchan").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_client_that_vanishes_without_reading_does_not(narud: Narud) -> None:
    client = Client(multiplexed=False)
    task = narud.start("sh", "-c", "yes | head -c 8000000; echo end", attach=(client.attachment,))
    client.handed_over()
    client.socket.recv(10)
    client.socket.close()
    assert ended(task).exit_code == 0


def test_output_that_a_slow_client_has_not_read_at_the_end_is_still_delivered(narud: Narud) -> None:
    client = Client(multiplexed=False)
    task = narud.start("sh", "-c", "yes | head -c 700000", attach=(client.attachment,))
    client.handed_over()
    assert ended(task).exit_code == 0
    task.delete()
    assert client.read_to_end() == b"y\n" * 350_000


def test_clients_survive_narud(narud: Narud) -> None:
    client = Client(stdin=True, multiplexed=False)
    narud.start("cat", open_stdin=True, stdin_once=True, attach=(client.attachment,))
    client.handed_over()
    narud.restart()
    client.socket.sendall(b"still here\n")
    assert client.read_until(b"here\n") == b"still here\n"
    client.socket.shutdown(socket.SHUT_WR)
    assert client.read_to_end() == b""


# --- terminals


def test_a_terminal_is_raw_has_a_size_and_can_be_resized(narud: Narud) -> None:
    client = Client(stdin=True, multiplexed=False)
    size = protocol.ConsoleSize(width=101, height=31)
    script = "stty -echo; stty size; read x; stty size"
    task = narud.start(
        "sh", "-c", script, terminal=True, console_size=size, open_stdin=True, attach=(client.attachment,)
    )
    assert client.read_until(b"\n") == b"31 101\r\n"
    task.resize(80, 24)
    client.socket.sendall(b"go\n")
    assert client.read_to_end() == b"24 80\r\n"
    assert ended(task).exit_code == 0


def test_detach_keys_let_a_client_go_and_the_container_stay(narud: Narud) -> None:
    client = Client(stdin=True, multiplexed=False, detach_keys=b"\x10\x11", attach_id="a")
    task = narud.start("cat", terminal=True, open_stdin=True, attach=(client.attachment,))
    client.socket.sendall(b"typed\x10")
    client.read_until(b"typed")
    client.socket.sendall(b"\x11")
    client.read_to_end()
    wait_for(lambda: narud.events == [AttachClosed(task.container_id, "", "a", detached=True)])
    assert task.exited is None


# --- execs


def test_an_exec_has_its_own_streams_and_exit_code(narud: Narud) -> None:
    task = narud.start(*SLEEP)
    client = Client(stdin=True, attach_id="x")
    task.exec(exec_request("e1", "sh", "-c", "cat; echo err >&2; exit 7"), [client.attachment])
    client.socket.sendall(b"in\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.frames() == {1: b"in\n", 2: b"err\n"}
    wait_for(lambda: len(narud.events) == 2)
    assert narud.events == [
        AttachClosed(task.container_id, "e1", "x", detached=False),
        ExecExited(task.container_id, "e1", 7),
    ]
    assert task.exec_status("e1").exit_code == 7


def test_an_exec_of_no_program_is_127(narud: Narud) -> None:
    task = narud.start(*SLEEP)
    with pytest.raises(CannotStart) as caught:
        task.exec(exec_request("e1", "no-such-program"))
    assert caught.value.exit_code == 127
    assert task.exited is None


def test_an_exec_on_a_terminal_can_be_resized(narud: Narud) -> None:
    task = narud.start(*SLEEP)
    client = Client(stdin=True, multiplexed=False)
    task.exec(
        exec_request("e1", "sh", "-c", "stty -echo; echo ready; read x; stty size", terminal=True), [client.attachment]
    )
    client.read_until(b"ready\r\n")
    task.exec_resize("e1", 90, 20)
    client.socket.sendall(b"go\n")
    assert client.read_to_end() == b"20 90\r\n"


def test_a_child_that_an_exec_leaves_behind_does_not_hold_its_client_for_ever(narud: Narud) -> None:
    task = narud.start(*SLEEP)
    client = Client()
    task.exec(exec_request("e1", "sh", "-c", "(while sleep 0.1; do echo tick; done) & echo done"), [client.attachment])
    assert client.frames()[1].startswith(b"done\n")
    assert wait_for(lambda: narud.heard(ExecExited)) == [ExecExited(task.container_id, "e1", 0)]
    assert len(task.processes()) >= 2


def test_a_paused_container_refuses_execs_and_dies_when_killed(narud: Narud) -> None:
    task = narud.start(*SLEEP)
    task.pause()
    assert task.is_paused()
    with pytest.raises(Conflict, match="is paused"):
        task.exec(exec_request("e1", "true"))
    task.kill(9)
    assert ended(task).exit_code == 137


def test_a_resumed_container_goes_on(narud: Narud) -> None:
    task = narud.start(*SLEEP)
    task.pause()
    task.resume()
    assert not task.is_paused()
    task.exec(exec_request("e1", "true"))
    assert wait_for(lambda: narud.heard(ExecExited))[0].exit_code == 0


def test_limits_use_and_processes_can_be_asked_and_changed(narud: Narud) -> None:
    task = narud.start("sh", "-c", "sleep 1000 & sleep 1000; true")
    task.update(Resources(memory=Memory(limit=64 << 20)))
    stats = task.stats()
    assert stats.memory.limit_bytes == 64 << 20
    assert stats.memory.usage_bytes > 0
    wait_for(lambda: len(task.processes()) == 3)
    assert task.pid in task.processes()


# --- narud's absence


def test_a_container_goes_on_without_narud_and_is_found_again(narud: Narud) -> None:
    task = narud.start(*SLEEP)
    narud.restart()
    assert narud.tasks.found() == [task.container_id]
    found = narud.tasks.adopt(task.container_id, on_event=narud.events.append)
    assert isinstance(found, Task)
    assert (found.pid, found.started_at) == (task.pid, task.started_at)
    found.kill(15)
    found.kill(9)
    assert [ended(found)] == narud.heard(Exited)


def test_what_ended_while_narud_was_away_is_recorded_with_its_execs(narud: Narud) -> None:
    task = narud.start("sh", "-c", "while ! [ -e /tmp/go ]; do sleep 0.02; done; exit 5")
    task.exec(exec_request("e1", "sh", "-c", "exit 6"))
    wait_for(lambda: narud.heard(ExecExited))
    shim = shim_of(narud, task)
    ticks = record.start_ticks(shim)
    task.exec(exec_request("e2", "sh", "-c", "sleep 0.05; touch /tmp/go"))
    narud.restart()
    wait_for(lambda: not record.is_alive(shim, ticks))
    found = narud.tasks.adopt(task.container_id, on_event=narud.events.append)
    assert isinstance(found, ExitRecord)
    assert found.exited.exit_code == 5
    assert {status.exec_id: status.exit_code for status in found.execs} == {"e1": 6, "e2": 0}
    narud.tasks.remove(task.container_id)
    assert narud.tasks.found() == []


def test_a_container_whose_narud_died_before_the_answer_is_found(narud: Narud) -> None:
    request = narud.request(*SLEEP)
    narud.tasks.start(request, on_event=narud.events.append).kill(9)
    wait_for(lambda: narud.heard(Exited))
    narud.tasks.remove(request.container_id)
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    start = protocol.Start(
        container_id=request.container_id,
        run_dir=narud.run_dir,
        bundle=request.bundle,
        cgroup=f"/naru/{request.container_id}",
        overlay=request.overlay,
    )
    protocol.send(narud.launcher, start, [theirs.fileno()])
    theirs.close()
    control.close()
    found = wait_for(lambda: narud.tasks.adopt(request.container_id, on_event=narud.events.append))
    assert isinstance(found, Task)
    assert found.processes() == [found.pid]


def test_when_a_shim_is_killed_its_container_ends_too(narud: Narud) -> None:
    task = narud.start("sh", "-c", "sleep 1000 & sleep 1000; true")
    os.kill(shim_of(narud, task), 9)
    exited = ended(task)
    assert (exited.exit_code, exited.reason) == (137, "its shim died")
    assert not open_cgroup(f"/naru/{task.container_id}").exists


def test_a_container_whose_shim_was_killed_while_narud_was_away_has_ended(narud: Narud) -> None:
    task = narud.start(*SLEEP)
    narud.tasks.close()
    os.kill(shim_of(narud, task), 9)
    narud.restart()
    found = narud.tasks.adopt(task.container_id, on_event=narud.events.append)
    assert isinstance(found, ExitRecord)
    assert found.exited.exit_code == 137
    assert not open_cgroup(f"/naru/{task.container_id}").exists


def test_a_container_is_not_started_twice(narud: Narud) -> None:
    request = narud.request(*SLEEP)
    narud.tasks.start(request, on_event=narud.events.append)
    with pytest.raises(Conflict):
        narud.tasks.start(request, on_event=narud.events.append)


def test_the_given_network_namespace_is_joined(narud: Narud) -> None:
    holder = narud.start(*SLEEP)
    namespace = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY)
    request = narud.request(*SLEEP)
    task = narud.tasks.start(request, netns_fd=namespace, on_event=narud.events.append)
    assert os.stat(f"/proc/{task.pid}/ns/net").st_ino == os.fstat(namespace).st_ino
    os.close(namespace)


def test_many_containers_start_at_once(narud: Narud) -> None:
    requests = [narud.request("sh", "-c", f"exit {number}") for number in range(12)]
    codes: dict[int, int] = {}

    def run(number: int) -> None:
        codes[number] = ended(narud.tasks.start(requests[number], on_event=lambda event: None)).exit_code

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {number: number for number in range(12)}
