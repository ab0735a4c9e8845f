"""Kernel same-page merging: the switch, its progress, and which processes have pages for it.

    /sys/kernel/mm/ksm/run              0: rests, what is merged stays so; 1: merges
                       pages_to_scan    pages looked at in one turn
                       sleep_millisecs  pause between turns
                       full_scans       how often all pages have been looked at
    /proc/PID/ksm_stat                  ksm_mergeable, ksm_merge_any: has the process any (Linux 6.16)

linux/Documentation/admin-guide/mm/ksm.rst
"""

from __future__ import annotations

import os

_KNOBS = "/sys/kernel/mm/ksm"


def read_knob(name: str) -> int:
    """Return one setting or counter. OSError: a kernel without KSM."""
    with open(f"{_KNOBS}/{name}") as knob:
        return int(knob.read())


def write_knob(name: str, value: int) -> None:
    """Change one setting, for the whole machine. OSError: not root, or /sys is read-only."""
    with open(f"{_KNOBS}/{name}", "w") as knob:
        knob.write(str(value))


def has_mergeable_pages(pid: int) -> bool | None:
    """Say whether a process has offered pages for merging; None if the kernel does not tell or the process is gone."""
    try:
        with open(f"/proc/{pid}/ksm_stat") as stat:
            answers = [line.split()[1] for line in stat if line.startswith(("ksm_mergeable:", "ksm_merge_any:"))]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return "yes" in answers if answers else None


def processes() -> list[int]:
    """Return every process there is."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
