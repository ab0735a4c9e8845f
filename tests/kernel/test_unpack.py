"""Layers as they should be, and as an attacker would make them, against the real file system."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tars import Tar

from naru.errors import Corrupt, InvalidArgument
from naru.image.unpack import Unpacked, extract, unpack_layer
from naru.oci import digest
from naru.oci.digest import DiffID

pytestmark = pytest.mark.root


class Place:
    """A directory to unpack into, with a sentinel beside it that nothing may touch."""

    def __init__(self, root: Path) -> None:
        self.path = root / "fs"
        self.path.mkdir()
        self.outside = root / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text("secret")
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

    def layer(self, data: bytes, expected: DiffID | None = None) -> Unpacked:
        return unpack_layer(io.BytesIO(data), self.fd, expected=expected)

    def names(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*")}

    def is_whiteout(self, name: str) -> bool:
        status = (self.path / name).lstat()
        return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0

    def is_opaque(self, name: str) -> bool:
        return "trusted.overlay.opaque" in os.listxattr(self.path / name)

    def is_contained(self) -> bool:
        return sorted(os.listdir(self.outside)) == ["secret"] and (self.outside / "secret").read_text() == "secret"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    os.close(made.fd)
    assert made.is_contained()


# What a layer says is what the directory has


def test_every_kind_of_entry_arrives_with_its_attributes(place: Place) -> None:
    place.layer(
        Tar()
        .directory("./", mode=0o711)
        .directory("d", mode=0o2750, uid=3, gid=4, mtime=1000)
        .add("d/f", b"data", mode=0o4755, uid=1, gid=2, mtime=1_600_000_000)
        .symlink("d/s", "f")
        .link("d/h", "d/f")
        .add("d/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        .add("d/fifo", type=tarfile.FIFOTYPE, mode=0o600)
        .bytes()
    )
    file, directory = (place.path / "d/f").stat(), (place.path / "d").stat()
    assert (file.st_mode, file.st_uid, file.st_gid, file.st_mtime) == (0o104755, 1, 2, 1_600_000_000)
    assert (directory.st_mode, directory.st_uid, directory.st_gid, directory.st_mtime) == (0o042750, 3, 4, 1000)
    assert (place.path / "d/h").stat().st_ino == file.st_ino
    assert os.readlink(place.path / "d/s") == "f"
    assert (place.path / "d/null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((place.path / "d/fifo").stat().st_mode)
    assert place.path.stat().st_mode == 0o040711


def test_xattrs_capabilities_and_nanoseconds_arrive(place: Place) -> None:
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    headers = {
        "SCHILY.xattr.user.note": "hello",
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "mtime": "1600000000.123456789",
    }
    place.layer(Tar().add("f", b"x", pax_headers=headers).bytes())
    assert os.getxattr(place.path / "f", "user.note") == b"hello"
    assert os.getxattr(place.path / "f", "security.capability") == capability
    assert (place.path / "f").stat().st_mtime_ns == 1_600_000_000_123_456_789


def test_names_longer_than_a_header_field_arrive_in_both_formats(place: Place) -> None:
    long = "/".join(["n" * 90] * 5)
    place.layer(Tar(tarfile.PAX_FORMAT).add(f"pax/{long}").link("pax/l", f"pax/{long}").bytes())
    place.layer(Tar(tarfile.GNU_FORMAT).add(f"gnu/{long}").symlink("gnu/l", long).bytes())
    assert (place.path / "pax/l").stat().st_ino == (place.path / "pax" / long).stat().st_ino
    assert os.readlink(place.path / "gnu/l") == long


def test_names_need_not_be_text(place: Place) -> None:
    place.layer(Tar(tarfile.GNU_FORMAT).add("caf\udce9").bytes())
    assert os.listdir(place.fd) == ["caf\udce9"]


def test_base_256_numbers_are_read(place: Place) -> None:
    place.layer(Tar(tarfile.GNU_FORMAT).add("f", uid=3_000_000_000, gid=4_000_000).bytes())
    status = (place.path / "f").stat()
    assert (status.st_uid, status.st_gid) == (3_000_000_000, 4_000_000)


@pytest.mark.parametrize("version", ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix"])
def test_sparse_files_of_gnu_tar_keep_their_holes(place: Place, tmp_path: Path, version: str) -> None:
    original = tmp_path / "sparse"
    with original.open("wb") as file:
        for position in range(0, 60 << 20, 2 << 20):
            file.seek(position)
            file.write(b"island %d" % position)
        file.truncate(64 << 20)
    command = ["tar", "-cS", *f"--format={version}".split(), "-C", tmp_path, "sparse"]
    place.layer(subprocess.run(command, check=True, capture_output=True).stdout)
    copy = place.path / "sparse"
    assert copy.read_bytes() == original.read_bytes()
    assert copy.stat().st_blocks * 512 < 4 << 20


def test_the_last_entry_of_a_name_counts(place: Place) -> None:
    place.layer(
        Tar()
        .add("a", b"1")
        .add("a", b"22")
        .directory("b")
        .add("b/x")
        .add("b", b"file")
        .add("c", b"file")
        .directory("c")
        .add("c/x")
        .symlink("d", "a")
        .add("d", b"own")
        .directory("e")
        .add("e/x")
        .directory("e", mode=0o700)
        .bytes()
    )
    assert (place.path / "a").read_bytes() == b"22"
    assert (place.path / "b").read_bytes() == b"file"
    assert (place.path / "c/x").exists()
    assert (place.path / "d").read_bytes() == b"own" and not (place.path / "d").is_symlink()
    assert (place.path / "e/x").exists() and (place.path / "e").stat().st_mode == 0o040700


# Whiteouts


def test_whiteouts_become_what_overlayfs_understands(place: Place) -> None:
    unpacked = place.layer(Tar().directory("d").add("d/.wh.gone").add("d/.wh..wh..opq").add(".wh.top").bytes())
    assert place.is_whiteout("d/gone") and place.is_whiteout("top") and place.is_opaque("d")
    assert unpacked.whiteouts == [b"d/gone", b"top"]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_whiteout_does_not_touch_its_own_layer(place: Place, is_first: bool) -> None:
    tar = Tar()
    if is_first:
        tar.add(".wh.file").add(".wh.dir")
    tar.add("file", b"new").directory("dir").add("dir/x")
    if not is_first:
        tar.add(".wh.file").add(".wh.dir")
    place.layer(tar.bytes())
    assert (place.path / "file").read_bytes() == b"new"
    assert (place.path / "dir/x").exists() and place.is_opaque("dir")


def test_an_entry_below_a_whiteout_of_the_same_layer_makes_an_opaque_directory(place: Place) -> None:
    unpacked = place.layer(Tar().add(".wh.d").add("d/x", b"1").bytes())
    assert (place.path / "d/x").read_bytes() == b"1" and place.is_opaque("d")
    assert unpacked.whiteouts == []


def test_the_books_of_aufs_are_left_out(place: Place) -> None:
    place.layer(Tar().add(".wh..wh.aufs").directory(".wh..wh.plnk").add(".wh..wh.plnk/1.2").add("f").bytes())
    assert place.names() == {"f"}


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh...", ".wh.x/y"])
def test_whiteouts_of_nothing_are_refused(place: Place, name: str) -> None:
    with pytest.raises(Corrupt):
        place.layer(Tar().add(name).bytes())


def test_overlayfs_own_xattrs_and_device_are_not_taken_from_a_layer(place: Place) -> None:
    headers = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc"}
    place.layer(Tar().directory("d", pax_headers=headers).bytes())
    assert os.listxattr(place.path / "d") == []
    with pytest.raises(Corrupt):
        place.layer(Tar().add("w", type=tarfile.CHRTYPE, devmajor=0, devminor=0).bytes())


def test_a_hard_link_cannot_multiply_a_whiteout(place: Place) -> None:
    with pytest.raises(Corrupt):
        place.layer(Tar().add(".wh.a").link("b", "a").bytes())


# Where entries may go


@pytest.mark.parametrize("target", ["inside", "/inside", "../../inside", "./x/../inside"])
def test_entries_below_a_symlink_go_where_it_leads_inside_the_root(place: Place, target: str) -> None:
    place.layer(
        Tar().directory("inside").directory("x").symlink("x/l", target.replace("./x", "/x")).add("x/l/f", b"1").bytes()
    )
    found = [name for name in place.names() if name.endswith("/f")]
    assert len(found) == 1 and (place.path / "x/l").is_symlink()


def test_an_entry_below_a_dangling_symlink_makes_its_target_inside_the_root(place: Place) -> None:
    place.layer(Tar().symlink("l", "/not/yet").add("l/f", b"1").bytes())
    assert (place.path / "not/yet/f").read_bytes() == b"1"


def test_absolute_names_and_dots_are_relative_to_the_root(place: Place) -> None:
    place.layer(Tar().add("/abs").add("/../up").add("a/../b").add("./c//d").bytes())
    assert place.names() == {"abs", "up", "b", "c", "c/d"}


@pytest.mark.parametrize(
    "tar",
    [
        Tar().add("../outside/secret", b"pwned"),
        Tar().add("a/../../outside/secret", b"pwned"),
        Tar().directory("d").link("d/h", "../outside/secret"),
        Tar().link("h", "../../../../../../../../etc/passwd"),
        Tar().link("h", "h"),
        Tar().directory("d").link("h", "d"),
        Tar().symlink("l", "l").add("l/f"),
        Tar().add("f").add("f/below"),
        Tar().add(".", b"the root as a file"),
        Tar().add("n" * 300),
        Tar().add("f", uid=0xFFFFFFFF, mode=0o4755),
    ],
    ids=[
        "parent",
        "later parent",
        "hard link",
        "far hard link",
        "self",
        "directory",
        "loop",
        "file",
        "root",
        "long",
        "uid",
    ],
)
def test_hostile_entries_are_refused(place: Place, tar: Tar) -> None:
    with pytest.raises(Corrupt):
        place.layer(tar.bytes())


def test_symlinks_out_of_the_root_lead_nowhere(place: Place) -> None:
    outside = str(place.outside)
    place.layer(
        Tar()
        .symlink("abs", outside)
        .add("abs/secret", b"pwned")
        .symlink("rel", "../outside")
        .add("rel/secret", b"pwned")
        .symlink("file", f"{outside}/secret")
        .add("file", b"replaced")
        .symlink("dir", outside)
        .directory("dir", mode=0o777, uid=7)
        .bytes()
    )
    assert place.is_contained()
    assert (place.path / "file").read_bytes() == b"replaced"
    assert (place.path / outside[1:] / "secret").read_bytes() == b"pwned"


def test_a_directory_swapped_for_a_symlink_is_not_written_through_its_old_self(place: Place) -> None:
    place.layer(
        Tar()
        .directory("d")
        .add("d/a")
        .symlink("d", str(place.outside))
        .add("d/secret", b"pwned")
        .directory("e")
        .add("e/x")
        .bytes()
    )
    assert place.is_contained() and (place.path / "e/x").exists()


def test_a_hard_link_to_a_symlink_links_the_symlink(place: Place) -> None:
    place.layer(Tar().symlink("s", f"{place.outside}/secret").link("h", "s").add("h", b"own").bytes())
    assert (place.path / "h").read_bytes() == b"own"


# Damage, bombs, identity


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_the_diff_id_is_of_the_uncompressed_tar(place: Place, compress: Any) -> None:
    tar = Tar().add("f", b"x" * 100_000).bytes()
    unpacked = place.layer(compress(tar), expected=DiffID(digest.of(tar)))
    assert (unpacked.diff_id, unpacked.tar_size, unpacked.size_bytes) == (digest.of(tar), len(tar), 100_000)


def test_members_of_a_gzip_follow_each_other(place: Place) -> None:
    tar = Tar().add("f", b"x" * 5000).bytes()
    place.layer(gzip.compress(tar[:3000]) + gzip.compress(tar[3000:]), expected=DiffID(digest.of(tar)))


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_a_cut_layer_is_corrupt(place: Place, compress: Any) -> None:
    data = compress(Tar().add("f", os.urandom(200_000)).bytes())
    with pytest.raises(Corrupt):
        place.layer(data[: len(data) // 2])


def test_another_diff_id_is_corrupt(place: Place) -> None:
    with pytest.raises(Corrupt, match="diff ID"):
        place.layer(Tar().add("f").bytes(), expected=DiffID(digest.of(b"other")))


def test_garbage_is_corrupt(place: Place) -> None:
    with pytest.raises(Corrupt):
        place.layer(b"\x01" * 4096)


def test_a_negative_size_is_corrupt(place: Place) -> None:
    data = bytearray(Tar().add("f").bytes())
    data[124:136] = b"\xff" * 12
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    with pytest.raises(Corrupt):
        place.layer(bytes(data))


def test_a_header_that_promises_much_takes_no_space(place: Place) -> None:
    data = bytearray(Tar().add("f").bytes())
    data[124:136] = b"77777777777\0"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    with pytest.raises(Corrupt):
        place.layer(bytes(data))
    assert (
        sum(path.stat().st_blocks for path in place.path.rglob("f")) == 0 or (place.path / "f").stat().st_size < 1 << 20
    )


@pytest.mark.parametrize("fragments", ["0,1,0,1", "5,1", "0,9", "0,1,2", "-1,2", "x"])
def test_sparse_maps_that_do_not_fit_are_corrupt(place: Place, fragments: str) -> None:
    headers = {"GNU.sparse.map": fragments, "GNU.sparse.size": "4", "GNU.sparse.major": "0", "GNU.sparse.minor": "1"}
    with pytest.raises(Corrupt):
        place.layer(Tar().add("f", b"ab", pax_headers=headers).bytes())


def test_a_gzip_bomb_does_not_fill_the_memory(place: Place) -> None:
    tar = Tar().add("zeros", b"\0" * (64 << 20)).bytes()
    assert place.layer(gzip.compress(tar, 9)).size_bytes == 64 << 20


def test_an_empty_layer_is_one(place: Place) -> None:
    assert place.layer(Tar().bytes()).entries == 0


# Plain archives


def test_a_plain_archive_goes_over_what_is_there_and_knows_no_whiteouts(place: Place) -> None:
    (place.path / "d").mkdir()
    (place.path / "d/old").write_text("old")
    entries = extract(io.BytesIO(Tar().directory("d").add("d/.wh.old").bytes()), place.fd, owner=(5, 6))
    assert entries == 2 and place.names() == {"d", "d/old", "d/.wh.old"}
    assert (place.path / "d/.wh.old").stat().st_uid == 5


def test_a_plain_archive_may_be_kept_from_replacing_directories(place: Place) -> None:
    (place.path / "d").mkdir()
    with pytest.raises(InvalidArgument, match='cannot overwrite directory "/d" with non-directory'):
        extract(io.BytesIO(Tar().add("d").bytes()), place.fd, keep_directories=True)
