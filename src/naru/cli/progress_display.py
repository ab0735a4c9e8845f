"""Progress messages drawn on a terminal by rich: a line for each layer, lines above for what is said besides."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO


def _reach_packages() -> None:
    """Put our environment's packages on the path: `./naru` runs without them (`-S`), nothing else needs any."""
    environment = os.path.dirname(os.path.dirname(sys.executable))
    for directory in glob.glob(os.path.join(environment, "lib", "python3*", "site-packages")):
        if directory not in sys.path:
            sys.path.append(directory)


class Display:
    """Context that shows messages as they come. Without rich, plain lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._tasks: dict[str, Any] = {}
        _reach_packages()
        try:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
        except ImportError:
            self._progress = None
            return
        self._console = Console(file=out, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[status]}", markup=False),
            BarColumn(bar_width=30),
            DownloadColumn(),
            console=self._console,
            refresh_per_second=10,
        )

    def __enter__(self) -> Display:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def take(self, message: Mapping[str, Any]) -> None:
        """Show one message."""
        if self._progress is None:
            from naru.cli.progress import print_plain

            print_plain(dict(message), self._out)
            return
        name, status = str(message.get("id") or ""), str(message.get("status", ""))
        if "stream" in message:
            self._console.print(str(message["stream"]), end="", markup=False, soft_wrap=True)
        elif not name or ("progressDetail" not in message and name not in self._tasks):
            self._console.print(f"{name}: {status}" if name else status, markup=False, soft_wrap=True)
        else:
            self._update(name, status, message.get("progressDetail") or {})

    def _update(self, name: str, status: str, detail: Mapping[str, Any]) -> None:
        assert self._progress is not None
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(f"{name}:", total=None, status=status)
        task = self._tasks[name]
        if detail.get("total"):
            self._progress.update(task, status=status, completed=detail.get("current", 0), total=detail["total"])
        elif "current" in detail:
            self._progress.update(task, status=status, completed=detail["current"])
        else:
            total = self._progress.tasks[self._progress.task_ids.index(task)].total
            is_done = "complete" in status.lower() or "exists" in status.lower()
            if is_done:
                self._progress.update(task, completed=total or 1, total=total or 1)
            self._progress.update(task, status=status)
