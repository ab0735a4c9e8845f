"""Volumes and bind mounts by the unmodified docker command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from daemon import Daemon

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def with_volume(shared_narud: Daemon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a VOLUME that holds a file of user 33."""
    context = tmp_path_factory.mktemp("context")
    lines = ["FROM busybox", "RUN mkdir /data && echo seed >/data/file && chown 33:33 /data/file", "VOLUME /data"]
    (context / "Dockerfile").write_text("\n".join(lines))
    shared_narud("build", "--tag", "with-volume", str(context))
    return "with-volume"


def test_a_named_volume_outlives_its_container(narud: Daemon) -> None:
    narud("run", "--rm", "-v", "keep:/data", "busybox", "sh", "-c", "echo kept >/data/file")
    assert narud("run", "--rm", "-v", "keep:/data", "busybox", "cat", "/data/file") == "kept"
    assert narud("volume", "ls", "--quiet") == "keep"


def test_volume_commands(narud: Daemon) -> None:
    assert narud("volume", "create", "--label", "a=b", "made") == "made"
    volume = json.loads(narud("volume", "inspect", "made"))[0]
    assert (volume["Driver"], volume["Labels"], volume["Scope"]) == ("local", {"a": "b"}, "local")
    assert Path(volume["Mountpoint"]).is_dir()
    narud("create", "--name", "user", "-v", "made:/x", "busybox")
    assert "volume is in use" in narud.docker("volume", "rm", "made").err
    narud("rm", "user")
    assert narud("volume", "rm", "made") == "made"
    assert "no such volume" in narud.docker("volume", "inspect", "made").err.lower()


def test_a_host_directory_is_seen_and_written(narud: Daemon, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from host")
    bind = f"{tmp_path}:/data"
    assert narud("run", "--rm", "-v", bind, "busybox", "sh", "-c", "cat /data/in; echo out >/data/out") == "from host"
    assert (tmp_path / "out").read_text() == "out\n"


def test_a_missing_host_directory_is_made_by_v_alone(narud: Daemon, tmp_path: Path) -> None:
    narud("run", "--rm", "-v", f"{tmp_path}/deep/er:/data", "busybox", "true")
    assert (tmp_path / "deep/er").is_dir()


@pytest.mark.parametrize(
    "option",
    [
        ["-v", "{}:/data:ro"],
        ["--mount", "type=bind,source={},target=/data,readonly"],
        ["-v", "named:/data:ro"],
    ],
)
def test_a_read_only_mount_refuses_to_be_written(narud: Daemon, tmp_path: Path, option: list[str]) -> None:
    mount = [word.format(tmp_path) for word in option]
    done = narud.docker("run", "--rm", *mount, "busybox", "touch", "/data/file")
    assert done.code == 1
    assert "Read-only file system" in done.err


def test_one_file_can_be_mounted(narud: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    assert narud("run", "--rm", "-v", f"{tmp_path}/file:/etc/issue:ro", "busybox", "cat", "/etc/issue") == "content"


def test_a_new_volume_takes_what_the_image_has_there(narud: Daemon, with_volume: str) -> None:
    look = ["stat", "-c", "%n %u", "/data/file"]
    assert narud("run", "--rm", with_volume, *look) == "/data/file 33"
    assert narud("run", "--rm", "-v", "fresh:/data", with_volume, *look) == "/data/file 33"
    assert narud("run", "--rm", "-v", "empty:/data:nocopy", with_volume, "ls", "/data") == ""


def test_an_anonymous_volume_goes_with_rm(narud: Daemon, with_volume: str) -> None:
    narud("run", "--rm", with_volume, "true")
    assert narud("volume", "ls", "--quiet") == ""
    narud("run", "--name", "kept", with_volume, "true")
    assert len(narud("volume", "ls", "--quiet")) == 64
    narud("rm", "--volumes", "kept")
    assert narud("volume", "ls", "--quiet") == ""


def test_a_named_volume_stays_when_rm_removes_volumes(narud: Daemon) -> None:
    narud("run", "--rm", "-v", "named:/data", "busybox")
    narud("run", "--name", "box", "-v", "named:/data", "busybox")
    narud("rm", "--volumes", "box")
    assert narud("volume", "ls", "--quiet") == "named"


def test_volumes_from_another_container(narud: Daemon, with_volume: str, tmp_path: Path) -> None:
    narud("create", "--name", "owner", "-v", f"{tmp_path}:/host", with_volume)
    script = "cat /data/file; echo more >>/data/file; echo >/host/file"
    assert narud("run", "--rm", "--volumes-from", "owner", "busybox", "sh", "-c", script) == "seed"
    assert narud("run", "--rm", "--volumes-from", "owner:ro", "busybox", "cat", "/data/file") == "seed\nmore"
    refused = narud.docker("run", "--rm", "--volumes-from", "owner:ro", "busybox", "touch", "/data/x")
    assert "Read-only file system" in refused.err


def test_inspect_shows_the_mounts(narud: Daemon, tmp_path: Path) -> None:
    narud("create", "--name", "box", "-v", f"{tmp_path}:/bind:ro", "-v", "named:/volume", "busybox")
    mounts = json.loads(narud("inspect", "--format", "{{json .Mounts}}", "box"))
    shown = {(m["Type"], m.get("Name", ""), m["Destination"], m["RW"]) for m in mounts}
    assert shown == {("bind", "", "/bind", False), ("volume", "named", "/volume", True)}


def test_prune_takes_unused_anonymous_volumes(narud: Daemon) -> None:
    unused = narud("volume", "create")
    narud("create", "--name", "box", "-v", "/anonymous", "busybox")
    used = narud("inspect", "--format", "{{(index .Mounts 0).Name}}", "box")
    assert "Total reclaimed space" in narud("volume", "prune", "--force")
    left = narud("volume", "ls", "--quiet").splitlines()
    assert (used in left, unused in left) == (True, False)
