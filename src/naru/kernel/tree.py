"""Directory trees that somebody else made: walked, copied and removed by descriptors, never through a link.

The trees may be of any shape a container can give them; nothing here follows a symlink or leaves the tree by `..`.
They are for trees that are at rest, or whose changes may show half; never for deciding about access.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from naru.kernel.file import path_at
from naru.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# One descriptor is open per level; no sane tree comes near, and a path of this many names is beyond PATH_MAX soon.
DEPTH_LIMIT = 900
_COPY_SIZE = 1 << 30


@dataclass(slots=True)
class Node:
    """One entry met by `walk`: `name` in the open `directory`, which is valid only until the walk goes on."""

    path: bytes
    name: bytes
    directory: int
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        """Whether it is itself a directory; a symlink to one is not."""
        return stat.S_ISDIR(self.status.st_mode)

    def open(self, flags: int = os.O_RDONLY) -> int:
        """Open it, if it is a regular file or a directory; the caller owns the descriptor. OSError: ELOOP otherwise.

        Looked at before it is opened: a container may put a device in the place of what `walk` saw there, and to open
        one can be to act on the host's hardware.
        """
        place = os.open(self.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)
        try:
            if stat.S_IFMT(os.fstat(place).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                raise OSError(errno.ELOOP, "neither file nor directory any more", os.fsdecode(self.name))
            return os.open(f"/proc/self/fd/{place}", flags | os.O_CLOEXEC)
        finally:
            os.close(place)

    def readlink(self) -> bytes:
        """Return a symlink's target."""
        return os.readlink(self.name, dir_fd=self.directory)

    def xattrs(self) -> dict[bytes, bytes]:
        """Return its own extended attributes, without following a symlink; none where unsupported."""
        return read_xattrs(path_at(self.directory, self.name))


def read_xattrs(target: int | bytes) -> dict[bytes, bytes]:
    """Return the extended attributes of a descriptor or a path (not followed); none where unsupported."""
    follow = isinstance(target, int)
    try:
        return {
            os.fsencode(name): os.getxattr(target, name, follow_symlinks=follow)
            for name in os.listxattr(target, follow_symlinks=follow)
        }
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return {}
        raise


def walk(root: int, *, enter: Callable[[Node], bool] | None = None) -> Iterator[Node]:
    """Yield everything below the directory open as `root`: by name, a directory before what is in it.

    What vanishes meanwhile is left out. `enter` may keep the walk out of a directory. OSError: ELOOP beyond 900 levels.
    """
    levels = [(os.dup(root), b"", iter(_names(root)))]
    try:
        while levels:
            directory, path, names = levels[-1]
            name = next(names, None)
            if name is None:
                os.close(directory)
                levels.pop()
                continue
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            node = Node(path + name, name, directory, status)
            yield node
            if not node.is_directory or (enter is not None and not enter(node)):
                continue
            if len(levels) >= DEPTH_LIMIT:
                raise OSError(errno.ELOOP, "directories are nested too deeply", os.fsdecode(path[:256]))
            try:
                below = os.open(name, _OPEN_DIRECTORY, dir_fd=directory)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            levels.append((below, node.path + b"/", iter(_names(below))))
    finally:
        for directory, _path, _names_left in levels:
            os.close(directory)


def _names(directory: int) -> list[bytes]:
    return sorted(map(os.fsencode, os.listdir(directory)))


def remove_tree(name: str | bytes, *, dir_fd: int | None = None) -> None:
    """Remove the directory `name` (in `dir_fd`) and everything in it, however deep.

    Needs neither recursion nor a path: a directory that is not empty is first moved up to the top. OSError: EBUSY for
    a mount point; NotADirectoryError, FileNotFoundError for `name` itself.
    """
    top = os.open(name, _OPEN_DIRECTORY, dir_fd=dir_fd)
    try:
        prefix = f".{secrets.token_hex(8)}-"
        moved = 0
        pending: list[str | bytes] = ["."]
        while pending:
            current = pending.pop()
            directory = os.open(current, _OPEN_DIRECTORY, dir_fd=top)
            try:
                with os.scandir(directory) as entries:
                    found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
                for entry_name, is_directory in found:
                    if not is_directory:
                        os.unlink(entry_name, dir_fd=directory)
                        continue
                    try:
                        os.rmdir(entry_name, dir_fd=directory)
                    except OSError as error:
                        if error.errno != errno.ENOTEMPTY:
                            raise
                        if current != ".":
                            moved += 1
                            os.rename(entry_name, prefix + str(moved), src_dir_fd=directory, dst_dir_fd=top)
                            entry_name = prefix + str(moved)
                        pending.append(entry_name)
            finally:
                os.close(directory)
            if current != ".":
                os.rmdir(current, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def copy_tree(source: int, target: int) -> None:
    """Copy everything in the directory `source` into the directory `target`, and the source's own attributes.

    Kept: owner, mode, times, xattrs (but overlayfs's own), hard links, symlinks, devices, holes. `target` should be
    empty: a name that is there already is FileExistsError. A container may be at work in it: what it puts in the way
    is never followed (OSError: ELOOP). Needs root.
    """
    links: dict[tuple[int, int], bytes] = {}
    finish: list[tuple[bytes, os.stat_result, dict[bytes, bytes]]] = []
    for node in walk(source):
        parent, _slash, name = node.path.rpartition(b"/")
        holder = _open_below(target, parent)
        try:
            identity = (node.status.st_dev, node.status.st_ino)
            known = links.get(identity) if node.status.st_nlink > 1 else None
            if known is not None and not node.is_directory:
                _link_again(target, known, holder, name)
                continue
            copy_node(node, holder, name)
            if node.is_directory:
                finish.append((node.path, node.status, node.xattrs()))
            elif node.status.st_nlink > 1:
                links[identity] = node.path
        finally:
            os.close(holder)
    finish.append((b".", os.fstat(source), read_xattrs(source)))
    for path, status, xattrs in reversed(finish):
        descriptor = _open_below(target, path)
        try:
            set_attributes(descriptor, status, xattrs)
        finally:
            os.close(descriptor)


def _open_below(root: int, path: bytes) -> int:
    """Open the directory `path`, reached through directories only."""
    return openat2(root, path or b".", _OPEN_DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def _link_again(root: int, known: bytes, holder: int, name: bytes) -> None:
    parent, _slash, known_name = known.rpartition(b"/")
    source = _open_below(root, parent)
    try:
        os.link(known_name, name, src_dir_fd=source, dst_dir_fd=holder, follow_symlinks=False)
    finally:
        os.close(source)


def copy_node(node: Node, directory: int, name: bytes) -> None:
    """Copy one entry to `name` in the open `directory`; of a directory only an empty one, without its attributes."""
    kind = stat.S_IFMT(node.status.st_mode)
    if kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=directory)
        return
    if kind == stat.S_IFREG:
        data = node.open()
        try:
            copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
            try:
                copy_data(data, copy, os.fstat(data).st_size)
                set_attributes(copy, node.status, read_xattrs(data))
            finally:
                os.close(copy)
        finally:
            os.close(data)
        return
    if kind == stat.S_IFLNK:
        os.symlink(node.readlink(), name, dir_fd=directory)
    elif kind != stat.S_IFSOCK:
        os.mknod(name, node.status.st_mode, node.status.st_rdev, dir_fd=directory)
    else:
        return
    path = path_at(directory, name)
    os.chown(path, node.status.st_uid, node.status.st_gid, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        _chmod(directory, name, kind, stat.S_IMODE(node.status.st_mode))
    for attribute, value in node.xattrs().items():
        os.setxattr(path, attribute, value, follow_symlinks=False)
    os.utime(path, ns=(node.status.st_atime_ns, node.status.st_mtime_ns), follow_symlinks=False)


def _chmod(directory: int, name: bytes, kind: int, mode: int) -> None:
    """Set the mode of what was just made; fchmodat(2) cannot be told before 6.6 not to follow what took its place."""
    made = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_IFMT(os.fstat(made).st_mode) == kind:
            os.chmod(f"/proc/self/fd/{made}", mode)
    finally:
        os.close(made)


def set_attributes(descriptor: int, status: os.stat_result, xattrs: dict[bytes, bytes]) -> None:
    """Give an open file or directory the owner, mode, xattrs and times of another; chown first, it clears mode bits."""
    os.chown(descriptor, status.st_uid, status.st_gid)
    os.chmod(descriptor, stat.S_IMODE(status.st_mode))
    for name, value in xattrs.items():
        if not name.startswith(b"trusted.overlay."):
            try:
                os.setxattr(descriptor, name, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of each part of a file that is not a hole. lseek(2), SEEK_DATA"""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        yield start, end - start


def copy_data(source: int, target: int, size: int) -> None:
    """Copy a file's content and holes into an empty file; the file system shares the blocks if it can.

    copy_file_range(2)
    """
    for start, length in data_ranges(source, size):
        position = start
        while position < start + length:
            wanted = min(start + length - position, _COPY_SIZE)
            try:
                copied = os.copy_file_range(source, target, wanted, position, position)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                copied = os.pwrite(target, os.pread(source, min(wanted, 1 << 20), position), position)
            if not copied:
                break
            position += copied
    os.ftruncate(target, size)
