"""The daemon is killed at any step of anything: the next one starts, finishes or undoes it, and nothing is left."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root

KILLS = 12


def busy(narud: Daemon, archive: Path, context: Path, ended: threading.Event) -> list[threading.Thread]:
    """Clients that run, create, remove, load and build until `ended`; whether they succeed is not their business."""
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

    def repeat(action: Callable[[], None]) -> None:
        while not ended.is_set():
            action()

    threads = [threading.Thread(target=repeat, args=[action]) for action in (runs, creates, loads, builds)]
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
    expected = {"busybox:latest", "loaded:1", "built:1"}
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
