"""The validation programs of the OCI runtime tools: each tries one thing on the runtime $RUNTIME, and prints TAP.

Their released module and all it needs are pinned in validation/go.mod and go.sum; `build` compiles them once and
keeps them between runs.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

MODULE = "github.com/opencontainers/runtime-tools"
_PINNED = Path(__file__).with_name("validation")
_KEPT = Path(tempfile.gettempdir()) / "naru-test-cache" / "runtime-tools"
_RESULT = re.compile(r"^(not )?ok \d+(?: - )?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """What one program found: how often it said ok or not ok to what, and all it printed."""

    passed: Counter[str]
    failed: Counter[str]
    output: str

    def lacks(self, other: Verdict) -> dict[str, int]:
        """Return what `other` passed and this did not, and how often."""
        return dict(other.passed - self.passed)


def build() -> Path:
    """Return the directory with all programs, and what they expect in their working directory."""
    done = _KEPT / "done"
    if done.exists() and done.stat().st_mtime > (_PINNED / "go.sum").stat().st_mtime:
        return _KEPT
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs go (libexec/install-conformance-peers)")
    if platform.machine() != "x86_64":
        pytest.skip(f"the runtime tools bring no root filesystem for {platform.machine()}")
    if _go(go, "mod", "download").returncode:
        pytest.skip("needs Go modules, from the module cache or a proxy")
    source = Path(_go(go, "list", "-m", "-f", "{{.Dir}}", MODULE).stdout.strip())
    names = [path.name for path in (source / "validation").iterdir() if path.is_dir() and path.name != "util"]
    (_KEPT / "bin").mkdir(parents=True, exist_ok=True)
    packages = [f"{MODULE}/validation/{name}" for name in names]
    _go(go, "build", "-o", f"{_KEPT}/bin/", *packages).check_returncode()
    _go(go, "build", "-o", f"{_KEPT}/runtimetest", f"{MODULE}/cmd/runtimetest").check_returncode()
    shutil.copy(source / "rootfs-amd64.tar.gz", _KEPT)
    done.touch()
    return _KEPT


def _go(go: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    return subprocess.run([go, *arguments], cwd=_PINNED, env=environment, capture_output=True, text=True)


def judge(program: str, runtime: Path, programs: Path, scratch: Path) -> Verdict:
    """Let `program` judge `runtime`, in a mount namespace of its own: some programs have containers without one."""
    command = ["unshare", "--mount", "--propagation", "slave", f"{programs}/bin/{program}"]
    environment = os.environ | {"RUNTIME": str(runtime), "TMPDIR": str(scratch)}
    done = subprocess.run(command, cwd=programs, env=environment, capture_output=True, text=True, timeout=120)
    passed: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for negated, what in _RESULT.findall(done.stdout):
        (failed if negated else passed)[what] += 1
    # Programs that check by the order of side effects assert nothing; they print an error or nothing, or exit.
    told = '"error":' in done.stdout and not passed and not failed
    (failed if done.returncode or told else passed)["came to its end"] += 1
    return Verdict(passed, failed, f"{done.stdout}\n{done.stderr}")
