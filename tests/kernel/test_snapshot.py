"""Snapshots on a real overlayfs: layers merge as one image, changes come back as layers, nothing half made stays."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tars import Tar

from naru.content.store import ContentStore
from naru.errors import Conflict, Corrupt, NotFound
from naru.image import diff
from naru.image.snapshot import Snapshots
from naru.oci.digest import ChainID, DiffID, of
from naru.persist.database import Database

pytestmark = pytest.mark.root


class Site:
    """A data root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = Database(root / "naru.db")
        self.content = ContentStore(root)
        self.snapshots = Snapshots(self.database, root / "snapshots")

    def layer(self, tar: Tar, parent: ChainID | None = None) -> ChainID:
        return self.snapshots.commit_layer(self.snapshots.unpack(io.BytesIO(tar.bytes())), parent)

    def see(self, chain: ChainID) -> set[str]:
        """Every path in a committed stack, as a container would see it."""
        root = self.snapshots.mount_view(chain)
        try:
            return _paths(root)
        finally:
            os.close(root)

    def directories(self) -> set[str]:
        return {path.name for path in (self.root / "snapshots").iterdir()} - {"empty"}


def _paths(root: int) -> set[str]:
    base = f"/proc/self/fd/{root}"
    command = ["find", f"{base}/", "-mindepth", "1", "-printf", "%P\n"]
    listed = subprocess.run(command, pass_fds=[root], capture_output=True)
    assert not listed.stderr, listed.stderr
    return set(listed.stdout.decode().split())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# Layers on layers


def test_layers_merge_and_whiteouts_hide(site: Site) -> None:
    base = site.layer(Tar().directory("d").add("d/a").add("d/b").directory("o").add("o/old").add("top"))
    upper = site.layer(
        Tar().add("d/.wh.a").add("d/c").directory("o").add("o/.wh..wh..opq").add("o/new").add(".wh.top"), base
    )
    assert site.see(base) == {"d", "d/a", "d/b", "o", "o/old", "top"}
    assert site.see(upper) == {"d", "d/b", "d/c", "o", "o/new"}


def test_a_directory_that_the_layer_does_not_list_keeps_its_attributes(site: Site) -> None:
    base = site.layer(Tar().directory("./", mode=0o710).directory("d", mode=0o1777, uid=5, gid=6, mtime=1000))
    upper = site.layer(Tar().add("d/f"), base)
    root = site.snapshots.mount_view(upper)
    status = os.stat("d", dir_fd=root)
    assert (status.st_mode, status.st_uid, status.st_gid) == (0o041777, 5, 6)
    assert os.fstat(root).st_mode == 0o040710
    os.close(root)


def test_a_whiteout_of_nothing_is_not_an_entry(site: Site) -> None:
    base = site.layer(Tar().add(".wh.x").directory("d").add("d/.wh.y").add("a"))
    upper = site.layer(Tar().directory("n").add("n/.wh.z").add(".wh.a").add("b"), base)
    assert site.see(base) == {"d", "a"}
    assert site.see(upper) == {"b", "d", "n"}


def test_what_an_opaque_directory_hides_needs_no_whiteout(site: Site) -> None:
    base = site.layer(Tar().directory("d").add("d/a"))
    middle = site.layer(Tar().directory("d").add("d/.wh..wh..opq"), base)
    assert site.see(site.layer(Tar().add("d/.wh.a").add("d/b"), middle)) == {"d", "d/b"}


def test_a_corrupt_layer_leaves_nothing(site: Site) -> None:
    with pytest.raises(Corrupt):
        site.snapshots.unpack(io.BytesIO(Tar().add("f").bytes()), DiffID(of(b"other")))
    assert site.directories() == set()
    assert site.database.query("SELECT * FROM snapshots") == []


def test_two_unpackers_of_one_chain_both_succeed(site: Site) -> None:
    tar = Tar().add("f", b"x" * 1000).bytes()
    gate = threading.Barrier(2)

    def unpack() -> ChainID:
        layer = site.snapshots.unpack(io.BytesIO(tar))
        gate.wait(10)
        return site.snapshots.commit_layer(layer, None)

    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(unpack), pool.submit(unpack)])
    assert first == second
    assert len(site.directories()) == 1


# Active snapshots


def test_an_active_snapshot_shows_its_parent_and_keeps_its_own_changes(site: Site) -> None:
    base = site.layer(Tar().directory("d", mode=0o755).add("d/a").add("gone"))
    site.snapshots.prepare("one", base)
    root = site.snapshots.mount_detached("one")
    (Path(f"/proc/self/fd/{root}/d/new")).write_bytes(b"12345")
    (Path(f"/proc/self/fd/{root}/gone")).unlink()
    assert _paths(root) == {"d", "d/a", "d/new"}
    os.close(root)
    assert site.snapshots.usage("one") == 5
    assert [(change.kind, change.path) for change in site.snapshots.changes("one")] == [
        ("modified", "/d"),
        ("added", "/d/new"),
        ("deleted", "/gone"),
    ]
    assert site.see(base) == {"d", "d/a", "gone"}


def test_a_snapshot_on_nothing_is_empty_and_writable(site: Site) -> None:
    site.snapshots.prepare("scratch", None)
    root = site.snapshots.mount_detached("scratch")
    os.mkdir("d", dir_fd=root)
    assert _paths(root) == {"d"}
    os.close(root)


def test_names_are_checked(site: Site) -> None:
    site.snapshots.prepare("one", None)
    with pytest.raises(Conflict):
        site.snapshots.prepare("one", None)
    with pytest.raises(NotFound):
        site.snapshots.prepare("two", ChainID(of(b"absent")))
    with pytest.raises(NotFound):
        site.snapshots.overlay("absent")
    site.snapshots.remove("absent")


def test_changes_become_a_layer_that_makes_the_same_tree_elsewhere(site: Site, tmp_path: Path) -> None:
    base = site.layer(
        Tar()
        .directory("d")
        .add("d/a", b"a")
        .add("d/b", b"b")
        .directory("o")
        .add("o/old")
        .directory("gone")
        .add("gone/x")
    )
    site.snapshots.prepare("build", base)
    root = site.snapshots.mount_detached("build")
    script = r"""
        set -e; cd /proc/self/fd/%d
        rm d/a; echo new > d/n; ln d/n d/hard; ln -s ../o d/link; rm -r o; mkdir o; echo in > o/fresh; rm -r gone
        mkfifo d/pipe; mknod d/null c 1 3; chown 7:8 d/n; chmod 4711 d/n; setfattr -n user.k -v v d/n 2>/dev/null || :
        mkdir -p "$(printf 'long%%.0s' $(seq 50))/$(printf 'path%%.0s' $(seq 50))"; truncate -s 50M d/sparse; touch d/b
    """
    subprocess.run(["sh", "-c", script % root], pass_fds=[root], check=True)
    expected = _paths(root)
    os.close(root)

    upper = site.snapshots.upper("build")
    blob = diff.store_layer(upper, site.content)
    os.close(upper)
    assert blob is not None
    chain = site.snapshots.commit("build", blob.diff_id, tar_size=blob.tar_size)
    assert site.see(chain) == expected

    other = Site(_made(tmp_path / "other"))
    with site.content.open(blob.blob.digest) as source:
        layer = other.snapshots.unpack(source, blob.diff_id)
    again = other.snapshots.commit_layer(
        layer,
        other.layer(
            Tar()
            .directory("d")
            .add("d/a", b"a")
            .add("d/b", b"b")
            .directory("o")
            .add("o/old")
            .directory("gone")
            .add("gone/x")
        ),
    )
    assert again == chain and other.see(again) == expected
    root = other.snapshots.mount_view(again)
    status, sparse = os.stat("d/n", dir_fd=root), os.stat("d/sparse", dir_fd=root)
    assert (status.st_mode, status.st_uid, status.st_gid, status.st_nlink) == (0o104711, 7, 8, 2)
    assert sparse.st_size == 50 << 20 and sparse.st_blocks < 100
    assert stat.S_ISFIFO(os.stat("d/pipe", dir_fd=root).st_mode)
    os.close(root)


def test_the_same_tree_gives_the_same_tar_and_gnu_tar_reads_it(site: Site) -> None:
    def make(key: str) -> bytes:
        site.snapshots.prepare(key, None)
        upper = site.snapshots.upper(key)
        for name in ("b", "a", "c"):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=upper))
        os.mkdir("d" * 150, dir_fd=upper)
        pieces: list[bytes] = []
        diff.write_layer(upper, pieces.append, latest_ns=10**18)
        os.close(upper)
        return b"".join(pieces)

    first = make("one")
    assert first == make("two")
    listed = subprocess.run(["tar", "-t"], input=first, check=True, capture_output=True)
    assert listed.stdout.decode().split() == ["a", "b", "c", "d" * 150 + "/"]
    assert listed.stderr == b""
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {member.mtime for member in tar} == {10**9}


def test_nothing_changed_is_no_layer(site: Site, tmp_path: Path) -> None:
    site.snapshots.prepare("one", site.layer(Tar().add("f")))
    upper = site.snapshots.upper("one")
    assert diff.store_layer(upper, site.content) is None
    os.close(upper)
    assert list(site.content.blobs()) == [] and list((tmp_path / "ingest").iterdir()) == []


# Staying and going


def test_a_committed_snapshot_goes_when_nothing_stands_on_it(site: Site) -> None:
    base = site.layer(Tar().add("a"))
    upper = site.layer(Tar().add("b"), base)
    site.snapshots.prepare("container", upper)
    assert site.snapshots.collect(set()) == []
    site.snapshots.remove("container")
    with site.snapshots.hold([base]):
        assert site.snapshots.collect({upper}) == []
        assert site.snapshots.collect(set()) == [upper]
    assert site.snapshots.collect(set()) == [base]
    assert site.directories() == set()


def test_a_very_deep_tree_is_removed(site: Site) -> None:
    site.snapshots.prepare("deep", None)
    current = site.snapshots.upper("deep")
    for _level in range(3000):
        os.mkdir("d", dir_fd=current)
        below = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)
    site.snapshots.remove("deep")
    assert site.directories() == set()


def test_recovery_keeps_what_is_known_and_removes_the_rest(site: Site) -> None:
    base = site.layer(Tar().add("a"))
    site.snapshots.prepare("kept", base)
    site.snapshots.prepare("build-1", base)
    site.snapshots.unpack(io.BytesIO(Tar().add("half").bytes()))
    (site.root / "snapshots/999/fs").mkdir(parents=True)
    again = Site(site.root)
    again.snapshots.recover({"kept"})
    assert len(again.directories()) == 2
    assert again.snapshots.overlay("kept").lower == site.snapshots.overlay("kept").lower
    assert again.see(base) == {"a"}


def _made(path: Path) -> Path:
    path.mkdir()
    return path
