"""Processes and their memory, from procfs. proc_pid_smaps_rollup(5)"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    command: str


def processes() -> list[Process]:
    """Return all processes that are still there by the time they are looked at."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                stat = (directory / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if stat[0] != "Z":
                found.append(Process(int(directory.name), int(stat[1]), command))
    return found


def descendants(pid: int) -> list[Process]:
    """Return process `pid` and all below it."""
    everything = processes()
    found = {one.pid: one for one in everything if one.pid == pid}
    while more := [one for one in everything if one.parent in found and one.pid not in found]:
        found |= {one.pid: one for one in more}
    return list(found.values())


def megabytes(which: Iterable[Process], field: str) -> float:
    """Return the sum of `field` ("Rss", "Pss") over the processes."""
    return sum(_kilobytes(process.pid, field) for process in which) / 1024


def _kilobytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0
