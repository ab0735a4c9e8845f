"""Hostile and broken archives: refused in one line, with nothing written outside and nothing left inside."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from daemon import Daemon

pytestmark = pytest.mark.root


def layer(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member, data


def write_image(path: Path, content: bytes, *, diff_id: str = "") -> Path:
    config = {
        "architecture": os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id or f"sha256:{hashlib.sha256(content).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["hostile:1"], "Layers": ["layer.tar"]}]
    files = {
        "layer.tar": content,
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def contents(narud: Daemon) -> set[str]:
    return {str(path) for room in ("blobs", "ingest", "snapshots") for path in (narud.data / room).glob("*/*")}


OUT = "/tmp/naru-test-escaped"

HOSTILE = {
    "a path with dots": [entry(f"../../../../../../../..{OUT}", data=b"x")],
    "a path below dots": [entry("etc/", tarfile.DIRTYPE), entry(f"etc/../../../../../../../..{OUT}", data=b"x")],
    "a symbolic link to outside": [entry("link", tarfile.SYMTYPE, "/tmp"), entry("link/naru-test-escaped", data=b"x")],
    "a symbolic link upwards": [
        entry("link", tarfile.SYMTYPE, "../../../../../../../../tmp"),
        entry("link/naru-test-escaped", data=b"x"),
    ],
    "a hard link to outside": [entry("link", tarfile.LNKTYPE, "../../../../../../../../etc/passwd")],
    "a hard link through a symbolic one": [
        entry("dir", tarfile.SYMTYPE, "/etc"),
        entry("link", tarfile.LNKTYPE, "dir/passwd"),
    ],
    "a whiteout of what is above": [entry("../.wh.fs", data=b"")],
    "a whiteout of the parent": [entry("dir/", tarfile.DIRTYPE), entry("dir/.wh...", data=b"")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_layer_touches_nothing_outside(
    own_narud_shared: Daemon, tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    narud = own_narud_shared
    before = contents(narud)
    passwd = os.stat("/etc/passwd").st_nlink
    done = narud.docker("load", "--input", str(write_image(tmp_path / "hostile.tar", layer(*members))))
    assert not os.path.lexists(OUT)
    assert os.stat("/etc/passwd").st_nlink == passwd
    narud.docker("rmi", "hostile:1")  # what stays inside the layer may be an image, as it is for Docker
    assert len(done.err.splitlines()) == done.code
    assert "hostile" not in narud("images")
    assert contents(narud) == before


def test_a_layer_with_another_diff_id_is_refused(own_narud_shared: Daemon, tmp_path: Path) -> None:
    narud = own_narud_shared
    before = contents(narud)
    archive = write_image(tmp_path / "wrong.tar", layer(entry("file", data=b"x")), diff_id=f"sha256:{'0' * 64}")
    done = narud.docker("load", "--input", str(archive))
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "hostile" not in narud("images")
    assert contents(narud) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive at all" * 100, layer(entry("some/file", data=b"but no manifest"))],
    ids=["empty", "noise", "no manifest"],
)
def test_what_is_no_image_is_refused_in_one_line(own_narud_shared: Daemon, content: bytes) -> None:
    before = contents(own_narud_shared)
    done = own_narud_shared.docker("load", stdin=content)
    assert done.code == 1
    assert len(done.err.strip().splitlines()) == 1
    assert contents(own_narud_shared) == before


def test_a_huge_sparse_file_takes_no_room(own_narud_shared: Daemon, tmp_path: Path) -> None:
    narud = own_narud_shared
    header = tarfile.TarInfo("huge")
    header.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "huge",
        "GNU.sparse.realsize": str(1 << 60),
    }
    made = io.BytesIO()
    data = b"0\n".ljust(512, b"\0")
    header.size = len(data)
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(header, io.BytesIO(data))
    before = contents(narud)
    narud.docker("load", "--input", str(write_image(tmp_path / "huge.tar", made.getvalue())))
    narud.docker("rmi", "hostile:1")
    assert contents(narud) == before
    assert narud("run", "--rm", "busybox", "echo", "unharmed") == "unharmed"


def test_a_cut_off_archive_leaves_nothing(own_narud_shared: Daemon, busybox_archive: Path) -> None:
    before = contents(own_narud_shared)
    whole = busybox_archive.read_bytes()
    own_narud_shared("tag", "busybox", "kept:1")
    done = own_narud_shared.docker("load", stdin=whole[: len(whole) // 2])
    assert done.code == 1
    assert contents(own_narud_shared) == before
