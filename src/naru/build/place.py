"""Writing into the root being built: directories, files, symlinks and devices, with their metadata.

The root is an open directory (a detached overlay mount); paths resolve inside it, parents that are symlinks included.
What COPY promises about existing targets is here: directories merge, files replace files, a directory never
replaces a file nor the other way round. Dockerfile reference, "COPY".
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from naru.build.filetree import Entry, Selected, Tree, clean_path, walk, xattrs
from naru.build.ownership import ModeChange
from naru.build.patterns import PathRules
from naru.errors import InvalidArgument
from naru.kernel.openat2 import openat2

_NEW_DIRECTORY_MODE = 0o755
_SEND_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a COPY sets on everything it brings. `time_ns` is for what it makes itself (SOURCE_DATE_EPOCH or now)."""

    owner: tuple[int, int] | None = None
    mode: ModeChange | None = None
    time_ns: int | None = None

    def owner_of(self, status: os.stat_result) -> tuple[int, int]:
        return self.owner or (status.st_uid, status.st_gid)

    def mode_of(self, status: os.stat_result) -> int:
        return self.mode.apply(status.st_mode) if self.mode else stat.S_IMODE(status.st_mode)


def is_directory(root_fd: int, path: str) -> bool:
    """Say whether `path` in the root is a directory, symlinks followed."""
    try:
        descriptor = openat2(root_fd, clean_path(path) or ".", os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    try:
        return stat.S_ISDIR(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def make_directories(root_fd: int, path: str, attributes: Attributes) -> int:
    """Make `path` and its missing parents; return the open directory, which the caller closes.

    InvalidArgument: something on the way is not a directory.
    """
    current = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
    done = ""
    for name in filter(None, clean_path(path).split("/")):
        done = posixpath.join(done, name)
        try:
            deeper = _step(root_fd, current, done, name, attributes)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.EEXIST):
                raise InvalidArgument(
                    f"cannot create directory /{clean_path(path)}: /{done} is not a directory"
                ) from error
            raise
        finally:
            os.close(current)
        current = deeper
    return current


def _step(root_fd: int, current: int, done: str, name: str, attributes: Attributes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY
    with suppress(FileNotFoundError):
        return openat2(root_fd, done, flags)
    os.mkdir(name, _NEW_DIRECTORY_MODE, dir_fd=current)
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
    os.fchmod(descriptor, _NEW_DIRECTORY_MODE)
    os.fchown(descriptor, *(attributes.owner or (0, 0)))
    if attributes.time_ns is not None:
        os.utime(descriptor, ns=(attributes.time_ns, attributes.time_ns))
    return descriptor


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def copy_directory(
    tree: Tree, source: Selected, root_fd: int, destination: str, attributes: Attributes, exclude: PathRules
) -> None:
    """Copy what is in `source` into directory `destination`, which gets the source's metadata only if it is made."""
    existed = is_directory(root_fd, destination)
    with _DirectoryStack(make_directories(root_fd, destination, attributes)) as directories:
        if not existed:
            with _opened(openat2(tree.root_fd, source.path or ".", os.O_RDONLY | os.O_DIRECTORY)) as original:
                status = os.fstat(original)
                _set_metadata(directories.at(""), status, attributes, xattrs(original))
                directories.finish_with("", status)
        for entry in walk(tree, source, exclude):
            parent, name = posixpath.split(entry.path)
            if stat.S_ISDIR(entry.stat.st_mode):
                directories.enter(entry, attributes)
            else:
                place_entry(entry, directories.at(parent), name, attributes)


def copy_file(tree: Tree, source: Selected, root_fd: int, destination: str, attributes: Attributes) -> None:
    """Copy the one file `source` to the path `destination`."""
    directory, name = posixpath.split(clean_path(destination))
    for entry in walk(tree, source):
        with _opened(make_directories(root_fd, directory, attributes)) as parent:
            place_entry(entry, parent, name, attributes)


def write_file(root_fd: int, destination: str, data: bytes, attributes: Attributes, mode: int = 0o644) -> None:
    """Make the file `destination` with `data`: a here-document of COPY."""
    directory, name = posixpath.split(clean_path(destination))
    with _opened(make_directories(root_fd, directory, attributes)) as parent:
        _clear(parent, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
            file.write(data)
            file.flush()
            os.fchown(file.fileno(), *(attributes.owner or (0, 0)))
            os.fchmod(file.fileno(), attributes.mode.apply(stat.S_IFREG | mode) if attributes.mode else mode)
            if attributes.time_ns is not None:
                os.utime(file.fileno(), ns=(attributes.time_ns, attributes.time_ns))


class _DirectoryStack:
    """The open directories on the way to the current entry; times are set when one is left, after its children."""

    def __init__(self, top: int) -> None:
        self._stack: list[tuple[str, int, os.stat_result | None]] = [("", top, None)]

    def __enter__(self) -> _DirectoryStack:
        return self

    def __exit__(self, *_: object) -> None:
        while self._stack:
            self._leave()

    def at(self, path: str) -> int:
        """Return the open directory `path`, leaving those below it that are done."""
        while self._stack[-1][0] != path:
            self._leave()
        return self._stack[-1][1]

    def finish_with(self, path: str, status: os.stat_result) -> None:
        """Give directory `path` the times of `status` when it is left."""
        self._stack[-1] = (path, self._stack[-1][1], status)

    def enter(self, entry: Entry, attributes: Attributes) -> None:
        """Make the directory of `entry` where it is missing, set its metadata, and stay in it."""
        parent, name = posixpath.split(entry.path)
        parent_fd = self.at(parent)
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise InvalidArgument(f"cannot copy to non-directory: {entry.path}") from error
            raise
        self._stack.append((entry.path, descriptor, entry.stat))
        with _opened(entry.open()) as original:
            _set_metadata(descriptor, entry.stat, attributes, xattrs(original))

    def _leave(self) -> None:
        _, descriptor, status = self._stack.pop()
        try:
            if status is not None:
                os.utime(descriptor, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(descriptor)


def place_entry(entry: Entry, parent_fd: int, name: str, attributes: Attributes) -> None:
    """Put a file, symlink, device or pipe as `name` into the open directory, replacing what is not a directory."""
    status = entry.stat
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFSOCK:
        return
    _clear(parent_fd, name)
    if kind == stat.S_IFREG:
        _copy_content(entry, parent_fd, name, attributes)
        return
    if kind == stat.S_IFLNK:
        os.symlink(entry.target(), name, dir_fd=parent_fd)
    else:
        os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=parent_fd)
    os.chown(name, *attributes.owner_of(status), dir_fd=parent_fd, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        os.chmod(name, attributes.mode_of(status), dir_fd=parent_fd)
    os.utime(name, ns=(status.st_mtime_ns, status.st_mtime_ns), dir_fd=parent_fd, follow_symlinks=False)


def _clear(parent_fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        pass
    except IsADirectoryError as error:
        raise InvalidArgument(f"cannot replace directory {name} with a file") from error


def _copy_content(entry: Entry, parent_fd: int, name: str, attributes: Attributes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with _opened(entry.open()) as source, _opened(os.open(name, flags, 0o600, dir_fd=parent_fd)) as target:
        while os.sendfile(target, source, None, _SEND_BYTES):
            pass
        _set_metadata(target, entry.stat, attributes, xattrs(source))
        os.utime(target, ns=(entry.stat.st_mtime_ns, entry.stat.st_mtime_ns))


def _set_metadata(descriptor: int, status: os.stat_result, attributes: Attributes, extended: dict[str, bytes]) -> None:
    """Owner first: chown(2) clears set-id bits and file capabilities."""
    os.fchown(descriptor, *attributes.owner_of(status))
    os.fchmod(descriptor, attributes.mode_of(status))
    for key, value in extended.items():
        os.setxattr(descriptor, key, value)
