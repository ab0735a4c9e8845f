"""One path of a container as a tar: found, described and packed below an open root that the container may be changing.

The path is resolved by openat2 with the root as "/"; what is below it is walked by descriptors. So neither a link that
was there before nor one put there meanwhile leads to the host (CVE-2018-15664), and nothing but regular files and
directories is ever opened. Kernel file systems (proc, sysfs, cgroup) are not entered: they are no files of the
container's, and have no end. Engine API, ContainerArchive.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from naru.api.container import PathStat
from naru.errors import InvalidArgument, NaruError, NotFound
from naru.image.tar_writer import TarWriter, Vanished
from naru.kernel import mount as m
from naru.kernel.openat2 import openat2
from naru.kernel.tree import Node, walk

_KERNEL_FILESYSTEMS = frozenset(
    {
        m.CGROUP2_SUPER_MAGIC,
        m.CGROUP_SUPER_MAGIC,
        m.DEVPTS_SUPER_MAGIC,
        m.MQUEUE_MAGIC,
        m.PROC_SUPER_MAGIC,
        m.SYSFS_MAGIC,
    }
)
_LINKS_MAX = 255  # as moby's resolver of a scoped path
# Go's os.FileMode, which the stat of a path is written in: permissions, and these.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


@dataclass(frozen=True, slots=True)
class Place:
    """What a path means: the entry `name` of the open `directory`, or that directory itself (`name` is "").

    `shown` is its name to others: "." for `/etc/.`, and "/" for the root.
    """

    directory: int
    name: str
    shown: str
    status: os.stat_result


@contextmanager
def placed(root: int, path: str, container: str) -> Iterator[Place]:
    """Yield the place that `path` names in `root`; a symlink is itself, unless the path ends in "/" or "/.".

    NotFound, in Docker's words, naming the `container` as it was asked for; NaruError: it leads through a file.
    """
    absolute = clean(path)
    enters = path.endswith(("/", "/.")) or absolute == "/"
    shown = "." if path == "." or path.endswith("/.") else posixpath.basename(absolute) or "/"
    parent, name = (absolute, "") if enters else posixpath.split(absolute)
    try:
        directory = openat2(root, parent, os.O_PATH | os.O_DIRECTORY)
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False) if name else os.stat(directory)
            if name and m.filesystem_magic(directory) in _KERNEL_FILESYSTEMS:
                raise FileNotFoundError
        except BaseException:
            os.close(directory)
            raise
    except FileNotFoundError:
        raise NotFound(f"Could not find the file {path} in container {container}") from None
    except OSError as error:
        raise _no_way(absolute, error) from error
    try:
        yield Place(directory, name, shown, status)
    finally:
        os.close(directory)


def _no_way(path: str, error: OSError) -> NaruError:
    """Return why nothing can be found at `path`; a path that no file system could have is the client's mistake."""
    kind = InvalidArgument if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else NaruError
    return kind(f"lstat {path}: {os.strerror(error.errno or 0).lower()}")


@contextmanager
def extraction_point(root: int, path: str, container: str) -> Iterator[int]:
    """Yield the open directory that `path` leads to in `root`, a symlink followed.

    NotFound, in Docker's words; InvalidArgument: it is no directory, or the kernel's.
    """
    try:
        directory = openat2(root, clean(path), os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        raise NotFound(f"Could not find the file {path} in container {container}") from None
    except NotADirectoryError:
        raise InvalidArgument("extraction point is not a directory") from None
    except OSError as error:
        raise _no_way(clean(path), error) from error
    try:
        if m.filesystem_magic(directory) in _KERNEL_FILESYSTEMS:
            raise InvalidArgument(f"{path} is on a file system of the kernel: nothing can be copied to it")
        yield directory
    finally:
        os.close(directory)


def clean(path: str) -> str:
    """Return `path` from the root, without `.`, `..` and double slashes, as Go's filepath.Clean makes it."""
    return posixpath.normpath("/" + path.lstrip("/"))


def path_stat(root: int, path: str, place: Place) -> PathStat:
    """Return Docker's description of a place."""
    status = place.status
    is_link = stat.S_ISLNK(status.st_mode)
    mode = stat.S_IMODE(status.st_mode) & 0o777 | _GO_KINDS.get(stat.S_IFMT(status.st_mode), 0)
    for bit, go_bit in _GO_BITS.items():
        mode |= go_bit if status.st_mode & bit else 0
    return PathStat(
        name=place.shown,
        size=status.st_size,
        mode=mode,
        mtime=_moment(status.st_mtime_ns),
        link_target=_evaluated(root, clean(path)) if is_link else "",
    )


def _moment(time_ns: int) -> str:
    """Return a file's time as Go writes one: all digits there are, and no more."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    fraction = f".{rest:09}".rstrip("0").rstrip(".")
    return (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat() + fraction + "Z"


def _evaluated(root: int, path: str) -> str:
    """Return where `path` leads, every link replaced, whether there is something or not: for a client to ask again."""
    done, rest, links = "/", path.split("/"), 0
    while rest:
        name = rest.pop(0)
        if name == "..":
            done = posixpath.dirname(done)
            continue
        there = posixpath.join(done, name)
        link = _read_link(root, there) if name not in ("", ".") else None
        if link is None:
            done = posixpath.normpath(there)
            continue
        links += 1
        if links > _LINKS_MAX:
            return path
        rest[:0] = link.split("/")
        if link.startswith("/"):
            done = "/"
    return done


def _read_link(root: int, path: str) -> str | None:
    try:
        descriptor = openat2(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=descriptor)
    except OSError:
        return None  # not a link
    finally:
        os.close(descriptor)


def pack(place: Place, tar: TarWriter) -> None:
    """Add a place and everything below it, under the name it is shown by. What vanishes meanwhile is left out."""
    shown = os.fsencode(place.shown)
    if not stat.S_ISDIR(place.status.st_mode):
        tar.add(Node(shown, os.fsencode(place.name), place.directory, place.status), shown)
        return
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        directory = os.open(place.name or ".", flags, dir_fd=place.directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Vanished(f"{place.shown}: {error.strerror}") from error
    try:
        tar.add_root(directory, shown)
        pack_below(directory, tar, shown.rstrip(b"/") + b"/")
    finally:
        os.close(directory)


def pack_below(directory: int, tar: TarWriter, prefix: bytes = b"") -> None:
    """Add everything in an open directory; `prefix` goes before its names."""
    device = os.fstat(directory).st_dev
    if m.filesystem_magic(directory) in _KERNEL_FILESYSTEMS:
        return
    for node in walk(directory, enter=lambda node: _enters(node, device)):
        with suppress(Vanished):
            tar.add(node, prefix + node.path)


def _enters(node: Node, device: int) -> bool:
    """Say whether to go into a directory: not if it is a kernel file system, or the /dev that a start mounts."""
    if node.status.st_dev == device:
        return True
    if node.path == b"dev":
        return False
    try:
        descriptor = os.open(node.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=node.directory)
    except OSError:
        return False
    try:
        return m.filesystem_magic(descriptor) not in _KERNEL_FILESYSTEMS
    finally:
        os.close(descriptor)
