"""Timing commands of several engines in turns, so that what else happens on the machine hits all alike."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median


def in_turns(jobs: Mapping[str, Callable[[], object]], rounds: int, *, warm: int = 2) -> dict[str, float]:
    """Do all jobs `warm` + `rounds` times, A B A B …; return each one's median seconds without the warm ones.

    A job that returns a number has measured itself.
    """
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(warm + rounds):
        for name, job in jobs.items():
            begin = time.perf_counter()
            own = job()
            seconds = own if isinstance(own, float) else time.perf_counter() - begin
            if number >= warm:
                taken[name].append(seconds)
    return {name: median(times) for name, times in taken.items()}


def command(arguments: Sequence[str], env: Mapping[str, str], *, directory: str | None = None) -> Callable[[], None]:
    """Return a job that runs a command, whose output nobody reads, and fails if it fails."""
    whole = {**os.environ, **env}

    def job() -> None:
        done = subprocess.run(
            arguments,
            env=whole,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}: {said}")

    return job
