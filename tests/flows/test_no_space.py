"""A full disk: a clear error in one line, and everything works again once there is room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    image, directory = tmp_path / "disk", tmp_path / "mounted"
    directory.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(directory)], capture_output=True).returncode:
        pytest.skip("needs loop devices")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@pytest.fixture
def narud(disk: Path, busybox_archive: Path) -> Iterator[Daemon]:
    daemon = Daemon(data=disk / "data")
    try:
        daemon("load", "--input", str(busybox_archive))
        yield daemon
    finally:
        (disk / "ballast").unlink(missing_ok=True)
        daemon.close()


def fill(disk: Path, *, leave_bytes: int) -> None:
    with (disk / "ballast").open("wb") as ballast, pytest.raises(OSError, match="No space"):
        while True:
            ballast.write(b"\0" * (1 << 20))
            ballast.flush()
    with (disk / "ballast").open("r+b") as ballast:
        ballast.truncate((disk / "ballast").stat().st_size - leave_bytes)


def test_load_build_and_run_on_a_full_disk(narud: Daemon, disk: Path, busybox_archive: Path, tmp_path: Path) -> None:
    narud("run", "-d", "--name", "before", "busybox", "sleep", "1000")
    narud("tag", "busybox", "kept:1")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nRUN dd if=/dev/urandom of=/file bs=1000000 count=9\n")
    fill(disk, leave_bytes=2 << 20)
    done = narud.docker("build", "--tag", "built:1", str(context))
    assert done.code != 0
    assert "No space left on device" in done.err + done.out
    done = narud.docker("run", "--rm", "busybox", "sh", "-c", "dd if=/dev/urandom of=/file bs=1000000 count=9")
    assert done.code == 1
    assert "No space left on device" in done.err
    fill(disk, leave_bytes=0)
    done = narud.docker("run", "--rm", "busybox", "true")
    assert done.code in (0, 125)
    assert "Traceback" not in done.err
    done = narud.docker("load", "--input", str(busybox_archive))
    assert done.code in (0, 1)
    assert narud("exec", "before", "echo", "alive") == "alive"
    assert narud("rm", "-f", "before") == "before"  # which is how people make room
    (disk / "ballast").unlink()
    assert narud("run", "--rm", "busybox", "echo", "works") == "works"
    narud("build", "--tag", "built:1", str(context))
    assert narud("run", "--rm", "built:1", "wc", "-c", "/file") == "9000000 /file"
    assert "Traceback" not in narud.log.read_text()


def test_a_load_that_does_not_fit_leaves_its_room_free(narud: Daemon, disk: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nRUN dd if=/dev/urandom of=/file bs=1000000 count=9\n")
    narud("build", "--tag", "large:1", str(context))
    narud("save", "--output", f"{tmp_path}/large.tar", "large:1")
    narud("rmi", "large:1")
    narud("builder", "prune", "--all", "--force")
    fill(disk, leave_bytes=8 << 20)
    free = _free_bytes(disk)
    done = narud.docker("load", "--input", f"{tmp_path}/large.tar")
    assert done.code == 1
    assert done.err.strip().lower().endswith("no space left on device")
    assert len(done.err.strip().splitlines()) == 1
    assert _free_bytes(disk) >= free - (1 << 20)
    (disk / "ballast").unlink()
    assert narud("load", "--input", f"{tmp_path}/large.tar") == "Loaded image: large:1"


def _free_bytes(disk: Path) -> int:
    return shutil.disk_usage(disk).free
