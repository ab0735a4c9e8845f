"""What this host's kernel may not have: cgroup version 2 only, and project quotas. In a virtual machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import guest
import pytest

pytestmark = [pytest.mark.root, pytest.mark.packages]

TIMEOUT_S = 55.0


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an x86-64 host")
@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="needs mkfs.ext4 (e2fsprogs)")
@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="needs qemu-system-x86_64 (qemu-system-x86)")
def test_everything_holds_under_version_2(tmp_path: Path) -> None:
    kernel, modules, busybox = guest.download(tmp_path)
    guest.stage(tmp_path / "root", modules, busybox)
    with open(tmp_path / "initramfs", "wb") as archive:
        guest.pack(tmp_path / "root", archive)

    said = list(guest.boot(kernel, tmp_path / "initramfs", timeout_s=TIMEOUT_S))

    shutil.rmtree(tmp_path / "root")
    assert "GUEST EXIT 0" in said, "\n".join(said)
    assert not [line for line in said if line.startswith(("SKIPPED", "FAILED", "ERROR"))]
    assert len([line for line in said if line.startswith("PASSED")]) >= 30
