"""Files in and out of containers, export and commit, by the unmodified docker command line."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
import stat
import tarfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root


class Connection(http.client.HTTPConnection):
    """One HTTP connection to a daemon, for what no client does: stopping half-way."""

    def __init__(self, narud: Daemon) -> None:
        super().__init__("narud", timeout=30)
        self._path = narud.host.removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def tar_of(name: str, data: bytes, **fields: object) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for key, value in fields.items():
            setattr(member, key, value)
        archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def put(narud: Daemon, container: str, path: str, body: bytes, **query: str) -> tuple[int, str]:
    options = "".join(f"&{name}={value}" for name, value in query.items())
    connection = Connection(narud)
    connection.request("PUT", f"/containers/{container}/archive?path={quote(path)}{options}", body)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, json.loads(text)["message"] if text else ""


def stat_of(narud: Daemon, container: str, path: str) -> dict[str, object]:
    connection = Connection(narud)
    connection.request("HEAD", f"/containers/{container}/archive?path={quote(path)}")
    response = connection.getresponse()
    connection.close()
    assert response.status == 200
    return dict(json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"])))


def running(narud: Daemon, script: str, *options: str) -> str:
    """A container that has run `script` and stays."""
    return narud("run", "-d", *options, "busybox", "sh", "-c", f"{script}; touch /ready; exec sleep 1000")


def ready(narud: Daemon, script: str, *options: str) -> str:
    container = running(narud, script, *options)
    wait_until(lambda: narud.docker("exec", container, "test", "-e", "/ready").code == 0)
    return container


@pytest.mark.parametrize("state", ["running", "created", "stopped", "paused"])
def test_files_go_in_and_come_out_whatever_the_container_does(narud: Daemon, tmp_path: Path, state: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("content")
    os.chown(tmp_path / "in/file", 12, 34)
    (tmp_path / "in/file").chmod(0o4750)
    (tmp_path / "in/link").symlink_to("file")
    container = narud("create", "-v", "volume:/data", "busybox", "sleep", "1000")
    if state != "created":
        narud("start", container)
    if state == "stopped":
        narud("stop", "--time", "0", container)
    if state == "paused":
        narud("pause", container)
    for target in ("/tmp", "/data"):
        narud("cp", f"{tmp_path}/in", f"{container}:{target}")
        narud("cp", f"{container}:{target}/in", f"{tmp_path}/out{Path(target).name}")
        out = tmp_path / f"out{Path(target).name}"
        assert (out / "file").read_text() == "content"
        assert stat.S_IMODE((out / "file").stat().st_mode) == 0o4750
        assert os.readlink(out / "link") == "file"
        with tarfile.open(fileobj=io.BytesIO(narud.docker_bytes("cp", f"{container}:{target}/in", "-"))) as archive:
            assert sorted(archive.getnames()) == ["in", "in/file", "in/link"]
            assert (archive.getmember("in/file").uid, archive.getmember("in/file").gid) == (12, 34)
    # what went to the volume is in the volume
    assert narud("run", "--rm", "-v", "volume:/v", "busybox", "cat", "/v/in/file") == "content"


def test_a_tar_goes_in_by_standard_input(narud: Daemon) -> None:
    container = ready(narud, "mkdir /d")
    narud("cp", "-", f"{container}:/d", stdin=tar_of("x/y", b"from tar", uid=7))
    assert narud("exec", container, "stat", "-c", "%u", "/d/x/y") == "7"
    assert narud("exec", container, "cat", "/d/x/y") == "from tar"


def test_binds_and_tmpfs_of_a_running_container_are_seen(narud: Daemon, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    container = ready(narud, "echo t >/t/file", "-v", f"{tmp_path}/host:/host", "--tmpfs", "/t")
    narud("cp", "/etc/hostname", f"{container}:/host/in")
    assert (tmp_path / "host/in").read_text() == Path("/etc/hostname").read_text()
    narud("cp", f"{container}:/t/file", f"{tmp_path}/file")
    assert (tmp_path / "file").read_text() == "t\n"


def test_the_files_of_the_kernel_are_none_of_the_containers(narud: Daemon) -> None:
    container = ready(narud, "mkdir /d", "--privileged")
    with tarfile.open(fileobj=io.BytesIO(narud.docker_bytes("cp", f"{container}:/", "-"))) as archive:
        names = archive.getnames()
    assert "/bin/busybox" in names and "/proc" in names and "/sys" in names
    assert not [name for name in names if name.startswith(("/proc/", "/sys/", "/dev/"))]
    assert "Could not find the file /proc/cpuinfo" in narud.docker("cp", f"{container}:/proc/cpuinfo", "-").err
    assert put(narud, container, "/proc", tar_of("x", b""))[0] == 400


def test_symlinks_are_copied_or_followed_as_asked(narud: Daemon, tmp_path: Path) -> None:
    container = ready(narud, "mkdir /d; echo x >/d/file; ln -s /d /link; ln -s ../../../d/file /rel")
    narud("cp", f"{container}:/link", f"{tmp_path}/as-it-is")
    assert os.readlink(tmp_path / "as-it-is") == "/d"
    narud("cp", "-L", f"{container}:/link", f"{tmp_path}/followed")
    assert (tmp_path / "followed/file").read_text() == "x\n"
    narud("cp", f"{container}:/link/.", f"{tmp_path}/contents")
    assert (tmp_path / "contents/file").read_text() == "x\n"
    assert stat_of(narud, container, "/rel")["linkTarget"] == "/d/file"
    narud("cp", f"{tmp_path}/followed/file", f"{container}:/link/through")
    assert narud("exec", container, "cat", "/d/through") == "x"


def test_the_stat_is_dockers(narud: Daemon) -> None:
    container = ready(narud, "touch -d @1000000000 /f; chmod 4755 /f; mkdir -m 1777 /s; mkfifo /p")
    assert stat_of(narud, container, "/f") == {
        "name": "f",
        "size": 0,
        "mode": 1 << 23 | 0o755,
        "mtime": "2001-09-09T01:46:40Z",
        "linkTarget": "",
    }
    assert stat_of(narud, container, "/s/.")["mode"] == 1 << 31 | 1 << 20 | 0o777
    assert stat_of(narud, container, "/s/.")["name"] == "."
    assert stat_of(narud, container, "/")["name"] == "/"
    assert stat_of(narud, container, "/p")["mode"] == 1 << 25 | 0o644
    assert stat_of(narud, container, "/dev/null")["mode"] == 1 << 26 | 1 << 21 | 0o666


def test_what_cannot_be_copied_is_refused_in_dockers_words(narud: Daemon, tmp_path: Path) -> None:
    volume = ["-v", f"{tmp_path}:/ro:ro"]
    container = ready(narud, "mkdir /d /d/sub; echo x >/d/file", *volume, "--name", "box")
    nothing = narud.docker("cp", "box:/nope", "-")
    assert "Could not find the file /nope in container box" in nothing.err and nothing.code == 1
    assert "No such container: nope" in narud.docker("cp", "nope:/x", "-").err
    assert put(narud, "box", "/nope", tar_of("x", b"")) == (404, "Could not find the file /nope in container box")
    assert put(narud, "box", "/d/file", tar_of("x", b"")) == (400, "extraction point is not a directory")
    assert put(narud, "box", "/ro", tar_of("x", b"")) == (400, "mounted volume is marked read-only")
    assert list(tmp_path.iterdir()) == []
    status, said = put(narud, "box", "/d", tar_of("sub", b""), noOverwriteDirNonDir="1")
    assert status == 400 and 'cannot overwrite directory "/d/sub" with non-directory' in said
    status, said = put(narud, "box", "/d", tar_of("file", b"", type=tarfile.DIRTYPE), noOverwriteDirNonDir="1")
    assert status == 400 and 'cannot overwrite non-directory "/d/file" with directory' in said
    assert narud("exec", container, "cat", "/d/file") == "x"
    read_only = narud("create", "--read-only", "-v", "volume:/data", "busybox")
    assert put(narud, read_only, "/tmp", tar_of("x", b"")) == (400, "container rootfs is marked read-only")
    assert put(narud, read_only, "/data", tar_of("x", b"")) == (200, "")


def test_archives_that_reach_out_are_refused(narud: Daemon) -> None:
    container = ready(narud, "mkdir /d")
    for name in ("../out", "x/../../out"):
        status, said = put(narud, container, "/d", tar_of(name, b"out"))
        assert status == 400 and "outside" in said
    status, said = put(narud, container, "/d", tar_of("hard", b"", type=tarfile.LNKTYPE, linkname="../etc/passwd"))
    assert status == 400 and "outside" in said
    assert put(narud, container, "/d", tar_of(".", b"a file", type=tarfile.REGTYPE))[0] == 400
    assert put(narud, container, "/d", b"no tar" * 200)[0] == 400
    assert narud("exec", container, "ls", "/d") == ""
    assert narud.docker("exec", container, "ls", "/out").code != 0


def test_cp_a_gives_the_files_to_the_containers_user(narud: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    container = narud("run", "-d", "--user", "1000:50", "busybox", "sleep", "1000")
    narud("cp", "-a", f"{tmp_path}/file", f"{container}:/tmp/file")
    assert narud("exec", container, "stat", "-c", "%u:%g", "/tmp/file") == "1000:50"


def test_copies_are_told_as_events(narud: Daemon, tmp_path: Path) -> None:
    container = ready(narud, "true")
    since = str(int(time.time()))
    narud("cp", f"{container}:/etc/passwd", f"{tmp_path}/passwd")
    narud("cp", f"{tmp_path}/passwd", f"{container}:/tmp")
    narud.docker_bytes("export", container)
    narud("commit", container, "told:1")
    shown = narud(
        "events",
        "--since",
        since,
        "--until",
        str(int(time.time()) + 1),
        "--filter",
        f"container={container}",
        "--format",
        "{{.Action}}",
    )
    told = [line for line in shown.splitlines() if not line.startswith("exec_")]
    assert told[-6:] == ["archive-path", "extract-to-dir", "export", "pause", "unpause", "commit"]
    narud("rmi", "told:1")


# Clients that dawdle or go


def half_put(narud: Daemon, container: str) -> Connection:
    """Begin to copy into /tmp: the archive's first file is complete, the rest does not come."""
    whole = tar_of("first", b"1" * 300_000)
    connection = Connection(narud)
    connection.putrequest("PUT", f"/containers/{container}/archive?path=/tmp")
    connection.putheader("Content-Length", str(len(whole) + 1_000_000))
    connection.endheaders()
    connection.send(whole[:-1024])
    return connection


def test_a_client_that_dawdles_holds_up_nobody_but_the_start_of_what_it_writes_to(narud: Daemon) -> None:
    created = narud("create", "busybox", "sleep", "1000")
    other = narud("create", "busybox", "sleep", "1000")
    writing = half_put(narud, created)
    starting = narud.popen("start", created)
    narud("start", other)
    assert narud("inspect", "--format", "{{.State.Status}}", created) == "created"
    assert stat_of(narud, created, "/tmp")["name"] == "tmp"
    assert starting.poll() is None
    writing.close()  # the client goes: the copy ends, the start goes on
    assert starting.wait(10) == 0
    assert narud("inspect", "--format", "{{.State.Status}}", created) == "running"


def test_a_client_that_reads_slowly_holds_up_nobody_and_is_never_told_a_part_is_all(narud: Daemon) -> None:
    container = narud("run", "-d", "busybox", "sh", "-c", "head -c 30000000 /dev/urandom >/big; touch /ready")
    narud("wait", container)
    reading = Connection(narud)
    reading.request("GET", f"/containers/{container}/archive?path=/")
    response = reading.getresponse()
    assert response.read(1000)
    narud("start", container)
    narud("rm", "--force", container)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    reading.close()


def test_a_client_that_leaves_half_way_leaves_nothing_open(narud: Daemon) -> None:
    container = ready(narud, "head -c 30000000 /dev/urandom >/big", "-v", "volume:/data")
    before = roots_held(narud)
    for verb in (f"/containers/{container}/archive?path=/big", f"/containers/{container}/export"):
        connection = Connection(narud)
        connection.request("GET", verb)
        assert connection.getresponse().read(1000)
        connection.close()
    half_put(narud, container).close()
    wait_until(lambda: roots_held(narud) <= before)


def roots_held(narud: Daemon) -> int:
    """How many descriptors of directories the daemon has."""
    count = 0
    for entry in Path(f"/proc/{narud.pid}/fd").iterdir():
        try:
            count += stat.S_ISDIR(entry.stat().st_mode)
        except FileNotFoundError:
            continue
    return count


# Export and commit


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_an_export_is_the_layers_without_what_is_mounted(narud: Daemon, tmp_path: Path, state: str) -> None:
    container = ready(
        narud, "echo own >/own; echo v >/data/in-volume; rm /etc/passwd", "-v", "volume:/data", "--tmpfs", "/t"
    )
    if state == "stopped":
        narud("stop", "--time", "0", container)
    narud("export", "--output", f"{tmp_path}/out.tar", container)
    with tarfile.open(tmp_path / "out.tar") as archive:
        names = set(archive.getnames())
        assert (archive.extractfile("own") or io.BytesIO()).read() == b"own\n"
        assert archive.getmember("etc/hosts").size == 0  # the mount point, not what is mounted
    assert {"bin/busybox", "own", "data", "t", "proc", "dev"} <= names
    assert not names & {"data/in-volume", "etc/passwd", "proc/1", "dev/null"}
    image = narud("import", "--change", 'CMD ["cat", "/own"]', f"{tmp_path}/out.tar", "exported:1")
    assert narud("run", "--rm", image) == "own"
    narud("rmi", "--force", image)


def test_a_commit_is_an_image_of_the_changes_alone(narud: Daemon) -> None:
    container = ready(
        narud, "echo own >/own; rm /etc/passwd; echo v >/data/in-volume", "-v", "volume:/data", "-e", "A=1"
    )
    image = narud("commit", "--author", "me", "--message", "why", container, "committed:1")
    shown = json.loads(narud("inspect", image))[0]
    assert shown["RepoTags"] == ["committed:1"] and (shown["Author"], shown["Comment"]) == ("me", "why")
    assert shown["Config"]["Env"][0] == "A=1" and shown["Config"]["Cmd"][0] == "sh"
    assert len(shown["RootFS"]["Layers"]) == 1 + len(json.loads(narud("inspect", "busybox"))[0]["RootFS"]["Layers"])
    assert narud("inspect", "--format", "{{.State.Status}}", container) == "running"
    look = "cat /own; ls /data; test -e /etc/passwd || echo gone"
    assert narud("run", "--rm", image, "sh", "-c", look).splitlines() == ["own", "gone"]
    layer = json.loads(narud("inspect", image))[0]["RootFS"]["Layers"][-1]
    with tarfile.open(fileobj=io.BytesIO(narud.docker_bytes("save", image))) as archive:
        blob = archive.extractfile(f"blobs/sha256/{layer.removeprefix('sha256:')}") or io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(blob.read())) as changes:
            assert sorted(changes.getnames()) == ["data", "etc", "etc/.wh.passwd", "own", "ready"]
    narud("rmi", "committed:1")


def test_a_commit_of_what_changed_nothing_adds_no_layer(narud: Daemon) -> None:
    container = narud("run", "-d", "busybox", "true")
    narud("wait", container)
    image = narud("commit", container)
    layers = [json.loads(narud("inspect", name))[0]["RootFS"]["Layers"] for name in (image, "busybox")]
    assert layers[0] == layers[1]
    narud("rmi", image)


def test_a_commit_changes_the_config_as_asked(narud: Daemon) -> None:
    container = narud("create", "-e", "A=1", "--label", "of=container", "busybox", "sleep", "1000")
    changes = [
        'CMD ["a", "$HOME"]',
        "ENV B=$A-2 C=3",
        "ENV D=$B",
        "EXPOSE 80 53/udp",
        "HEALTHCHECK --interval=5s CMD true",
        "LABEL x=y",
        "ONBUILD RUN true",
        "STOPSIGNAL SIGINT",
        "USER 5",
        "VOLUME /v",
        "WORKDIR /w",
        "WORKDIR x",
    ]
    options = [word for change in changes for word in ("--change", change)]
    image = narud("commit", *options, container)
    config = json.loads(narud("inspect", image))[0]["Config"]
    assert config["Cmd"] == ["a", "$HOME"] and config["Env"][0] == "A=1"
    assert config["Env"][-3:] == ["B=1-2", "C=3", "D=1-2"]
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"} and set(config["Volumes"]) == {"/v"}
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000}
    assert config["Labels"].items() >= {"of": "container", "x": "y"}.items()
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("5", "/w/x", "SIGINT")
    assert config["OnBuild"] == ["RUN true"]
    narud("rmi", image)
    image = narud("commit", "--change", 'ENTRYPOINT ["/e"]', container)
    config = json.loads(narud("inspect", image))[0]["Config"]
    assert (config["Entrypoint"], config.get("Cmd")) == (["/e"], None)
    narud("rmi", image)


def test_a_commit_that_cannot_be_is_refused_in_dockers_words(narud: Daemon) -> None:
    container = narud("create", "busybox")
    before = narud("images", "--all", "--quiet")
    said = {change: narud.docker("commit", "--change", change, container).err for change in ("RUN x", "BLAH", "ENV")}
    assert "run is not a valid change command" in said["RUN x"] and "blah is not a valid change" in said["BLAH"]
    assert "ENV requires at least one argument" in said["ENV"]
    assert "No such container: nope" in narud.docker("commit", "nope").err
    assert "must be lowercase" in narud.docker("commit", container, "BAD").err
    assert narud("images", "--all", "--quiet") == before
    assert (
        "run is not a valid change command"
        in narud.docker("import", "--change", "RUN x", "-", stdin=tar_of("f", b"")).err
    )


def test_a_container_that_writes_meanwhile_is_committed_whole(narud: Daemon) -> None:
    """It is frozen while it is read: two files that are written one after the other never differ by more than one."""
    loop = "i=0; while :; do i=$((i+1)); for f in a b; do echo $i >/new; mv /new /$f; done; done"
    container = narud("run", "-d", "busybox", "sh", "-c", loop)
    wait_until(lambda: narud.docker("exec", container, "test", "-s", "/b").code == 0)
    image = narud("commit", "--change", 'CMD ["cat", "/a", "/b"]', container)
    first, second = (int(line) for line in narud("run", "--rm", image).split())
    assert 0 <= first - second <= 1
    narud("rmi", image)


def test_debians_older_client_commits_too(narud: Daemon) -> None:
    """It sends `null` for a config that it does not have."""
    container = narud("create", "busybox")
    connection = Connection(narud)
    connection.request("POST", f"/v1.41/commit?container={container}", b"null\n", {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 201
    narud("rmi", json.loads(response.read())["Id"])
    connection.close()


def test_many_copies_at_once_all_arrive(narud: Daemon, tmp_path: Path) -> None:
    container = ready(narud, "mkdir /d")
    failures: list[str] = []

    def copy(number: int) -> None:
        status, said = put(narud, container, "/d", tar_of(f"{number}/file", b"x" * 100_000))
        if status != 200:
            failures.append(said)

    threads = [threading.Thread(target=copy, args=[number]) for number in range(12)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert failures == []
    assert len(narud("exec", container, "sh", "-c", "ls /d/*/file").split()) == 12
