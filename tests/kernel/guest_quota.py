"""Project quotas, in the guest: Debian's kernel has them, and an ext4 image of its own with them switched on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from naru.kernel import quota
from naru.kernel.overlay import overlay

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["/bin/busybox", "mount", "-t", "ext4", "-o", "loop,prjquota", "/naru/quota.img", str(place)]
    subprocess.run(mount, check=True)
    (place / "test").mkdir()
    yield place / "test"
    shutil.rmtree(place / "test")
    subprocess.run(["/bin/busybox", "umount", str(place)], check=True)


def _write(path: Path, size: int) -> None:
    with open(path, "wb", buffering=0) as file:
        written = 0
        while written < size:
            written += file.write(bytes(min(size - written, 1 << 16)))
        os.fsync(file.fileno())


@pytest.fixture
def root(disk: Path) -> Iterator[Path]:
    """An overlay whose upper directory may hold 2 MiB. It obeys also where its user could go beyond a quota."""
    for name in ("lower/deep", "upper", "work"):
        (disk / name).mkdir(parents=True)
    _write(disk / "lower" / "deep" / "old", 64 << 10)
    quota.limit_directories((str(disk / "upper"), str(disk / "work")), 4711, 2 * MIB)
    tree = overlay(["lower"], "upper", "work", base=str(disk))
    yield Path(f"/proc/self/fd/{tree}")
    os.close(tree)


def test_an_overlay_holds_no_more_than_its_upper_directorys_project_may(root: Path) -> None:
    with open(root / "deep" / "old", "ab") as file:
        file.write(b"copied up")
    _write(root / "fits", MIB)
    with pytest.raises(OSError, match="quota") as refused:
        _write(root / "too-much", 2 * MIB)
    assert refused.value.errno == errno.EDQUOT
    (root / "too-much").unlink()
    os.rename(root / "fits", root / "deep" / "fits")
    found = os.statvfs(root)
    assert found.f_blocks * found.f_frsize == 2 * MIB


def test_a_limit_ends_when_it_is_set_to_nothing(root: Path, disk: Path) -> None:
    upper = os.open(disk / "upper", os.O_RDONLY)
    assert quota.project_of(upper) == 4711
    quota.limit_project(upper, 4711, 0)
    os.close(upper)
    _write(root / "file", 3 * MIB)


def test_a_file_system_without_projects_says_so(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(OSError) as refused:
        quota.limit_directories((str(tmp_path / "plain"),), 4713, MIB)
    assert refused.value.errno in (errno.ENOSYS, errno.ESRCH, errno.ENOTTY, errno.EOPNOTSUPP)
