"""The daemon is killed at any step of anything: the next one starts, finishes or undoes it, and nothing is left."""

from __future__ import annotations

import itertools
import os
import random
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon import Daemon, wait_until

from naru.kernel.mount import OVERLAYFS_SUPER_MAGIC, filesystem_magic

pytestmark = pytest.mark.root

KILLS = 12


def busy(narud: Daemon, archive: Path, context: Path, ended: threading.Event) -> list[threading.Thread]:
    """Clients that run, create, copy, load and build until `ended`; whether they succeed is not their business."""
    numbers = itertools.count()

    def runs() -> None:
        narud.docker("run", "--rm", "-p", "80", "-v", "/anonymous", "busybox", "true", timeout_s=30)

    def creates() -> None:
        name = f"box{next(numbers)}"
        narud.docker("run", "-d", "--name", name, "busybox", "sleep", "1000", timeout_s=30)
        narud.docker("rm", "-fv", name, timeout_s=30)

    def loads() -> None:
        narud.docker("load", "--input", str(archive), timeout_s=30)
        narud.docker("rmi", "loaded:1", timeout_s=30)

    def builds() -> None:
        narud.docker("build", "--no-cache", "--tag", "built:1", str(context), timeout_s=30)

    def copies() -> None:
        name = f"copied{next(numbers)}"
        narud.docker("create", "--name", name, "-v", "/anonymous", "busybox", timeout_s=30)
        narud.docker("cp", str(archive), f"{name}:/anonymous", timeout_s=30)
        narud.docker("cp", str(archive), f"{name}:/tmp", timeout_s=30)
        narud.docker("commit", name, "committed:1", timeout_s=30)
        narud.docker("rm", "-fv", name, timeout_s=30)

    def repeat(action: Callable[[], None]) -> None:
        while not ended.is_set():
            action()

    threads = [threading.Thread(target=repeat, args=[action]) for action in (runs, creates, copies, loads, builds)]
    [thread.start() for thread in threads]
    return threads


def test_killed_at_random_moments_it_leaves_nothing(own_narud: Daemon, tmp_path: Path) -> None:
    archive = image_with_a_layer(own_narud, tmp_path)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nRUN head -c 3000000 /dev/urandom >/file\nCOPY Dockerfile /x/\n")
    chance = random.Random(2)
    ended = threading.Event()
    clients = busy(own_narud, archive, context, ended)
    for _ in range(KILLS):
        threading.Event().wait(chance.uniform(0.05, 0.6))
        own_narud.restart()
    ended.set()
    [client.join() for client in clients]
    assert_whole(own_narud)


def test_killed_while_it_commits_it_leaves_no_part_and_nothing_frozen(own_narud: Daemon) -> None:
    fill = "head -c 100000000 /dev/urandom >/random; touch /ready; exec sleep 1000"
    container = own_narud("run", "-d", "busybox", "sh", "-c", fill)
    wait_until(lambda: own_narud.docker("exec", container, "test", "-e", "/ready").code == 0, 60)
    before = {path.name for path in (own_narud.data / "blobs/sha256").iterdir()}
    own_narud.popen("commit", container, "committed:1")
    wait_until(lambda: status(own_narud, container) == "paused")
    own_narud.restart()
    assert status(own_narud, container) == "running"
    assert own_narud("exec", container, "echo", "alive") == "alive"
    assert names(own_narud) == ["busybox:latest"]
    assert {path.name for path in (own_narud.data / "blobs/sha256").iterdir()} == before
    assert list((own_narud.data / "ingest").iterdir()) == []


def test_killed_while_it_copies_it_leaves_the_container_as_it_was_found(own_narud: Daemon) -> None:
    container = own_narud("create", "-v", "volume:/data", "busybox", "sleep", "1000")
    for command in (["cp", "-", f"{container}:/data"], ["cp", "-", f"{container}:/tmp"]):
        copying = own_narud.popen(*command)
        assert copying.stdin is not None
        copying.stdin.write(big_member())
        wait_until(lambda: mounts_held(own_narud))
        own_narud.restart()
    assert own_narud.leaks() == [str(own_narud.data / "containers" / container)]
    own_narud("start", container)
    assert status(own_narud, container) == "running"


def big_member() -> bytes:
    """The beginning of an archive: a file of a megabyte, of which the most is missing."""
    member = tarfile.TarInfo("file")
    member.size = 1 << 20
    return member.tobuf() + bytes(64 << 10)


def mounts_held(narud: Daemon) -> bool:
    """Whether the daemon holds the root of an overlay: a container's, mounted for a copy."""
    for entry in Path(f"/proc/{narud.pid}/fd").iterdir():
        try:
            number = os.open(f"/proc/{narud.pid}/fd/{entry.name}", os.O_PATH)
        except OSError:
            continue
        try:
            if filesystem_magic(number) == OVERLAYFS_SUPER_MAGIC:
                return True
        finally:
            os.close(number)
    return False


def status(narud: Daemon, container: str) -> str:
    return narud("inspect", "--format", "{{.State.Status}}", container)


def image_with_a_layer(narud: Daemon, tmp_path: Path) -> Path:
    """An archive of an image of its own, with a layer of some megabytes."""
    narud("run", "--name", "box", "busybox", "true")
    context = tmp_path / "layer"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nRUN head -c 20000000 /dev/urandom >/random\n")
    narud("build", "--tag", "loaded:1", str(context))
    narud("save", "--output", f"{tmp_path}/loaded.tar", "loaded:1")
    narud("rmi", "loaded:1")
    narud("rm", "box")
    return tmp_path / "loaded.tar"


def assert_whole(narud: Daemon) -> None:
    """What has a name works; what no record explains is gone, on disk and in the kernel."""
    [narud("run", "--rm", name, "true") for name in names(narud)]
    narud.restart()
    narud.clear()
    wait_until(lambda: not narud.leaks(), 5)
    expected = {"busybox:latest", "loaded:1", "built:1", "committed:1"}
    assert set(names(narud)) <= expected
    [narud("rmi", "--force", name) for name in names(narud)]
    narud("image", "prune", "--all", "--force")
    narud("builder", "prune", "--all", "--force")
    narud.restart()
    assert narud("images", "--all", "--quiet") == ""
    assert leftovers(narud) == []


def names(narud: Daemon) -> list[str]:
    return narud("images", "--filter", "dangling=false", "--format", "{{.Repository}}:{{.Tag}}").splitlines()


def leftovers(narud: Daemon) -> list[str]:
    """Files of a data root that has no image, container or volume any more; `empty` serves images without a layer."""
    rooms = [narud.data / room for room in ("containers", "snapshots", "ingest", "volumes", "blobs/sha256")]
    return sorted(str(path) for room in rooms for path in room.iterdir() if path.name != "empty")
