"""Processes added to a running container."""

from __future__ import annotations

import os

import pytest

from naru.errors import CannotStart, Conflict
from naru.oci.runtime import Process, User
from naru.runtime.exec import exec_process

pytestmark = pytest.mark.root


@pytest.fixture
def running(box):
    spec = box.spec("sleep", "100")
    return box.start(spec), spec


def test_an_exec_is_in_the_containers_namespaces_cgroup_and_confinement(box, running):
    container, spec = running

    result = box.exec(
        container,
        spec,
        "sh",
        "-c",
        "ps; hostname; cat /proc/self/cgroup; grep -E 'Cap(Eff|Bnd)|Seccomp:' /proc/$$/status",
    )

    assert "1 root     sleep 100" in result.output
    assert "\nbox\n" in result.output
    assert ":pids:/\n" in result.output or "0::/\n" in result.output
    assert "CapEff:\t00000000a80425fb" in result.output
    assert "Seccomp:\t2" in result.output


def test_an_exec_returns_its_status_and_takes_user_directory_and_environment(box, running):
    container, spec = running

    result = box.exec(
        container,
        spec,
        "sh",
        "-c",
        "id -un; pwd; echo $A; exit 5",
        user=User(username="app"),
        cwd="/tmp",
        env=["PATH=/bin", "A=b"],
    )

    assert (result.code, result.output) == (5, "app\n/tmp\nb\n")


def test_an_exec_has_only_standard_streams_open(box, running):
    container, spec = running

    assert len(box.exec(container, spec, "sh", "-c", "ls /proc/$$/fd; true").output.split()) == 3


def test_a_terminal_of_an_exec_is_in_the_containers_devpts(box, running):
    container, spec = running
    process = Process(args=["tty"], env=["PATH=/bin"], terminal=True, capabilities=spec.process.capabilities)

    executed = exec_process(process, target_pid=container.pid, spec=spec, cgroup=container.cgroup, stdio=None)
    output = os.read(executed.console, 100)
    os.waitpid(executed.pid, 0)
    os.close(executed.console)
    os.close(executed.pidfd)

    assert output == b"/dev/pts/0\r\n"


@pytest.mark.parametrize("directory", [f"/proc/self/fd/{number}" for number in (3, 4, 5, 6, 7, 8, 9, 10)])
def test_a_working_directory_through_a_descriptor_never_reaches_the_host(box, running, directory):
    container, spec = running

    with pytest.raises(CannotStart, match="chdir to cwd"):
        box.exec(container, spec, "pwd", cwd=directory)


def test_a_program_that_is_not_there_leaves_nothing_behind(box, running):
    container, spec = running
    descriptors = os.listdir("/proc/self/fd")

    with pytest.raises(CannotStart, match='exec: "nope": executable file not found in') as failure:
        box.exec(container, spec, "nope")

    assert failure.value.exit_code == 127
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)
    assert container.cgroup.processes() == [container.pid]


def test_the_callers_own_children_stay_out_of_the_containers_pid_namespace(box, running):
    container, spec = running
    box.exec(container, spec, "true")

    assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")


def test_an_exec_in_an_ended_container_is_a_conflict(box):
    spec = box.spec("true")
    container = box.start(spec)
    os.waitpid(container.pid, 0)

    with pytest.raises(Conflict):
        box.exec(container, spec, "true")
