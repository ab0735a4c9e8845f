"""Making processes with namespaces, and overlays, by the kernel's own calls."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from naru.kernel import overlay, process

pytestmark = pytest.mark.root

BUDGET_KIB = 20 * 1024


@pytest.fixture(autouse=True)
def _root():
    if os.geteuid():
        pytest.skip("needs root")


def spawn_and_report() -> tuple[int, list[str]]:
    read, write = os.pipe()
    pid, pidfd = process.spawn(process.CLONE_NEWPID | process.CLONE_NEWUTS)
    if pid == 0:
        os.write(write, f"{os.getpid()} {os.getppid()} {threading.get_native_id()}".encode())
        os._exit(7)
    os.close(write)
    words = os.read(read, 100).decode().split()
    os.close(read)
    os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), words


def test_a_spawned_child_is_pid_1_of_its_namespace_and_knows_its_thread_id():
    assert spawn_and_report() == (7, ["1", "0", "1"])


def test_a_process_with_threads_spawns_a_child_of_its_own_all_the_same():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert not process.is_single_threaded()
        assert spawn_and_report() == (7, ["1", "0", "1"])
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("make", [overlay.overlay, overlay.overlay_by_options])
def test_an_overlay_is_a_detached_mount_of_its_layers_in_order(tmp_path, make):
    for name in ("1", "2", "up", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "1/both").write_text("lower")
    (tmp_path / "2/both").write_text("upper")
    (tmp_path / "1/one").touch()
    mounts = Path("/proc/self/mountinfo").read_text()

    tree = make(["2", "1"], "up", "work", base=str(tmp_path))

    assert sorted(os.listdir(f"/proc/self/fd/{tree}")) == ["both", "one"]
    assert Path(f"/proc/self/fd/{tree}/both").read_text() == "upper"
    Path(f"/proc/self/fd/{tree}/new").touch()
    os.close(tree)
    assert os.listdir(tmp_path / "up") == ["new"]
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_an_overlay_without_upper_is_read_only_also_with_one_layer_or_a_long_path(tmp_path):
    base = tmp_path / ("x" * 200) / ("y" * 100)
    (base / "1").mkdir(parents=True)
    (base / "2").mkdir()

    trees = [overlay.overlay(lower, None, None, base=str(base)) for lower in (["1"], ["1", "2"])]

    assert all(os.fstatvfs(tree).f_flag & os.ST_RDONLY for tree in trees)
    for tree in trees:
        os.close(tree)


def test_the_runtime_fits_in_the_launchers_budget():
    program = (
        "import naru.runtime.create, naru.runtime.exec, sys\n"
        "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmRSS')))\n"
        "print(*sorted({'asyncio', 'json', 'logging', 'subprocess', 'threading', 'argparse'} & set(sys.modules)))"
    )

    printed = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.splitlines()

    assert int(printed[0]) < BUDGET_KIB
    assert printed[1:] == [""]
