"""Merging equal memory: only for a while, only ours, and what is changed is put back."""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from naru.daemon.merging import Merging, others_offer_pages
from naru.kernel import ksm, prctl
from naru.kernel.memory import allow_merging

pytestmark = pytest.mark.root

PAGES = 256


@pytest.fixture(autouse=True)
def resting() -> Iterator[None]:
    """KSM is here, off, and nobody's."""
    try:
        is_off = ksm.read_knob("run") == 0
    except OSError:
        pytest.skip("needs a kernel with KSM")
    if ksm.has_mergeable_pages(os.getpid()) is None:
        pytest.skip("needs a kernel that tells who offers memory for merging (6.16)")
    if not is_off or others_offer_pages():
        pytest.skip("needs a machine that leaves KSM alone")
    yield
    assert ksm.read_knob("run") == 0


@pytest.fixture
def forked() -> Iterator[Callable[[str], int]]:
    """Make processes of a name that have the same pages, each its own copy, and offer them; ended afterwards."""
    started: list[int] = []

    def fork(name: str) -> int:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            prctl.set_name(name)
            memory = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for number in range(PAGES):
                memory[number * mmap.PAGESIZE : number * mmap.PAGESIZE + 16] = b"%16d" % number
            allow_merging()
            os.write(writer, b"x")
            signal.pause()
            os._exit(0)
        started.append(pid)
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        return pid

    yield fork
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def merged_pages(pid: int) -> int:
    lines = Path(f"/proc/{pid}/ksm_stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("ksm_merging_pages"))


def test_equal_pages_of_shims_are_merged_and_the_settings_put_back(
    forked: Callable[[str], int], tmp_path: Path
) -> None:
    before = {name: ksm.read_knob(name) for name in ("run", "pages_to_scan", "sleep_millisecs")}
    shims = [forked("naru-shim"), forked("naru-shim")]

    assert Merging(tmp_path / "ksm.json").run()

    assert [pid for pid in shims if merged_pages(pid) < PAGES] == []
    assert {name: ksm.read_knob(name) for name in before} == before
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_switched_while_somebody_else_offers_memory(forked: Callable[[str], int], tmp_path: Path) -> None:
    shim, _other = forked("naru-shim"), forked("qemu")

    assert not Merging(tmp_path / "ksm.json").run()

    assert merged_pages(shim) == 0


def test_what_a_killed_daemon_left_switched_on_is_put_back(tmp_path: Path) -> None:
    note = tmp_path / "ksm.json"
    scans = ksm.read_knob("pages_to_scan")
    note.write_bytes(msgspec.json.encode({"run": 0, "pages_to_scan": scans}))
    ksm.write_knob("pages_to_scan", scans + 1)
    ksm.write_knob("run", 1)

    Merging(note).recover()

    assert (ksm.read_knob("run"), ksm.read_knob("pages_to_scan")) == (0, scans)
    assert not note.exists()
