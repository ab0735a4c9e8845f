from __future__ import annotations

import os
from pathlib import Path

import pytest
from debian_archive import deb, directory, file, hard_link, symlink, tar_of

from naru.errors import Corrupt
from naru.library.debian_files import SLIM_RULES
from naru.library.debian_package import Deb, PathFilter, Root, read_deb

CONTROL = {"control": b"Package: p\nVersion: 1\n"}


def unpack(root: Path, *members: object, conffiles: bytes = b"", skip: PathFilter | None = None) -> list[str]:
    content = deb({**CONTROL, "conffiles": conffiles}, tar_of(members))  # type: ignore[arg-type]
    with Root(str(root)) as target:
        return target.unpack(read_deb(content, "p"), skip or PathFilter())


def test_files_links_modes_and_times_come_out_as_they_went_in(tmp_path: Path) -> None:
    owned = unpack(
        tmp_path,
        directory("./"),
        directory("./usr/", 0o755),
        directory("./usr/bin/", 0o750),
        file("./usr/bin/tool", b"x" * 100_000, 0o4755),
        hard_link("./usr/bin/twin", "./usr/bin/tool"),
        symlink("./usr/bin/alias", "tool"),
    )
    tool = (tmp_path / "usr/bin/tool").stat()
    assert owned == ["/.", "/usr", "/usr/bin", "/usr/bin/tool", "/usr/bin/twin", "/usr/bin/alias"]
    assert (tool.st_size, oct(tool.st_mode & 0o7777), tool.st_mtime) == (100_000, "0o4755", 1_600_000_000)
    assert (tmp_path / "usr/bin/twin").stat().st_ino == tool.st_ino
    assert os.readlink(tmp_path / "usr/bin/alias") == "tool"
    assert oct((tmp_path / "usr/bin").stat().st_mode & 0o7777) == "0o750"


def test_a_directory_that_is_a_symlink_in_the_root_stays_one(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    unpack(tmp_path, directory("./bin/"), file("./bin/sh", b"sh"))
    assert (tmp_path / "bin").is_symlink()
    assert (tmp_path / "usr/bin/sh").read_bytes() == b"sh"


def test_an_absolute_symlink_leads_nowhere_but_into_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (root / outside.relative_to("/")).mkdir(parents=True)
    (root / "way").symlink_to(outside)
    unpack(root, file("./way/file", b"caught"))
    assert list(outside.iterdir()) == []
    assert (root / outside.relative_to("/") / "file").read_bytes() == b"caught"


def test_a_path_that_climbs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="leaves the root"):
        unpack(tmp_path, file("./a/../../b", b""))


def test_a_file_in_the_place_of_a_symlink_replaces_the_link_not_its_target(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    root = tmp_path / "root"
    root.mkdir()
    (root / "name").symlink_to(victim)
    unpack(root, file("./name", b"theirs"))
    assert victim.read_text() == "mine"
    assert (root / "name").read_bytes() == b"theirs"


def test_a_conffile_waits_for_dpkg_to_configure_it(tmp_path: Path) -> None:
    unpack(tmp_path, file("./etc/conf", b"c"), file("./etc/other", b"o"), conffiles=b"/etc/conf\n")
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == ["conf.dpkg-new", "other"]


def test_slim_leaves_out_documentation_but_not_copyright_and_still_owns_both(tmp_path: Path) -> None:
    owned = unpack(
        tmp_path,
        file("./usr/share/doc/p/copyright", b"c"),
        file("./usr/share/doc/p/changelog.gz", b"l"),
        file("./usr/share/man/man1/p.1.gz", b"m"),
        skip=PathFilter(SLIM_RULES),
    )
    assert len(owned) == 3
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == [
        "usr/share/doc/p/copyright"
    ]


def test_a_flagged_conffile_names_no_file() -> None:
    package = Deb({"conffiles": b"/etc/a\nremove-on-upgrade /etc/b\n"}, b"")
    assert package.conffiles == ["/etc/a"]


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"PK\x03\x04", b"!<arch>\n" + b"x" * 60])
def test_what_is_no_package_is_refused(content: bytes) -> None:
    with pytest.raises(Corrupt):
        read_deb(content, "p")
