"""Every kind of mount of `docker run`, seen from inside the container, and what is refused when it is created."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root


def mounted(place: Path, *, shared: bool = False) -> None:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "test", str(place)], check=True)
    if shared:
        subprocess.run(["mount", "--make-shared", str(place)], check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory, shared, with another mount below it."""
    top = tmp_path / "tree"
    mounted(top, shared=True)
    mounted(top / "below")
    (top / "below" / "inner").touch()
    yield top
    subprocess.run(["umount", "--recursive", str(top)], check=True)


@pytest.mark.parametrize(
    ("options", "script", "printed"),
    [
        ("ro=false", "ls /in/below", "inner"),
        ("bind-recursive=disabled", "ls /in/below", ""),
        ("ro", "touch /in/below/x 2>&1", "touch: /in/below/x: Read-only file system"),
        ("ro,bind-recursive=writable", "touch /in/below/x && touch /in/x 2>&1", "touch: /in/x: Read-only file system"),
        (
            "ro,bind-propagation=rprivate,bind-recursive=readonly",
            "touch /in/below/x 2>&1",
            "touch: /in/below/x: Read-only file system",
        ),
    ],
)
def test_a_bind_reaches_and_protects_what_is_mounted_below_it(
    narud: Daemon, tree: Path, options: str, script: str, printed: str
) -> None:
    mount = f"type=bind,source={tree},target=/in,{options}"
    assert narud.docker("run", "--rm", "--mount", mount, "busybox", "sh", "-c", script).out.strip() == printed


def test_what_is_read_only_on_the_host_stays_so(narud: Daemon, tree: Path) -> None:
    subprocess.run(["mount", "-o", "remount,bind,ro", str(tree)], check=True)
    done = narud.docker("run", "--rm", "--volume", f"{tree}:/in:rw", "busybox", "touch", "/in/x")
    assert done.err.strip() == "touch: /in/x: Read-only file system"


def test_mounts_come_in_and_go_out_only_where_propagation_says_so(narud: Daemon, tree: Path) -> None:
    narud("run", "--detach", "--name", "slave", "--volume", f"{tree}:/in:rslave", "busybox", "sleep", "100")
    narud("run", "--detach", "--name", "private", "--volume", f"{tree}:/in", "busybox", "sleep", "100")
    shared = ["--privileged", "--volume", f"{tree}:/in:rshared"]
    narud("run", "--detach", "--name", "shared", *shared, "busybox", "sleep", "100")
    mounted(tree / "late")
    (tree / "late" / "seen").touch()
    assert narud("exec", "slave", "ls", "/in/late") == "seen"
    assert narud("exec", "private", "ls", "/in/late") == ""
    narud("exec", "shared", "sh", "-c", "mkdir /in/out && mount -t tmpfs x /in/out && touch /in/out/from-inside")
    assert [path.name for path in (tree / "out").iterdir()] == ["from-inside"]


def test_a_source_that_is_not_shared_cannot_be_a_slave_or_shared(narud: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "own"
    mounted(place)
    try:
        for mode, words in (("rshared", "a shared mount"), ("rslave", "a shared or slave mount")):
            done = narud.docker("create", "--volume", f"{place}:/in:{mode}", "busybox")
            assert f"path {place} is mounted on {place} but it is not {words}" in done.err
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_missing_source_is_made_for_a_volume_flag_and_on_request_only(narud: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "missing"
    request = {"Type": "bind", "Source": str(source), "Target": "/in"}
    done = narud.docker("create", "--mount", f"type=bind,source={source},target=/in", "busybox")
    assert f"bind source path does not exist: {source}" in done.err
    made = request | {"BindOptions": {"CreateMountpoint": True}}
    narud.api.create_container("busybox", host_config={"Mounts": [made]})
    assert source.is_dir()
    source.rmdir()
    narud("create", "--name", "box", "--volume", f"{source}:/in", "busybox", "true")
    source.rmdir()
    narud("start", "box")
    assert source.is_dir()


def test_an_image_is_mounted_whole_or_in_part_and_read_only(narud: Daemon) -> None:
    whole = ["--mount", "type=image,source=busybox,target=/whole"]
    part = ["--mount", "type=image,source=busybox,target=/part,image-subpath=etc"]
    script = "ls -d /whole/bin; ls /part/passwd; touch /whole/x 2>&1; touch /part/x 2>&1"
    printed = narud.docker("run", "--name", "box", *whole, *part, "busybox", "sh", "-c", script).out
    assert printed.splitlines() == [
        "/whole/bin",
        "/part/passwd",
        "touch: /whole/x: Read-only file system",
        "touch: /part/x: Read-only file system",
    ]
    shown = json.loads(narud("inspect", "--format", "{{json .Mounts}}", "box"))
    assert [(mount["Type"], mount["Name"], mount["RW"]) for mount in shown] == [("image", "busybox", False)] * 2
    missing = narud.docker("create", "--mount", "type=image,source=nowhere,target=/x", "busybox")
    assert "No such image: nowhere:latest" in missing.err


def test_a_part_of_a_volume_is_mounted_and_nothing_outside_of_it(narud: Daemon) -> None:
    script = (
        "mkdir -p /v/a/b; echo deep >/v/a/b/file; ln -s /etc /v/out; ln -s ../../../../../../etc /v/up; ln -s a /v/in"
    )
    narud("run", "--rm", "--volume", "data:/v", "busybox", "sh", "-c", script)

    def part(subpath: str) -> str:
        mount = f"type=volume,source=data,target=/p,volume-subpath={subpath}"
        done = narud.docker("run", "--rm", "--mount", mount, "busybox", "sh", "-c", "ls /p; cat /p 2>/dev/null")
        return (done.out + done.err).split("\n")[0]

    assert part("a") == "b"
    assert part("in/b") == "file"
    assert part("a/b/file") == "/p"
    assert "subpath leads outside of it" in part("out")
    assert "subpath leads outside of it" in part("up")
    assert "cannot access subpath nowhere: no such file or directory" in part("nowhere")
    assert "subpath must be a relative path within the volume" in part("a/../..")


def test_a_part_of_a_volume_is_inherited_with_the_mount(narud: Daemon) -> None:
    narud("run", "--rm", "--volume", "data:/v", "busybox", "mkdir", "-p", "/v/part/only")
    mount = "type=volume,source=data,target=/v,volume-subpath=part"
    narud("create", "--name", "donor", "--mount", mount, "busybox")
    script = "ls /v; touch /v/x 2>&1"
    done = narud.docker("run", "--rm", "--volumes-from", "donor:ro", "busybox", "sh", "-c", script)
    assert done.out.splitlines() == ["only", "touch: /v/x: Read-only file system"]


def test_a_volume_made_by_a_mount_has_its_labels_and_options(narud: Daemon) -> None:
    options = "volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m"
    mount = f"type=volume,source=made,target=/v,volume-label=colour=green,{options}"
    printed = narud("run", "--rm", "--mount", mount, "busybox", "sh", "-c", "df -k /v | awk 'NR==2{print $1, $2}'")
    assert printed == "tmpfs 1024"
    shown = json.loads(narud("volume", "inspect", "made"))[0]
    assert shown["Labels"] == {"colour": "green"}
    assert shown["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}


def test_a_volume_with_options_is_mounted_as_long_as_somebody_uses_it(own_narud: Daemon) -> None:
    own_narud("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=uid=1000", "mem")
    place = own_narud("volume", "inspect", "--format", "{{.Mountpoint}}", "mem")
    for name in ("one", "two"):
        own_narud("run", "--detach", "--name", name, "--volume", "mem:/m", "busybox", "sleep", "100")
    own_narud("exec", "one", "touch", "/m/shared")
    assert own_narud("exec", "two", "sh", "-c", "ls /m; stat -c %u /m") == "shared\n1000"
    own_narud.restart()
    own_narud("rm", "--force", "one")
    assert own_narud("exec", "two", "ls", "/m") == "shared"
    assert place in Path("/proc/self/mountinfo").read_text()
    own_narud("rm", "--force", "two")
    wait_until(lambda: place not in Path("/proc/self/mountinfo").read_text())


def test_what_a_killed_engine_left_mounted_is_unmounted_by_the_next(own_narud: Daemon) -> None:
    own_narud("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "mem")
    place = own_narud("volume", "inspect", "--format", "{{.Mountpoint}}", "mem")
    own_narud("run", "--detach", "--name", "box", "--volume", "mem:/m", "busybox", "sleep", "100")
    assert place in Path("/proc/self/mountinfo").read_text()
    own_narud.kill_everything()
    own_narud.start()
    assert place not in Path("/proc/self/mountinfo").read_text()
    own_narud("start", "box")
    assert own_narud("exec", "box", "ls", "/m") == ""


def test_a_volume_can_be_a_directory_of_the_host_and_its_removal_leaves_that_alone(
    narud: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("precious")
    options = ["--opt", "type=none", "--opt", f"device={tmp_path}", "--opt", "o=bind,ro"]
    narud("volume", "create", *options, "host")
    done = narud.docker("run", "--rm", "--volume", "host:/h", "busybox", "sh", "-c", "cat /h/kept; touch /h/x 2>&1")
    assert done.out == "precioustouch: /h/x: Read-only file system\n"
    narud("volume", "rm", "host")
    assert (tmp_path / "kept").read_text() == "precious"


def test_a_volume_that_cannot_be_mounted_says_why_and_starts_nothing(narud: Daemon) -> None:
    narud("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=foo=bar", "bad")
    done = narud.docker("run", "--name", "box", "--volume", "bad:/v", "busybox", "true")
    assert "failed to mount local volume: mount tmpfs:" in done.err
    assert "unknown parameter 'foo'" in done.err
    assert narud("inspect", "--format", "{{.State.Status}}", "box") == "created"


def test_a_tmpfs_at_a_new_place_is_for_everybody_and_at_an_old_one_as_the_image_has_it(narud: Daemon) -> None:
    script = "stat -c %a /new /root"
    assert narud("run", "--rm", "--tmpfs", "/new", "--tmpfs", "/root", "busybox", "sh", "-c", script) == "1777\n700"


def test_files_of_a_container_at_rest_are_reached_through_its_mounts(narud: Daemon) -> None:
    narud("run", "--rm", "--volume", "data:/v", "busybox", "sh", "-c", "mkdir /v/part; echo deep >/v/part/word")
    part = ["--mount", "type=volume,source=data,target=/p,volume-subpath=part"]
    image = ["--mount", "type=image,source=busybox,target=/img"]
    narud("create", "--name", "box", *part, *image, "busybox", "cat", "/p/word", "/p/added")
    assert b"deep" in narud.docker_bytes("cp", "box:/p/word", "-")
    assert b"root:" in narud.docker_bytes("cp", "box:/img/etc/passwd", "-")
    refused = narud.docker("cp", "/etc/hostname", "box:/img/hostname")
    assert "read-only" in refused.err.lower() or "marked read-only" in refused.err
    narud("cp", "/etc/hostname", "box:/p/added")
    assert narud("start", "--attach", "box").splitlines()[0] == "deep"
