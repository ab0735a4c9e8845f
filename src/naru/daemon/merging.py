"""Has the kernel share what shims have in common: 1.7 MB of a shim become 0.2.

A shim is a fork, and every object that it so much as refers to becomes a page of its own, because Python counts
references inside of objects. All shims do the same, so nearly all of those pages (371 of 391, measured) are equal byte
for byte. The launcher offers them for merging (KSM); the kernel's thread that merges is switched on here for a few
seconds after a number of containers were started, and then off again, which leaves pages merged.

The switch is the machine's. So it is left alone where it is on already, and where any other process has offered pages
(a virtual machine's memory, say), since its owner may have switched merging off for a reason. Containers cannot offer
theirs: the default seccomp profile refuses it. What is changed is written down first, in <exec-root>/ksm.json, so that
the next narud can make up for one that was killed meanwhile. docs/adr/0011-merged-shims.md
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from naru.kernel import ksm

log = logging.getLogger(__name__)

_PERIOD_S = 5.0
_WORTH_SHIMS = 10  # 15 MB
# 50,000 pages a second, a third of one processor: 100 shims have 200,000.
_PAGES_A_TURN, _PAUSE_MS = 1000, 20
# The first scan notes what is stable, the second merges it, and the third finds what the second was too early for.
_SCANS = 3
_LONGEST_S = 40.0
_POLL_S = 0.2
_OURS = ("naru-shim", "naru-launcher")


async def keep_merged(shims_started: Callable[[], int], shims_running: Callable[[], int], run_root: Path) -> None:
    """Merge after enough shims were started and no more come; runs until cancelled."""
    merging = Merging(run_root / "ksm.json")
    merging.recover()
    merged = before = shims_started()
    while True:
        await asyncio.sleep(_PERIOD_S)
        now = shims_started()
        if now == before and now - merged >= _WORTH_SHIMS and shims_running() >= _WORTH_SHIMS:
            await asyncio.to_thread(merging.run)
            merged = now
        before = now


class Merging:
    """Switches merging on for a while. `note` is the file that says what to put back."""

    def __init__(self, note: Path) -> None:
        self._note = note

    def recover(self) -> None:
        """Put back what a killed narud had changed."""
        try:
            knobs = msgspec.json.decode(self._note.read_bytes(), type=dict[str, int])
        except (FileNotFoundError, msgspec.MsgspecError):
            return
        self._restore(knobs)

    def run(self) -> bool:
        """Merge until all pages were looked at often enough; False where it is not for us to do."""
        try:
            if ksm.read_knob("run") != 0 or others_offer_pages():
                return False
            before = {name: ksm.read_knob(name) for name in ("run", "pages_to_scan", "sleep_millisecs")}
            self._note.write_bytes(msgspec.json.encode(before))
            with ExitStack() as undo:
                undo.callback(self._restore, before)
                ksm.write_knob("pages_to_scan", _PAGES_A_TURN)
                ksm.write_knob("sleep_millisecs", _PAUSE_MS)
                enough = ksm.read_knob("full_scans") + _SCANS
                deadline = time.monotonic() + _LONGEST_S
                ksm.write_knob("run", 1)
                while ksm.read_knob("full_scans") < enough and time.monotonic() < deadline:
                    time.sleep(_POLL_S)
        except OSError as error:
            log.debug("memory is not merged: %s", error)
            return False
        log.debug("%d pages are shared by merging", ksm.read_knob("pages_sharing"))
        return True

    def _restore(self, knobs: dict[str, int]) -> None:
        for name, value in knobs.items():
            ksm.write_knob(name, value)
        self._note.unlink(missing_ok=True)


def others_offer_pages() -> bool:
    """Say whether a process that is no shim has pages for merging; True also where the kernel does not tell."""
    if ksm.has_mergeable_pages(os.getpid()) is None:
        return True
    for pid in ksm.processes():
        try:
            comm = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        if comm not in _OURS and ksm.has_mergeable_pages(pid):
            return True
    return False
