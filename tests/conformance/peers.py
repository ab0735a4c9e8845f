"""The program under judgement, and the engines that judge it or are judged beside it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

import naru

FULL = os.environ.get("NARU_CONFORMANCE") == "full"
_CGROUPS = Path("/sys/fs/cgroup")
_START = "import sys; sys.path.insert(0, {path!r}); from naru.runtime.cli import main; sys.exit(main())"
T = TypeVar("T")

in_full_run = pytest.mark.skipif(not FULL, reason="takes longer: NARU_CONFORMANCE=full")


def require(*programs: str) -> None:
    """Skip, naming what is missing."""
    if os.geteuid():
        pytest.skip("needs root")
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (libexec/install-conformance-peers)")


def wait_until(what: Callable[[], T], timeout_s: float = 20.0) -> T:
    """Return the first true value of `what()`."""
    deadline = time.monotonic() + timeout_s
    while not (value := what()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s; last: {value!r}"
        time.sleep(0.02)
    return value


def naru_program(directory: Path, *, root: Path | None = None) -> Path:
    """Return a script that is `naru-runtime` of this checkout, for callers that pass on no environment."""
    package = str(Path(naru.__file__).parents[1])
    command = [sys.executable, "-I", "-c", _START.format(path=package)]
    return _script(directory / "naru-runtime", command, root)


def peer_program(directory: Path, name: str, *, root: Path) -> Path:
    """Return a script that is the runtime `name` with a state directory of its own.

    crun of Debian 12 refuses a host with both cgroup versions: it is shown one with version 1 only.
    """
    command = [str(shutil.which(name))]
    if name == "crun" and (_CGROUPS / "unified").is_dir():
        command = ["unshare", "-m", "sh", "-c", f'umount {_CGROUPS}/unified; exec "$0" "$@"', *command]
    return _script(directory / name, command, root)


def _script(path: Path, command: list[str], root: Path | None) -> Path:
    state = ["--root", str(root)] if root else []
    path.write_text(f'#!/bin/sh\nexec {shlex.join([*command, *state])} "$@"\n')
    path.chmod(0o755)
    return path


def image_archive(root: Path, archive: Path) -> Path:
    """Return a tar of the directory `root`, for an engine to import."""
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    return archive


def remove_cgroups(name: str) -> None:
    """Remove the empty cgroup `name` that an engine has left in every hierarchy."""
    for hierarchy in _CGROUPS.glob(f"*/{name}"):
        for directory, _below, _files in os.walk(hierarchy, topdown=False):
            os.rmdir(directory)
