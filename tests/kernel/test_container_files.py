"""Files of a container that fights back: copied out of and into its root while a thread swaps what they go through."""

from __future__ import annotations

import io
import itertools
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tars import Tar

from naru.engine import archive
from naru.errors import Corrupt, InvalidArgument, NaruError
from naru.image.tar_writer import TarWriter, Vanished
from naru.image.unpack import extract
from naru.kernel import mntns
from naru.kernel import mount as m
from naru.kernel.process import CLONE_NEWNS, spawn
from naru.kernel.tree import walk

pytestmark = pytest.mark.root

ROUNDS = 400


class Site:
    """A container's root beside a part of the host that no copy may read or write."""

    def __init__(self, path: Path) -> None:
        self.root, self.host = path / "root", path / "host"
        (self.root / "d/sub").mkdir(parents=True)
        (self.root / "d/file").write_text("inside")
        (self.root / "d/sub/file").write_text("inside")
        (self.host / "sub").mkdir(parents=True)
        (self.host / "file").write_text("HOST")
        (self.host / "sub/file").write_text("HOST")
        self.fd = os.open(self.root, os.O_PATH | os.O_DIRECTORY)

    def pack(self, path: str) -> bytes:
        made = io.BytesIO()
        tar = TarWriter(made.write)
        with archive.placed(self.fd, path, "box") as place:
            archive.pack(place, tar)
        tar.finish()
        return made.getvalue()

    def host_files(self) -> set[str]:
        return {str(path.relative_to(self.host)) for path in self.host.rglob("*")}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    os.close(made.fd)


@contextmanager
def swapping(*steps: Callable[[], object]) -> Iterator[None]:
    """Do `steps` over and over in a process of its own, between any two system calls of ours."""
    pid, pidfd = spawn()
    if pid == 0:
        while True:
            for step in steps:
                with suppress(OSError):
                    step()
            time.sleep(0.0003)  # or nothing would ever get through, and a test of what does prove nothing
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def rounds(has_come: Callable[[], object]) -> Iterator[None]:
    """ROUNDS, and more until something has got through: or the swapping proves nothing."""
    deadline = time.monotonic() + 20
    for number in itertools.count():
        if number >= ROUNDS and has_come():
            return
        assert time.monotonic() < deadline, "the swapping never let anything through"
        yield


def links(site: Site, name: str) -> list[Callable[[], object]]:
    """Swap the directory `name` for symlinks to the host's, absolute and by `..`, and back; each stays for a moment."""
    here, aside, link = site.root / name, site.root / f"{name}.aside", site.root / f"{name}.link"
    climbing = "../" * 40 + str(site.host).lstrip("/")
    steps: list[Callable[[], object]] = []
    for target in (str(site.host), climbing):
        steps += [
            lambda target=target: os.symlink(target, link),
            lambda: os.rename(here, aside),
            lambda: os.rename(link, here),
            lambda: time.sleep(0.0003),
            lambda: os.unlink(here),
            lambda: os.rename(aside, here),
        ]
    return steps


@pytest.mark.parametrize("path", ["/d", "/d/file", "/d/sub", "/d/sub/file", "/d/.", "/"])
@pytest.mark.parametrize("swapped", ["d", "d/sub"])
def test_what_comes_out_is_never_the_hosts(site: Site, path: str, swapped: str) -> None:
    came: list[bytes] = []
    with swapping(*links(site, swapped)):
        for _ in rounds(lambda: came):
            with suppress(NaruError, OSError):
                packed = site.pack(path)
                assert b"HOST" not in packed
                if b"inside" in packed:
                    came.append(packed)


@pytest.mark.parametrize("swapped", ["d", "d/sub"])
def test_what_goes_in_never_goes_to_the_host(site: Site, swapped: str) -> None:
    before = site.host_files()
    tar = Tar().directory("sub").add("new", b"in").add("sub/new", b"in").symlink("s", "/").add("deep/er/new", b"in")
    data = tar.link("hard", "new").directory("sub/dir").bytes()
    with swapping(*links(site, swapped)):
        for _ in rounds(lambda: list(site.root.rglob("new"))):
            with suppress(NaruError, OSError), archive.extraction_point(site.fd, "/d", "box"):
                extract(io.BytesIO(data), site.fd, b"d")
    assert site.host_files() == before
    assert (site.host / "file").read_text() == "HOST"


def test_a_file_that_turns_into_a_device_is_not_opened(site: Site) -> None:
    """To open one can be to act on the host's hardware; a pipe stands for it here."""
    directory = os.open(site.root / "d", os.O_RDONLY)
    made = io.BytesIO()
    for node in walk(directory):
        if node.name == b"file":
            os.unlink("file", dir_fd=directory)
            os.mkfifo("file", dir_fd=directory)
            with pytest.raises(Vanished):
                TarWriter(made.write).add(node, b"file")
            break
    os.close(directory)
    assert made.getvalue() == b""


def test_a_directory_moved_away_while_it_is_read_shows_nothing_above_it(site: Site) -> None:
    for number in range(50):
        (site.root / f"d/sub/{number:02}").mkdir()
    (site.root / "secret").write_text("HOST")  # above: a walk by `..` would come upon it
    aside = site.root / "aside"
    here = site.root / "d/sub"
    with swapping(lambda: os.rename(here, aside), lambda: os.rename(aside, here)):
        for _ in range(ROUNDS):
            with suppress(NaruError, OSError):
                assert b"HOST" not in site.pack("/d")


def test_names_and_links_that_climb_stay_inside(site: Site) -> None:
    with pytest.raises(Corrupt, match="outside"):
        extract(io.BytesIO(Tar().add("../../host/new", b"x").bytes()), site.fd, b"d")
    with pytest.raises(Corrupt, match="outside"):
        extract(io.BytesIO(Tar().link("hard", "../../host/file").bytes()), site.fd, b"d")
    escape = "../" * 40 + str(site.host).lstrip("/")
    extract(io.BytesIO(Tar().symlink("up", escape).add("up/new", b"x").bytes()), site.fd, b"d")
    assert site.host_files() == {"file", "sub", "sub/file"}
    assert (site.root / str(site.host).lstrip("/") / "new").read_text() == "x"  # where the link leads in the root


def test_a_link_in_the_way_leads_where_it_leads_in_the_root(site: Site) -> None:
    (site.root / "etc").mkdir()
    (site.root / "d/link").symlink_to("/etc")
    (site.root / "to").symlink_to("/d")
    extract(io.BytesIO(Tar().add("link/new", b"x").bytes()), site.fd, b"to", keep_directories=True)
    assert (site.root / "etc/new").read_text() == "x"
    entry = Tar().directory(".", mode=0o700).add("./again", b"x").bytes()
    extract(io.BytesIO(entry), site.fd, b"to", keep_directories=True)
    assert os.readlink(site.root / "to") == "/d" and (site.root / "d").stat().st_mode & 0o777 == 0o700
    with pytest.raises(InvalidArgument):
        extract(io.BytesIO(Tar().directory("link").bytes()), site.fd, b"to", keep_directories=True)


def test_the_extraction_point_itself_is_never_replaced(site: Site) -> None:
    for data in (Tar().add(".", b"x").bytes(), Tar().symlink("./", "/").bytes(), Tar().link("a/..", "file").bytes()):
        with pytest.raises(Corrupt, match="without a name"):
            extract(io.BytesIO(data), site.fd, b"d")
    assert (site.root / "d/file").read_text() == "inside"


def test_a_tree_deeper_than_python_recurses_can_be_replaced(site: Site) -> None:
    directory = os.open(site.root / "d/sub", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("x", dir_fd=directory)
        below = os.open("x", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    extract(io.BytesIO(Tar().add("sub", b"file").bytes()), site.fd, b"d")
    assert (site.root / "d/sub").read_text() == "file"


# Mount namespaces


@contextmanager
def process_with(prepare: Callable[[], object]) -> Iterator[int]:
    """The pidfd of a process that has prepared a mount namespace of its own and waits."""
    reading, writing = os.pipe()
    pid, pidfd = spawn(CLONE_NEWNS)
    if pid == 0:
        m.mount(None, "/", None, m.MS_PRIVATE | m.MS_REC)
        prepare()
        os.write(writing, b"x")
        threading.Event().wait(60)
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    try:
        yield pidfd
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(pidfd)


def names(root: int, path: str) -> set[str]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    try:
        return set(os.listdir(directory))
    finally:
        os.close(directory)


def test_the_root_of_another_namespace_shows_its_mounts_and_its_copy_does_not(site: Site) -> None:
    def prepare() -> None:
        m.mount("tmpfs", str(site.host), "tmpfs", 0)
        (site.host / "mounted").touch()

    before = os.stat("/proc/thread-self/ns/mnt").st_ino
    with process_with(prepare) as pidfd:
        root, copy = mntns.open_root(pidfd), mntns.copy_root(pidfd)
    try:
        assert names(copy, str(site.host).lstrip("/")) == {"file", "sub"}
    finally:
        os.close(copy)
        os.close(root)
    assert os.stat("/proc/thread-self/ns/mnt").st_ino == before
    assert "mounted" not in site.host_files()


def test_a_root_seen_while_the_process_lives_has_what_is_mounted_there(site: Site) -> None:
    def prepare() -> None:
        m.mount("tmpfs", str(site.host), "tmpfs", 0)
        (site.host / "mounted").touch()

    with process_with(prepare) as pidfd:
        root = mntns.open_root(pidfd)
        assert names(root, str(site.host).lstrip("/")) == {"mounted"}
        os.close(root)


def test_a_process_that_is_gone_has_no_root() -> None:
    pid, pidfd = spawn()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        mntns.open_root(pidfd)
    os.close(pidfd)


def test_a_tree_with_mounts_is_seen_by_nobody_else_and_gone_when_closed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "at").mkdir()
    root = m.new_mount("tmpfs", [("source", "tmpfs")])

    def attach(tree: int) -> None:
        os.mkdir("volume", dir_fd=tree)
        source = m.open_tree(m.AT_FDCWD, str(site.host), clone=True, recursive=True)
        target = os.open("volume", os.O_PATH, dir_fd=tree)
        m.move_mount(source, target)
        os.close(source)
        os.close(target)

    tree = mntns.with_mounts(root, str(tmp_path / "at"), attach)
    assert names(tree, "volume") == {"file", "sub"}
    os.close(os.open("volume/new", os.O_WRONLY | os.O_CREAT, dir_fd=tree))
    assert (site.host / "new").exists()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert list((tmp_path / "at").iterdir()) == []
    os.close(tree)
    os.close(root)


def test_a_hole_of_a_terabyte_comes_out_small(site: Site) -> None:
    with (site.root / "d/file").open("r+b") as file:
        file.truncate(1 << 40)
    packed = site.pack("/d/file")
    assert len(packed) < 1 << 20
    with tarfile.open(fileobj=io.BytesIO(packed)) as read:
        assert read.getmember("file").size == 1 << 40
