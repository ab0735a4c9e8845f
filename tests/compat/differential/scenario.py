"""The scenarios: command lines in plain text files, one file for each area.

    == pause of a container that is paused          a scenario's name; it starts from a clean engine
    docker run -d --name cc busybox sleep 100       a line for `sh`, run in an empty directory of the scenario's own
    docker pause cc
    docker pause cc
    ~ stderr: why the two may differ here           about the line above, for some of code, stdout, stderr
    tty docker run -t busybox tty                   the same on a pseudo-terminal
    docker inspect cc
    ~ *.Isolation: why                              for a field of JSON that the line prints, with its path
    shape docker info --format '{{json .}}'         of JSON only the fields and their types are compared

A difference for good that is none any more fails the test, until its line is removed. One whose reason starts with
`gap:` is something naru is to learn: there the test only warns. With `clients:` it is there with some clients only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

DIRECTORY = Path(__file__).parent / "scenarios"
_PREFIXES = ("tty", "shape")


@dataclass
class Step:
    """One command line, and what of its outcome may differ, each with the reason."""

    line: str
    prefix: str = ""
    allowed: dict[str, str] = field(default_factory=dict)


@dataclass
class Scenario:
    """Steps in one order, on an engine that has the image busybox and nothing else."""

    name: str
    steps: list[Step] = field(default_factory=list)


def read_scenarios() -> list[Scenario]:
    """Return all scenarios, named `<area>: <name>`."""
    return [scenario for path in sorted(DIRECTORY.glob("*.txt")) for scenario in _parse(path)]


def _parse(path: Path) -> list[Scenario]:
    found: list[Scenario] = []
    for line in path.read_text().splitlines():
        mark, _, rest = line.partition(" ")
        if not line or mark == "#":
            continue
        if mark == "==":
            found.append(Scenario(f"{path.stem}: {rest}"))
        elif mark == "~":
            parts, _, reason = rest.partition(": ")
            assert reason, f"{path.name}: a difference without its reason: {line}"
            found[-1].steps[-1].allowed |= dict.fromkeys(parts.split(", "), reason)
        else:
            found[-1].steps.append(Step(rest, mark) if mark in _PREFIXES else Step(line))
    return found
