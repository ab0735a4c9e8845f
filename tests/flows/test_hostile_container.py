"""Containers, images and volumes that try to get at the host: each of these once did, or would if a guard went."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import stat
import tarfile
from pathlib import Path

import pytest
from daemon import Daemon, wait_until

from naru.kernel import tree

pytestmark = pytest.mark.root

Member = tuple[tarfile.TarInfo, bytes]
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# Runs in the container: looks through /proc for processes whose root is the host's, until told to stop.
WATCH = """
while [ ! -e /stop ]; do
    for process in /proc/[0-9]*; do [ -e $process/root/$1 ] && echo "escaped by $process"; done
done
"""


def directory(name: str, mode: int = 0o755) -> Member:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, mode
    return member, b""


def symlink(name: str, target: Path | str) -> Member:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, str(target)
    return member, b""


def file(name: str, data: bytes = b"") -> Member:
    return tarfile.TarInfo(name), data


def tar(*members: Member) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def load(narud: Daemon, path: Path, *layers: bytes) -> None:
    config = {
        "architecture": _ARCHITECTURES[os.uname().machine],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]},
    }
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": ["hostile:1"], "Layers": names}]
    documents = [file("config.json", json.dumps(config).encode()), file("manifest.json", json.dumps(manifest).encode())]
    path.write_bytes(tar(*documents, *(file(name, one) for name, one in zip(names, layers, strict=True))))
    narud("load", "--input", str(path))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of the host that nobody is to touch."""
    made = tmp_path / "victim"
    (made / "sub").mkdir(parents=True, mode=0o700)
    (made / "file").write_text("kept")
    return made


def untouched(victim: Path) -> bool:
    is_same = (victim / "file").read_text() == "kept" and stat.S_IMODE((victim / "sub").stat().st_mode) == 0o700
    return is_same and sorted(os.listdir(victim)) == ["file", "sub"] and not os.listdir(victim / "sub")


def test_a_whiteout_behind_a_symlink_removes_nothing_of_the_host(narud: Daemon, tmp_path: Path, victim: Path):
    load(narud, tmp_path / "image.tar", tar(symlink("link", victim), file("link/.wh.file")))

    assert untouched(victim)


def test_a_whiteout_whose_directory_becomes_a_symlink_removes_nothing_of_the_host(
    narud: Daemon, tmp_path: Path, victim: Path
):
    load(narud, tmp_path / "image.tar", tar(directory("d"), file("d/.wh.file"), symlink("d", victim)))

    assert untouched(victim)


def test_a_directory_behind_a_symlink_gives_the_host_no_new_mode(narud: Daemon, tmp_path: Path, victim: Path):
    lower = tar(directory("link"), directory("link/sub", 0o4777))

    load(narud, tmp_path / "image.tar", lower, tar(symlink("link", victim), file("link/sub/x")))

    assert untouched(victim)


def test_a_tree_too_deep_to_walk_is_refused(narud: Daemon, tmp_path: Path):
    with pytest.raises(AssertionError, match="nested too deeply"):
        load(narud, tmp_path / "image.tar", tar(file("/".join(["deep"] * 950))))


def test_a_copy_into_a_volume_in_use_does_not_follow_what_is_put_in_its_way(tmp_path, victim, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a/sub").mkdir(parents=True)
    target.mkdir()
    for name in ("1", "2"):
        (source / "a/sub" / name).write_text("evil")
    copy = tree.copy_node

    def copy_and_swap(node: tree.Node, holder: int, name: bytes) -> None:
        copy(node, holder, name)
        if name == b"1":
            (target / "a").rename(target / "b")
            (target / "a").symlink_to(victim)

    monkeypatch.setattr(tree, "copy_node", copy_and_swap)
    descriptors = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]

    try:
        with pytest.raises(OSError, match="symbolic links"):
            tree.copy_tree(*descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert untouched(victim)


def test_a_container_that_may_trace_does_not_see_the_host_through_an_exec(narud: Daemon, tmp_path: Path):
    marker = tmp_path / "marker"
    marker.touch()
    watch = ["sh", "-c", WATCH, "-", str(marker)]
    narud("run", "--detach", "--name", "watcher", "--cap-add=SYS_PTRACE", "busybox", *watch)

    for _time in range(8):
        narud("exec", "watcher", "true")
    narud("exec", "watcher", "touch", "/stop")
    narud("wait", "watcher")

    assert narud("logs", "watcher") == ""


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_kernel_file_system_is_not_mounted_over_a_symlink(narud: Daemon, tmp_path: Path, name: str):
    load(narud, tmp_path / "image.tar", tar(symlink(name, "/elsewhere"), directory("elsewhere")))

    done = narud.docker("run", "--rm", "hostile:1", "true")

    assert done.code == 125
    assert "must be mounted on an ordinary directory" in done.err


def test_no_copy_leads_to_the_host_while_the_container_swaps_what_it_goes_through(narud: Daemon, tmp_path: Path):
    host = tmp_path / "host"
    host.mkdir()
    (host / "file").write_text("of the host")
    swap = f"mv /d /aside; ln -s {host} /d; : ; rm /d; mv /aside /d"
    script = f"mkdir /d; echo inside >/d/file; touch /ready; while :; do {swap}; done"
    narud("run", "--detach", "--name", "box", "busybox", "sh", "-c", script)
    wait_until(lambda: narud.docker("exec", "box", "test", "-e", "/ready").code == 0)
    came = set()

    for number in range(25):
        for path in ("/d/file", "/d/.", "/d"):
            came.add(narud.docker("cp", f"box:{path}", "-").out.partition("\0")[0])
            assert "of the host" not in narud.docker("cp", f"box:{path}", "-").out
        narud.docker("cp", "-", "box:/d", stdin=tar(file(f"new{number}", b"from a copy")))

    assert came & {"file", "./", "d/"}  # some got through
    assert [path.name for path in host.iterdir()] == ["file"]
    assert (host / "file").read_text() == "of the host"
    loaded = Path(f"/proc/{narud.pid}/maps").read_text()
    assert str(narud.data / "snapshots") not in loaded and "overlay" not in loaded  # CVE-2019-14271


def test_a_container_has_docker_s_rights_and_nothing_of_ours(narud: Daemon):
    script = "ls /proc/self/fd | wc -l; grep -E '^(CapBnd|CapEff|Seccomp):' /proc/self/status; readlink /proc/1/cwd"
    expected = ["4", "CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "Seccomp:\t2", "/"]
    narud("run", "--detach", "--name", "box", "busybox", "sleep", "60")

    assert narud("run", "--rm", "busybox", "sh", "-c", script).splitlines() == expected
    assert narud("exec", "box", "sh", "-c", script).splitlines() == expected


def test_only_root_reads_the_records(narud: Daemon):
    modes = [stat.S_IMODE(path.stat().st_mode) for path in narud.data.glob("naru.db*")]

    assert modes and set(modes) == {0o600}


def test_a_dockerfile_does_not_choose_the_host_s_network(narud: Daemon, tmp_path: Path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN --network=host ip address\n")

    done = narud.docker("build", str(tmp_path))

    assert done.code == 1
    assert "network.host is not allowed" in done.out + done.err


def test_a_request_nested_too_deeply_is_the_client_s_mistake(narud: Daemon):
    body = b"[" * 100_000
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(f"{narud.run}/naru.sock")
        head = ["POST /containers/create HTTP/1.1", "Host: x", "Content-Type: application/json"]
        connection.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)

        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
