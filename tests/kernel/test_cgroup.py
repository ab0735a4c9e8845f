"""One suite for every cgroup version: on this host with the one it has, in test_cgroup_v2_guest with version 2."""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from naru.errors import Conflict, InvalidArgument, NotFound
from naru.oci.runtime import CPU, DeviceRule, Memory, Pids, Resources
from naru.runtime.cgroup import Cgroup, create_cgroup, open_cgroup, stale

pytestmark = pytest.mark.root

DEADLINE_S = 10.0
MIB = 1 << 20
PARENT = f"/naru-test-{os.getpid()}"
KMSG = os.makedev(1, 11)  # a device that nobody gets by default


@pytest.fixture
def path() -> Iterator[str]:
    yield f"{PARENT}/container"
    open_cgroup(PARENT).remove(kill=True)


def spawn(cgroup: Cgroup, action: Callable[[], int | None]) -> int:
    """Fork a child that joins `cgroup`, does `action` and exits with what it returns; return when it has joined."""
    joined, join = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            cgroup.join(0)
            os.close(join)
            status = action() or 0
        except OSError as error:
            status = error.errno or 98
        finally:
            os._exit(status)
    os.close(join)
    os.read(joined, 1)
    os.close(joined)
    return pid


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the awaited state did not come"
        time.sleep(0.002)


def pause() -> None:
    while True:
        signal.pause()


def use_memory(size_bytes: int) -> None:
    block = mmap.mmap(-1, size_bytes)
    for offset in range(0, size_bytes, mmap.PAGESIZE):
        block[offset] = 1


def burn() -> None:
    while True:
        pass


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_joined_process_and_its_children_are_inside(path: str) -> None:
    cgroup = create_cgroup(path, Resources())

    def fork_and_pause() -> None:
        os.fork()
        pause()

    pid = spawn(cgroup, fork_and_pause)

    until(lambda: len(cgroup.processes()) == 2)
    assert pid in cgroup.processes()
    cgroup.kill_all()
    assert cgroup.processes() == []
    assert exit_code(pid) == -signal.SIGKILL


def test_too_much_memory_is_a_kill_that_is_counted_and_announced(path: str) -> None:
    cgroup = create_cgroup(path, Resources(memory=Memory(limit=32 * MIB)))
    announced = cgroup.oom_fd()

    pid = spawn(cgroup, lambda: use_memory(256 * MIB))

    readable, _, _ = select.select([announced], [], [], DEADLINE_S)
    assert readable == [announced]
    assert exit_code(pid) == -signal.SIGKILL
    os.read(announced, 4096)
    os.close(announced)
    assert cgroup.oom_kills() == 1
    assert cgroup.stats().memory.limit_bytes == 32 * MIB


def test_the_pids_limit_makes_fork_fail(path: str) -> None:
    cgroup = create_cgroup(path, Resources(pids=Pids(limit=1)))

    pid = spawn(cgroup, lambda: os.fork() and 0)

    assert exit_code(pid) == errno.EAGAIN
    assert cgroup.stats().pids.limit == 1
    cgroup.update(Resources(pids=Pids(limit=-1)))
    assert cgroup.stats().pids.limit is None


def test_the_cpu_quota_throttles(path: str) -> None:
    cgroup = create_cgroup(path, Resources(cpu=CPU(quota=5_000, period=50_000, shares=256)))

    pid = spawn(cgroup, burn)

    until(lambda: cgroup.stats().cpu.throttled_periods > 1)
    stats = cgroup.stats().cpu
    assert stats.usage_ns > 0
    assert stats.throttled_ns > 0
    kill(pid)


def test_the_cpu_set_confines(path: str) -> None:
    cgroup = create_cgroup(path, Resources(cpu=CPU(cpus="0", mems="0")))

    pid = spawn(cgroup, lambda: 7 if os.sched_getaffinity(0) == {0} else 1)

    assert exit_code(pid) == 7


def test_devices_are_refused_unless_a_rule_allows_them_and_rules_can_change(path: str, tmp_path: Path) -> None:
    node = tmp_path / "kmsg"
    os.mknod(node, stat.S_IFCHR | 0o600, KMSG)
    cgroup = create_cgroup(path, Resources())

    def open_both(flags: int) -> Callable[[], None]:
        def action() -> None:
            os.open("/dev/null", os.O_RDWR)
            os.open(node, flags)

        return action

    refused = exit_code(spawn(cgroup, open_both(os.O_WRONLY)))
    cgroup.update(Resources(devices=[DeviceRule(allow=True, type="c", major=1, minor=11, access="w")]))
    writable = exit_code(spawn(cgroup, open_both(os.O_WRONLY)))
    readable = exit_code(spawn(cgroup, open_both(os.O_RDONLY)))
    cgroup.update(Resources(devices=[DeviceRule(allow=False)]))
    refused_again = exit_code(spawn(cgroup, open_both(os.O_WRONLY)))

    assert (refused, writable, readable, refused_again) == (errno.EPERM, 0, errno.EPERM, errno.EPERM)


def test_every_device_but_one_can_be_allowed(path: str, tmp_path: Path) -> None:
    node = tmp_path / "kmsg"
    os.mknod(node, stat.S_IFCHR | 0o600, KMSG)
    everything = DeviceRule(allow=True, type="a")
    cgroup = create_cgroup(path, Resources(devices=[everything]))

    def open_it() -> None:
        os.open(node, os.O_WRONLY)

    allowed = exit_code(spawn(cgroup, open_it))
    cgroup.update(Resources(devices=[everything, DeviceRule(allow=False, type="c", major=1, minor=11)]))
    refused = exit_code(spawn(cgroup, open_it))

    assert (allowed, refused) == (0, errno.EPERM)


def test_a_frozen_process_stands_still_until_it_is_thawed(path: str) -> None:
    cgroup = create_cgroup(path, Resources())
    counter = mmap.mmap(-1, 8)

    def count() -> None:
        while True:
            counter[:] = (int.from_bytes(counter, "little") + 1).to_bytes(8, "little")

    pid = spawn(cgroup, count)
    until(lambda: any(counter))
    cgroup.freeze()
    seen = counter[:]
    subprocess.run(["/bin/true"], check=True)

    assert cgroup.is_frozen()
    assert counter[:] == seen
    cgroup.thaw()
    assert not cgroup.is_frozen()
    until(lambda: counter[:] != seen)
    kill(pid)


def test_a_frozen_fork_bomb_is_killed(path: str) -> None:
    cgroup = create_cgroup(path, Resources(pids=Pids(limit=30)))

    def bomb() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            try:
                os.fork()
            except BlockingIOError:
                pass

    pid = spawn(cgroup, bomb)
    until(lambda: len(cgroup.processes()) == 30)
    cgroup.freeze()
    cgroup.kill_all()

    assert cgroup.processes() == []
    assert exit_code(pid) == -signal.SIGKILL
    cgroup.remove()


def test_other_signals_reach_every_process(path: str) -> None:
    cgroup = create_cgroup(path, Resources())
    pids = [spawn(cgroup, pause), spawn(cgroup, pause)]
    until(lambda: sorted(cgroup.processes()) == sorted(pids))

    cgroup.kill_all(signal.SIGTERM)

    assert [exit_code(pid) for pid in pids] == [-signal.SIGTERM] * 2


def test_memory_limits_move_up_and_down_together_with_swap(path: str) -> None:
    cgroup = create_cgroup(path, Resources(memory=Memory(limit=32 * MIB, swap=32 * MIB)))

    def limits() -> int | None:
        return cgroup.stats().memory.limit_bytes

    cgroup.update(Resources(memory=Memory(limit=128 * MIB, swap=256 * MIB)))
    assert limits() == 128 * MIB
    cgroup.update(Resources(memory=Memory(limit=16 * MIB, swap=16 * MIB)))
    assert limits() == 16 * MIB
    cgroup.update(Resources(memory=Memory(limit=-1, swap=-1)))
    assert limits() is None


def test_a_limit_below_what_is_in_use_is_a_conflict(path: str) -> None:
    cgroup = create_cgroup(path, Resources(memory=Memory(limit=64 * MIB, swap=64 * MIB)))

    def hold() -> None:
        block = mmap.mmap(-1, 32 * MIB)
        for offset in range(0, len(block), mmap.PAGESIZE):
            block[offset] = 1
        pause()

    pid = spawn(cgroup, hold)
    until(lambda: cgroup.stats().memory.usage_bytes >= 32 * MIB)

    with pytest.raises(Conflict, match="memory limit"):
        cgroup.update(Resources(memory=Memory(limit=8 * MIB, check_before_update=True)))
    kill(pid)


def test_a_refused_limit_leaves_nothing(path: str) -> None:
    with pytest.raises(InvalidArgument, match="CPU set 999"):
        create_cgroup(path, Resources(cpu=CPU(cpus="999")))

    assert not open_cgroup(path).exists
    assert stale(PARENT) == []


def test_a_left_over_tree_is_found_killed_and_removed(path: str) -> None:
    cgroup = create_cgroup(path, Resources())
    inner = create_cgroup(f"{path}/made/inside", Resources())
    pid = spawn(inner, pause)
    until(lambda: cgroup.processes() == [pid])

    # As after a restart: nothing is known but the parent.
    assert stale(PARENT) == [path]
    with pytest.raises(Conflict, match=f"still in use .processes: {pid}"):
        open_cgroup(path).remove(timeout_s=0.01)
    open_cgroup(path).remove(kill=True)

    assert stale(PARENT) == []
    assert exit_code(pid) == -signal.SIGKILL


def test_an_out_of_memory_kill_in_an_inner_cgroup_counts(path: str) -> None:
    cgroup = create_cgroup(path, Resources(memory=Memory(limit=64 * MIB)))
    inner = create_cgroup(f"{path}/inner", Resources(memory=Memory(limit=16 * MIB)))

    exit_code(spawn(inner, lambda: use_memory(128 * MIB)))

    assert cgroup.oom_kills() == 1


def test_a_cgroup_that_is_gone_has_nothing_and_needs_no_removal(path: str) -> None:
    cgroup = open_cgroup(path)

    cgroup.remove()
    assert cgroup.processes() == []
    assert cgroup.oom_kills() == 0
    assert not cgroup.is_frozen()
    with pytest.raises(NotFound, match=path):
        cgroup.stats()


@pytest.mark.parametrize("bad", ["", "/", "/..", "/naru/../x", "../x", "/naru/"])
def test_a_path_that_is_not_plainly_below_the_top_is_refused(bad: str) -> None:
    with pytest.raises(InvalidArgument, match="not a plain path"):
        open_cgroup(bad)
