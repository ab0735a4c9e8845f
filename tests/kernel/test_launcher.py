"""The launcher: what it imports, what it weighs, when it ends; and what an idle shim weighs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shim_box import Narud, wait_for

from naru import launcher
from naru.shim import record

# Heavy, threaded, or a sign that something of the daemon slipped down.
FORBIDDEN = {
    *("aiohttp", "asyncio", "concurrent", "email", "http", "json", "logging", "multiprocessing", "queue"),
    *("rich", "shutil", "socketserver", "sqlite3", "ssl", "subprocess", "tarfile", "threading"),
    *("naru.engine", "naru.server", "naru.image", "naru.network", "naru.task", "naru.persist.database"),
}

IMPORTS = """
import sys
from naru.launcher.main import spawn
from naru.shim import birth, main
print("\\n".join(sys.modules))
"""

# A narud of its own, because pytest's memory is not narud's; it prints the launcher's pid and waits to be closed.
SPAWN = """
from naru.launcher.main import spawn
pid, requests = spawn()
print(pid, flush=True)
input()
"""


def test_the_launcher_imports_nothing_that_is_heavy_or_threaded() -> None:
    listed = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True)
    assert FORBIDDEN.isdisjoint(listed.stdout.split())


def memory(pid: int, field: str) -> int:
    """Return a field of smaps_rollup in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise AssertionError(field)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_launcher_stays_small_and_single_threaded_and_ends_with_narud() -> None:
    narud = subprocess.Popen([sys.executable, "-c", SPAWN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert narud.stdin and narud.stdout
    pid = int(narud.stdout.readline())
    ticks = record.start_ticks(pid)
    spare = wait_for(lambda: children(pid))[0]
    creator = wait_for(lambda: children(spare))[0]
    assert memory(pid, "Rss") <= 20 << 10
    assert os.listdir(f"/proc/{pid}/task") == [str(pid)]
    living = [(each, record.start_ticks(each)) for each in (pid, spare, creator)]
    narud.stdin.close()
    narud.wait()
    wait_for(lambda: not any(record.is_alive(*each) for each in living))
    assert ticks


def test_a_spare_that_is_killed_is_replaced() -> None:
    pid, requests = launcher.spawn()
    spare = wait_for(lambda: children(pid))[0]
    creator = wait_for(lambda: children(spare))[0]
    os.kill(creator, 9)
    wait_for(lambda: [child for child in children(pid) if child != spare])
    requests.close()
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.root
def test_an_idle_shim_has_little_memory_of_its_own(busybox_root: Path, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    tmp_path.chmod(0o755)
    script = subprocess.Popen(
        [sys.executable, __file__, str(busybox_root), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert script.stdout
    output, _ = script.communicate(b"\n", timeout=30)
    dirty_kib = json.loads(output)
    assert dirty_kib <= 2.5 * 1024


def _narud_of_its_own(root: str, directory: str) -> None:
    """Start a container from a small process and print what its shim, idle, has of its own, in KiB."""
    _, requests = launcher.spawn()
    narud = Narud(requests, Path(root), Path(directory))
    task = narud.start("sleep", "1000")
    birth = record.read_birth(f"{narud.run_dir}/{task.container_id}")
    assert birth is not None
    creator_is_gone = time.monotonic() + 5
    while len(children(birth.pid)) > 1 and time.monotonic() < creator_is_gone:
        time.sleep(0.01)
    print(memory(birth.pid, "Private_Dirty"))
    narud.close()


if __name__ == "__main__":
    _narud_of_its_own(*sys.argv[1:])
