"""Both command lines, ours and Docker's, and the version of Docker's that ours is held to."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import naru

NARU = [sys.executable, "-I", "-S", str(Path(naru.__file__).parent / "cli/__main__.py")]
DOCKER = ["docker"]
_HELD_TO = 28


def _major() -> int:
    if shutil.which("docker") is None:
        return 0
    said = subprocess.run(["docker", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"version (\d+)", said)
    return int(found[1]) if found else 0


beside_docker = pytest.mark.skipif(
    _major() != _HELD_TO, reason=f"needs Docker's CLI {_HELD_TO}, whose words and flags ours are compared with"
)
