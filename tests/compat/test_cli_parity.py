"""`naru --help` against `docker --help`, machine to machine: every command, every alias, every flag.

Both programs are asked, from the top down, for what they list. What may differ is written out below, each with its
reason; what is listed there and does not differ any more is an error too.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

from programs import DOCKER, NARU, beside_docker

pytestmark = beside_docker

# Nouns of Docker's CLI that belong to others or to nobody: Swarm, plugins of the engine, content trust, what buildx,
# compose and BuildKit bring with them.
ELSEWHERE = set("buildx checkpoint compose config manifest node plugin secret service stack swarm trust".split())

# Flags that only Docker has, or that take another kind of value, and why
_WINDOWS = "only for daemons on Windows: Docker's CLI refuses it for any other"
_TREE = "experimental in Docker: shows what an image store of containerd's has"
FLAGS = {
    **{
        f"{name}: {flag}": _WINDOWS
        for name in ("run", "create", "container run", "container create")
        for flag in ("--cpu-count int", "--cpu-percent int", "--io-maxbandwidth bytes", "--io-maxiops uint")
    },
    "images: --tree": _TREE,
    "image ls: --tree": _TREE,
}


@dataclass(frozen=True)
class Help:
    """What one command's `--help` says: other commands below it, other names of it, flags with their kinds of value."""

    commands: set[str] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)
    flags: set[str] = field(default_factory=set)


def read(text: str, program: str) -> Help:
    """Read the sections of a help text; a flag is `-n, --last int`."""
    found = Help()
    section = ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            section = line.rstrip(":").lower()
        elif section == "aliases":
            found.aliases.update(name.strip().removeprefix(f"{program} ") for name in line.split(",") if name.strip())
        elif section.endswith("commands") and (match := re.match(r"  ([a-z-]+) +\S", line)):
            found.commands.add(match[1])
        elif section in ("options", "global options") and (
            match := re.match(r" {2,6}((?:-\w, )?--[\w-]+(?: [A-Za-z]\w*(?:-\w+)*)?)(?: {2,}|$)", line)
        ):
            found.flags.add(match[1])
    return found


@cache
def helps(program: str) -> dict[str, Help]:
    """Every command's help by its name, "" for the program itself."""
    command = NARU if program == "naru" else DOCKER
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent", "COLUMNS": "100"}

    def ask(name: str) -> tuple[str, Help]:
        done = subprocess.run([*command, *name.split(), "--help"], env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{program} {name} --help: {done.stderr}"
        return name, read(done.stdout, program)

    found = dict([ask("")])
    with ThreadPoolExecutor(2) as pool:
        names = sorted(found[""].commands - ELSEWHERE)
        while names:
            asked = dict(pool.map(ask, names))
            found |= asked
            names = [f"{name} {verb}" for name, help_ in asked.items() for verb in sorted(help_.commands)]
    return found


def commands(program: str) -> Iterator[str]:
    return (name for name, help_ in helps(program).items() if not help_.commands)


def test_every_command_of_docker_is_there() -> None:
    assert set(commands("docker")) - set(commands("naru")) == set()


def test_every_command_has_the_names_it_has_in_docker() -> None:
    both = set(commands("docker")) & set(commands("naru"))
    ours, theirs = helps("naru"), helps("docker")
    differences = {name: theirs[name].aliases - ours[name].aliases for name in both}
    assert {name: missing for name, missing in differences.items() if missing} == {}


def test_every_flag_has_the_short_form_and_the_kind_of_value_it_has_in_docker() -> None:
    both = set(commands("docker")) & set(commands("naru")) | {""}
    ours, theirs = helps("naru"), helps("docker")
    differences = {f"{name}: {flag}".lstrip() for name in both for flag in theirs[name].flags - ours[name].flags}
    assert differences == set(FLAGS)
