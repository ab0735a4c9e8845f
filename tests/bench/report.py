"""The table, for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.figures import Row
from tests.bench.scratch import Missing

_BEGIN, _END = "<!-- table: written by ./dev bench --record -->\n", "<!-- end of table -->\n"


def table(results: Mapping[str, Sequence[Row] | Missing]) -> str:
    """Return a Markdown table of what was measured, and why some of it was not."""
    lines = ["| | naru | peer | | ratio | target |", "|---|---:|---:|---|---:|---|"]
    for name, rows in results.items():
        if isinstance(rows, Missing):
            lines.append(f"| {name}: not measured, {rows} | | | | | |")
            continue
        lines += [_line(row) for row in rows]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    theirs = "" if row.theirs is None else _number(row.theirs)
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    target = ""
    if row.target is not None:
        sign = "≤" if row.less_is_better else "≥"
        target = (
            f"{sign} {row.target:g}{' ' + row.unit if row.absolute else ''}: {'met' if row.is_met else '**not met**'}"
        )
    return f"| {row.what}, {row.unit} | {_number(row.ours)} | {theirs} | {row.peer} | {ratio} | {target} |"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def machine(versions: Mapping[str, str]) -> str:
    """Return where and with what this was measured."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    version_2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    load = os.getloadavg()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}; {os.cpu_count()} × {processor}, Linux {platform.release()}, "
        f"cgroup version {'2' if version_2 else '1'}, Python {platform.python_version()}; load at the end "
        f"{load[0]:.1f}. " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".\n"
    )


def record(document: Path, text: str) -> None:
    """Put `text` between the marks of `document`."""
    before, _, rest = document.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    document.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")
