"""Local volumes: who uses them, what is copied into them, when they go."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from naru.errors import Conflict, InvalidArgument, NotFound
from naru.persist.database import Database
from naru.volume.volumes import Volumes

pytestmark = pytest.mark.root


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(Database(tmp_path / "naru.db"), tmp_path / "volumes")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[int]:
    """An image's root with something of everything, and links that lead out of it."""
    root = tmp_path / "image"
    (root / "data/sub").mkdir(parents=True)
    (root / "data/sub/f").write_text("content")
    os.link(root / "data/sub/f", root / "data/hard")
    (root / "data/link").symlink_to("/etc/passwd")
    os.setxattr(root / "data/sub/f", "user.k", b"v")
    os.chown(root / "data/sub/f", 3, 4)
    os.chown(root / "data", 5, 6)
    (root / "data").chmod(0o1770)
    os.utime(root / "data/sub", ns=(0, 10**18))
    (root / "abs").symlink_to("/data")
    (root / "out").symlink_to("../../../../../../etc")
    (root / "file").write_text("")
    descriptor = os.open(root, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_new_volume_is_an_empty_directory_and_is_made_once(volumes: Volumes) -> None:
    made = volumes.create("db", labels={"a": "b"})
    assert volumes.create("db") == made == volumes.get("db")
    assert volumes.is_empty("db") and not made.is_anonymous
    assert Path(made.mountpoint).stat().st_mode == 0o040755


def test_an_anonymous_volume_has_64_hex_digits_and_dockers_label(volumes: Volumes) -> None:
    made = volumes.create()
    assert re.fullmatch("[0-9a-f]{64}", made.name)
    assert made.is_anonymous and made.labels == {"com.docker.volume.anonymous": ""}


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "x", "", "a b", "a\n", "n" * 256])
def test_a_name_cannot_be_a_path(volumes: Volumes, name: str) -> None:
    with pytest.raises(InvalidArgument):
        volumes.create(name)


def test_unknown_options_are_refused(volumes: Volumes) -> None:
    with pytest.raises(InvalidArgument, match='invalid option: "foo"'):
        volumes.create("db", options={"foo": "1"})


def test_a_used_volume_stays(volumes: Volumes) -> None:
    volumes.acquire("db", "c1")
    assert volumes.users("db") == ["c1"]
    with pytest.raises(Conflict, match=re.escape("remove db: volume is in use - [c1]")):
        volumes.remove("db", force=True)
    assert volumes.release("c1", remove_anonymous=True) == []
    volumes.remove("db")
    with pytest.raises(NotFound, match="get db: no such volume"):
        volumes.get("db")
    volumes.remove("db", force=True)


def test_an_anonymous_volume_goes_with_its_last_user(volumes: Volumes) -> None:
    name = volumes.acquire(None, "c1").name
    volumes.acquire(name, "c2")
    assert volumes.release("c1", remove_anonymous=True) == []
    assert volumes.release("c2", remove_anonymous=True) == [name]
    assert volumes.list() == []


@pytest.mark.parametrize("path", ["/data", "/abs", "/data/../data", "/../data"])
def test_an_empty_volume_gets_what_the_image_has_there(volumes: Volumes, image: int, path: str) -> None:
    data = Path(volumes.create("db").mountpoint)
    assert volumes.populate("db", image, path)
    status, file = data.stat(), (data / "sub/f").stat()
    assert (status.st_mode, status.st_uid, status.st_gid) == (0o041770, 5, 6)
    assert (file.st_uid, file.st_gid, file.st_nlink) == (3, 4, 2)
    assert os.getxattr(data / "sub/f", "user.k") == b"v"
    assert (data / "sub").stat().st_mtime_ns == 10**18
    assert os.readlink(data / "link") == "/etc/passwd"
    assert volumes.usage("db") == len("content") + len("/etc/passwd")


def test_a_volume_with_data_is_left_alone(volumes: Volumes, image: int) -> None:
    (Path(volumes.create("db").mountpoint) / "mine").write_text("")
    assert not volumes.populate("db", image, "/data")
    assert os.listdir(volumes.get("db").mountpoint) == ["mine"]


def test_the_image_cannot_lead_the_copy_outside(volumes: Volumes, image: int) -> None:
    volumes.create("db")
    with pytest.raises(NotFound):
        volumes.populate("db", image, "/out")
    with pytest.raises(NotFound):
        volumes.populate("db", image, "/absent")
    with pytest.raises(Conflict):
        volumes.populate("db", image, "/file")
    assert volumes.is_empty("db")


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Volumes]:
    """Volumes below a root that is a link, as administrators make when a disk is full."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").symlink_to("elsewhere")
    yield Volumes(Database(tmp_path / "naru.db"), tmp_path / "root")
    for place in (tmp_path / "elsewhere").glob("*/_data"):
        subprocess.run(["umount", str(place)], check=False, capture_output=True)


def test_a_volume_with_options_is_mounted_once_and_until_its_last_users_end(linked: Volumes) -> None:
    volume = linked.create("mem", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"})
    linked.mount("mem", "one")
    (Path(volume.mountpoint) / "word").touch()
    linked.mount("mem", "two")
    linked.unmount("one")
    assert [path.name for path in Path(volume.mountpoint).iterdir()] == ["word"]
    with pytest.raises(Conflict):
        linked.remove("mem")
    linked.unmount("two")
    assert not os.path.ismount(volume.mountpoint)


def test_what_a_killed_process_left_mounted_is_unmounted_before_anything_is_removed(
    linked: Volumes, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "kept").touch()
    options = {"type": "none", "device": str(tmp_path / "precious"), "o": "bind"}
    for name in ("one", "two"):
        linked.create(name, options=options)
        linked.mount(name, "box")
    after = Volumes(Database(tmp_path / "naru.db"), tmp_path / "root")
    after.remove("one")
    after.recover(())
    assert after.is_empty("two")
    assert (tmp_path / "precious" / "kept").exists()


def test_recovery_forgets_dead_users_and_finishes_removals(volumes: Volumes, tmp_path: Path) -> None:
    volumes.acquire("db", "alive")
    volumes.acquire("db", "dead")
    root = tmp_path / "volumes"
    (root / ".removing-1/_data/x").mkdir(parents=True)
    (root / "db/_new/half").mkdir(parents=True)
    (root / "orphan/_data").mkdir(parents=True)
    (root / "orphan/_data/precious").write_text("")
    volumes.recover({"alive"})
    assert volumes.users("db") == ["alive"]
    found = subprocess.run(["find", root, "-mindepth", "1", "-printf", "%P\n"], capture_output=True, check=True).stdout
    assert sorted(found.decode().split()) == ["db", "db/_data", "orphan", "orphan/_data", "orphan/_data/precious"]
