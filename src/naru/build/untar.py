"""Archives as people send them: a build context, or a tar that ADD unpacks. Every name is taken literally.

Not for image layers (`image.unpack` is): `.wh.` names mean nothing here. Entries land below an open directory; names
that climb out are refused, symlinks are followed only within it (openat2), hard links lead only to what is inside.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from contextlib import suppress
from typing import BinaryIO

from naru.errors import Corrupt, InvalidArgument
from naru.image.decompress import Source, decompressed
from naru.image.tar_reader import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    TarReader,
)
from naru.kernel.openat2 import openat2

_KEPT_XATTRS = ("user.", "security.capability")
_SPECIAL = {FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}


def is_tar(stream: BinaryIO) -> bool:
    """Say whether `stream` (seekable, at its start) begins like a tar, compressed or not; leaves it at its start."""
    try:
        return next(iter(TarReader(decompressed(stream))), None) is not None
    except Corrupt:
        return False
    finally:
        stream.seek(0)


def untar(stream: Source, root_fd: int, *, owner: tuple[int, int] | None = None) -> None:
    """Unpack the tar `stream` (compressed or not), which is read to its end, into the open directory `root_fd`.

    `owner` replaces the archive's owners. InvalidArgument: not a tar, cut short, or a name that leaves the root.
    """
    with _Target(root_fd, owner) as target:
        try:
            archive = TarReader(decompressed(stream))
            for entry in archive:
                target.put(archive, entry)
            archive.drain()
        except Corrupt as error:
            raise InvalidArgument(f"unpack archive: {error}") from error


class _Target:
    """One unpacking: remembers the last parent directory, and sets directories' metadata when all is in place."""

    def __init__(self, root_fd: int, owner: tuple[int, int] | None) -> None:
        self._root = root_fd
        self._owner = owner
        self._parent: tuple[str, int] | None = None
        self._directories: dict[str, Entry] = {}

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish_directories()
        finally:
            if self._parent is not None:
                os.close(self._parent[1])

    def put(self, archive: TarReader, entry: Entry) -> None:
        """Place one entry, replacing what is not a directory."""
        path = _safe(entry.name)
        if path == ".":
            self._directories["."] = entry
            return
        directory, name = posixpath.split(path)
        parent = self._open_parent(directory)
        if entry.kind == DIRECTORY:
            self._directory(path, parent, name)
            self._directories[path] = entry
            return
        self._forget_below(path)
        if entry.kind == REGULAR:
            self._file(archive, entry, parent, name)
        elif entry.kind == HARD_LINK:
            self._link(entry, parent, name)
        elif entry.kind == SYMLINK:
            _remove(parent, name)
            os.symlink(entry.link, name, dir_fd=parent)
            self._finish(entry, parent, name)
        elif entry.kind in _SPECIAL:
            _remove(parent, name)
            os.mknod(name, _SPECIAL[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=parent)
            self._finish(entry, parent, name)

    def _directory(self, path: str, parent: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                return
            self._forget_below(path)
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o700, dir_fd=parent)

    def _open_parent(self, directory: str) -> int:
        if self._parent is not None and self._parent[0] == directory:
            return self._parent[1]
        opened = self._make_parents(directory)
        if self._parent is not None:
            os.close(self._parent[1])
        self._parent = (directory, opened)
        return opened

    def _make_parents(self, directory: str) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            return openat2(self._root, directory or ".", flags)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise InvalidArgument(f"unpack archive: {directory}: {os.strerror(error.errno or 0)}") from error
        upper, name = posixpath.split(directory)
        parent = self._make_parents(upper)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileExistsError as error:
            raise InvalidArgument(f"unpack archive: {directory} is a symlink that leads nowhere") from error
        finally:
            os.close(parent)

    def _forget_below(self, path: str) -> None:
        """The name is about to stand for something else; a directory that is still open below it is not it."""
        self._directories.pop(path, None)
        if self._parent is not None and (self._parent[0] + "/").startswith(path + "/"):
            os.close(self._parent[1])
            self._parent = None

    def _file(self, archive: TarReader, entry: Entry, parent: int, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            _remove(parent, name)
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            if entry.sparse is None:
                for piece in archive.data():
                    _write(descriptor, piece)
            else:
                _write_sparse(descriptor, archive, entry)
            os.fchown(descriptor, *self._owner_of(entry))
            os.fchmod(descriptor, entry.mode & 0o7777)
            _set_xattrs(descriptor, entry)
            os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(descriptor)

    def _link(self, entry: Entry, parent: int, name: str) -> None:
        directory, target = posixpath.split(_safe(entry.link))
        try:
            source = openat2(self._root, directory or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise InvalidArgument(f"unpack archive: hard link {name}: {error}") from error
        try:
            if posixpath.join(directory, target) != _safe(entry.name):
                _remove(parent, name)
                os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            raise InvalidArgument(f"unpack archive: hard link {name}: {error}") from error
        finally:
            os.close(source)

    def _finish(self, entry: Entry, parent: int, name: str) -> None:
        os.chown(name, *self._owner_of(entry), dir_fd=parent, follow_symlinks=False)
        if entry.kind != SYMLINK:
            os.chmod(name, entry.mode & 0o7777, dir_fd=parent)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _finish_directories(self) -> None:
        for path, entry in sorted(self._directories.items(), reverse=True):
            with suppress(FileNotFoundError, NotADirectoryError):
                descriptor = openat2(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fchown(descriptor, *self._owner_of(entry))
                    os.fchmod(descriptor, entry.mode & 0o7777)
                    _set_xattrs(descriptor, entry)
                    os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
                finally:
                    os.close(descriptor)

    def _owner_of(self, entry: Entry) -> tuple[int, int]:
        return self._owner or (entry.uid, entry.gid)


def _safe(name: bytes) -> str:
    text = os.fsdecode(name)
    if ".." in text.split("/") or "\0" in text:
        raise InvalidArgument(f"unpack archive: {text!r} leaves the archive")
    return posixpath.normpath(text.lstrip("/") or ".")


def _remove(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            raise InvalidArgument(f"unpack archive: cannot replace directory {name}: {error}") from error


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _write_sparse(descriptor: int, archive: TarReader, entry: Entry) -> None:
    """Write the fragments where they belong: the archive holds them one after the other."""
    os.ftruncate(descriptor, entry.real_size)
    fragments = iter(entry.sparse or ())
    position, left = 0, 0
    for piece in archive.data():
        while piece:
            while not left:
                position, left = next(fragments)
            taken = piece[:left]
            os.lseek(descriptor, position, os.SEEK_SET)
            _write(descriptor, taken)
            position, left, piece = position + len(taken), left - len(taken), piece[len(taken) :]


def _set_xattrs(descriptor: int, entry: Entry) -> None:
    for key, value in (entry.xattrs or {}).items():
        name = os.fsdecode(key)
        if name.startswith(_KEPT_XATTRS):
            os.setxattr(descriptor, name, value)
