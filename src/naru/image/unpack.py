"""A layer's tar becomes a directory that overlayfs can use, whatever the tar tries.

Nothing a tar says is used as a path from the outside: directories are opened by openat2 with the target as their root,
so `..` and symlinks lead nowhere else, and the last component is created by its directory's descriptor and never
followed. Entries below a symlinked directory go where the link leads within the target, as with Docker.

Whiteouts (`.wh.name`, `.wh..wh..opq`) become what overlayfs understands: a 0/0 character device, and the xattr
`trusted.overlay.opaque`. Both concern lower layers only, whatever the order of entries; what they say about entries of
the same layer is settled here, what depends on the layers below in `image.settle`.

OCI image-spec, layer.md, Representing Changes; kernel, filesystems/overlayfs.rst; CVE-2018-15664, CVE-2019-14271.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from naru.errors import Corrupt, InvalidArgument
from naru.image import tar_reader
from naru.image.ahead import Ahead
from naru.image.decompress import Source, decompressed
from naru.image.tar_reader import Entry, TarReader
from naru.kernel.file import is_whiteout_device, path_at, process_umask
from naru.kernel.openat2 import openat2
from naru.kernel.tree import DEPTH_LIMIT, remove_tree
from naru.oci.digest import DiffID

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
# Names by which AUFS kept its own books; layers made on it still carry them, and they mean nothing.
_AUFS_PREFIX = b".wh..wh."
OVERLAY_XATTR = b"trusted.overlay."
OPAQUE_XATTR = b"trusted.overlay.opaque"

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Tars are mostly in depth-first order, so few directories are in use at a time.
_OPEN_DIRECTORIES = 64
_SYMLINK_LIMIT = 40
# All ones mean "leave as it is" to chown(2): root's, with the entry's set-user-ID bit.
_ID_LIMIT = 0xFFFFFFFE
_TIME_LIMIT_NS = (1 << 63) - 1
_DEVICE_LIMIT = 1 << 12, 1 << 20
# What a hostile name makes the kernel answer; anything else (ENOSPC, EIO …) is this machine's trouble.
_NAME_ERRNOS = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOENT,
        errno.EXDEV,
        errno.EINVAL,
        errno.EEXIST,
        errno.EMLINK,
        errno.ERANGE,
        errno.E2BIG,
        errno.EFBIG,
    }
)


@dataclass(slots=True)
class Unpacked:
    """What a layer turned out to be.

    `size_bytes` is what its files hold, `tar_size` the uncompressed tar's length. `implied` are directories that the
    tar did not list (the root is b""), `whiteouts` the hidden names; both in the order they were made.
    """

    diff_id: DiffID
    tar_size: int
    size_bytes: int
    entries: int
    implied: list[bytes] = field(default_factory=list)
    whiteouts: list[bytes] = field(default_factory=list)


def unpack_layer(source: Source, directory: int, *, expected: DiffID | None = None) -> Unpacked:
    """Unpack a layer, compressed or not, into the empty directory open as `directory`.

    Corrupt: damaged, hostile, or its diff ID is not `expected`; the directory then holds whatever was unpacked before,
    for the caller to remove. Needs root. Nothing is synced to disk.
    """
    with Ahead(decompressed(source)) as pieces, _Unpacker(directory, is_layer=True) as unpacker:
        unpacker.run(TarReader(pieces))
        unpacked = Unpacked(
            diff_id=DiffID(pieces.digest),
            tar_size=pieces.size,
            size_bytes=unpacker.size_bytes,
            entries=unpacker.entries,
            implied=list(unpacker.implied),
            whiteouts=list(unpacker.whiteouts),
        )
    if expected is not None and unpacked.diff_id != expected:
        raise Corrupt(f"layer {expected}: the unpacked content's diff ID is {unpacked.diff_id}")
    return unpacked


def extract(
    source: Source,
    root: int,
    below: bytes = b"",
    *,
    keep_directories: bool = False,
    owner: tuple[int, int] | None = None,
) -> int:
    """Unpack a plain tar, compressed or not, into the directory `below` in the open `root`; return the entries.

    What is there already is added to or replaced, symlinks in it lead where they lead within `root`. Names that begin
    with `.wh.` mean nothing special. `keep_directories` refuses to replace a directory by something else or the reverse
    (InvalidArgument, in Docker's words), `owner` replaces every entry's. Hostile processes may be using the tree.
    Corrupt: damaged, or a name that leads out of `below`.
    """
    with Ahead(decompressed(source)) as pieces:
        with _Unpacker(root, below, is_layer=False, keep_directories=keep_directories, owner=owner) as unpacker:
            unpacker.run(TarReader(pieces))
        return unpacker.entries


@dataclass(slots=True)
class _Attributes:
    """A directory's metadata, set at the end: before, its mode and ACL would show in what is created in it."""

    path: bytes
    entry: Entry


class _Unpacker:
    """One run over one tar. Directories stay open for reuse; nothing else creates entries in the tree meanwhile."""

    def __init__(
        self,
        root: int,
        below: bytes = b"",
        *,
        is_layer: bool,
        keep_directories: bool = False,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._root = root
        self._below = _clean(below)
        self._is_layer = is_layer
        self._keep_directories = keep_directories
        self._owner = owner
        self._umask = process_umask()
        self._open: dict[bytes, int] = {}
        self._pending: dict[tuple[int, int], _Attributes] = {}
        self.implied: dict[bytes, None] = {b"": None}
        self.whiteouts: dict[bytes, None] = {}
        self.size_bytes = 0
        self.entries = 0

    def __enter__(self) -> _Unpacker:
        return self

    def __exit__(self, *_error: object) -> None:
        self._forget_directories()

    def run(self, tar: TarReader) -> None:
        """Unpack every entry, then set the directories' attributes, then read the input to its end."""
        for entry in tar:
            self.entries += 1
            try:
                self._unpack(entry, tar)
            except OSError as error:
                if error.errno in _NAME_ERRNOS:
                    raise Corrupt(f"tar: entry {_shown(entry.name)}: {error.strerror}") from error
                raise
        for attributes in self._pending.values():
            self._finish_directory(attributes)
        tar.drain()

    def _unpack(self, entry: Entry, tar: TarReader) -> None:
        path = self._inside(entry.name)
        parent, _slash, name = path.rpartition(b"/")
        if parent.count(b"/") >= DEPTH_LIMIT:
            raise Corrupt(f"tar: entry {_shown(path)}: directories are nested too deeply")
        if entry.uid > _ID_LIMIT or entry.gid > _ID_LIMIT or entry.uid < 0 or entry.gid < 0:
            raise Corrupt(f"tar: entry {_shown(path)}: owner {entry.uid}:{entry.gid} is out of range")
        if not self._is_layer and path == self._below and entry.kind != tar_reader.DIRECTORY:
            raise Corrupt("tar: entry without a name")
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        if self._is_layer and name.startswith(WHITEOUT_PREFIX):
            self._whiteout(parent, name)
        elif self._is_layer and _AUFS_PREFIX in parent:
            pass
        elif entry.kind == tar_reader.REGULAR:
            self._regular(parent, name, path, entry, tar)
        elif entry.kind == tar_reader.DIRECTORY:
            self._directory(parent, name, path, entry)
        elif entry.kind == tar_reader.SYMLINK:
            self._symlink(parent, name, path, entry)
        elif entry.kind == tar_reader.HARD_LINK:
            self._hard_link(parent, name, path, entry)
        else:
            self._device(parent, name, path, entry)

    def _inside(self, name: bytes) -> bytes:
        """Return the path in the root that a name in the tar means."""
        return b"/".join(filter(None, (self._below, _clean(name))))

    # Kinds of entry

    def _regular(self, parent: bytes, name: bytes, path: bytes, entry: Entry, tar: TarReader) -> None:
        directory = self._parent(parent, path)
        mode = entry.mode
        try:
            file = os.open(name, _CREATE, mode & 0o777, dir_fd=directory)
        except FileExistsError:
            directory = self._make_way(parent, name, path, is_directory=False)
            file = os.open(name, _CREATE, mode & 0o777, dir_fd=directory)
        try:
            if entry.sparse is None:
                data = tar.whole()
                if data is None or os.write(file, data) != len(data):
                    self._write_pieces(file, tar, data)
            else:
                _write_sparse(file, entry, tar)
            self.size_bytes += entry.size
            os.chown(file, entry.uid, entry.gid)
            if mode & (0o7000 | self._umask):
                os.chmod(file, mode)
            if entry.xattrs is not None:
                self._set_xattrs(file, entry)
            time_ns = _time_ns(entry)
            os.utime(file, ns=(time_ns, time_ns))
        finally:
            os.close(file)

    def _write_pieces(self, file: int, tar: TarReader, rest: memoryview | None) -> None:
        if rest is not None:
            os.lseek(file, 0, os.SEEK_SET)
            _write(file, rest)
        for piece in tar.data():
            _write(file, piece)

    def _directory(self, parent: bytes, name: bytes, path: bytes, entry: Entry) -> None:
        if path == self._below:
            status = os.stat(self._parent(path, path))
        else:
            directory = self._parent(parent, path)
            try:
                os.mkdir(name, 0o700, dir_fd=directory)
            except FileExistsError:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    self._make_directory_over(parent, name, path)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        self._pending[status.st_dev, status.st_ino] = _Attributes(path, entry)
        self.implied.pop(path, None)

    def _make_directory_over(self, parent: bytes, name: bytes, path: bytes) -> None:
        was_whiteout = path in self.whiteouts
        directory = self._make_way(parent, name, path, is_directory=True)
        os.mkdir(name, 0o700, dir_fd=directory)
        if was_whiteout:
            self._set_opaque(directory, name)

    def _symlink(self, parent: bytes, name: bytes, path: bytes, entry: Entry) -> None:
        directory = self._parent(parent, path)
        try:
            os.symlink(entry.link, name, dir_fd=directory)
        except FileExistsError:
            directory = self._make_way(parent, name, path, is_directory=False)
            os.symlink(entry.link, name, dir_fd=directory)
        self.size_bytes += len(entry.link)
        self._set_attributes(directory, name, entry)

    def _hard_link(self, parent: bytes, name: bytes, path: bytes, entry: Entry) -> None:
        target = self._inside(entry.link)
        target_parent, _slash, target_name = target.rpartition(b"/")
        if target == path:
            raise Corrupt(f"tar: entry {_shown(path)} is a hard link to itself")
        directory = self._parent(parent, path)
        # Not from the cache: opening one directory may close another that is not in use any more.
        with ExitStack() as undo:
            source = openat2(self._root, target_parent or b".", os.O_PATH | os.O_DIRECTORY)
            undo.callback(os.close, source)
            status = os.stat(target_name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or is_whiteout_device(status):
                raise Corrupt(f"tar: entry {_shown(path)}: cannot link to {_shown(target)}")
            try:
                os.link(target_name, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
            except FileExistsError:
                there = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
                    return
                directory = self._make_way(parent, name, path, is_directory=False)
                os.link(target_name, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def _device(self, parent: bytes, name: bytes, path: bytes, entry: Entry) -> None:
        kind = {
            tar_reader.CHARACTER: stat.S_IFCHR,
            tar_reader.BLOCK_DEVICE: stat.S_IFBLK,
            tar_reader.FIFO: stat.S_IFIFO,
        }[entry.kind]
        major, minor = entry.device
        if not (0 <= major < _DEVICE_LIMIT[0] and 0 <= minor < _DEVICE_LIMIT[1]):
            raise Corrupt(f"tar: entry {_shown(path)}: device {major}:{minor} is out of range")
        if kind == stat.S_IFCHR and entry.device == (0, 0):
            raise Corrupt(f"tar: entry {_shown(path)}: a 0:0 character device is a whiteout to overlayfs")
        device = os.makedev(major, minor)
        directory = self._parent(parent, path)
        try:
            os.mknod(name, kind | 0o600, device, dir_fd=directory)
        except FileExistsError:
            directory = self._make_way(parent, name, path, is_directory=False)
            os.mknod(name, kind | 0o600, device, dir_fd=directory)
        self._set_attributes(directory, name, entry)

    def _whiteout(self, parent: bytes, name: bytes) -> None:
        if name == OPAQUE_MARKER:
            directory = self._parent(parent, parent)
            os.setxattr(path_at(directory, b"."), OPAQUE_XATTR, b"y")
            return
        if name.startswith(_AUFS_PREFIX) or _AUFS_PREFIX in parent:
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise Corrupt(f"tar: entry {_shown(name)} is a whiteout of nothing")
        directory = self._parent(parent, parent)
        path = parent + b"/" + hidden if parent else hidden
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=directory)
        except FileExistsError:
            # Something of this very layer, which stays; but a directory must not show what is below.
            if stat.S_ISDIR(os.stat(hidden, dir_fd=directory, follow_symlinks=False).st_mode):
                self._set_opaque(directory, hidden)
        else:
            self.whiteouts[path] = None

    def _set_opaque(self, directory: int, name: bytes) -> None:
        os.setxattr(path_at(directory, name), OPAQUE_XATTR, b"y", follow_symlinks=False)

    # Attributes

    def _set_attributes(self, directory: int, name: bytes, entry: Entry) -> None:
        """Give a symlink or a device its owner, mode, xattrs and time; the order matters, chown clears mode bits."""
        os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        if entry.kind != tar_reader.SYMLINK:
            _chmod(directory, name, entry.mode)
        if entry.xattrs is not None:
            self._set_xattrs(path_at(directory, name), entry)
        time_ns = _time_ns(entry)
        os.utime(name, ns=(time_ns, time_ns), dir_fd=directory, follow_symlinks=False)

    def _set_xattrs(self, target: int | bytes, entry: Entry) -> None:
        for name, value in (entry.xattrs or {}).items():
            if name.startswith(OVERLAY_XATTR):
                continue
            try:
                os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
            except OSError as error:
                # As Docker does: a file system without them, or `user.` on a symlink or a device.
                if error.errno == errno.EPERM and name.startswith(b"user."):
                    continue
                if error.errno != errno.ENOTSUP:
                    raise

    def _finish_directory(self, attributes: _Attributes) -> None:
        entry = attributes.entry
        try:
            directory = openat2(self._root, attributes.path or b".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in _NAME_ERRNOS:
                return
            raise
        try:
            status = os.fstat(directory)
            known = self._pending.get((status.st_dev, status.st_ino))
            if known is not attributes:
                return
            os.chown(directory, entry.uid, entry.gid)
            os.chmod(directory, entry.mode)
            if entry.xattrs is not None:
                self._set_xattrs(directory, entry)
            time_ns = _time_ns(entry)
            os.utime(directory, ns=(time_ns, time_ns))
        finally:
            os.close(directory)

    # Directories

    def _parent(self, parent: bytes, path: bytes) -> int:
        """Return the descriptor, owned by the cache, of the directory `parent`, making what is missing of it."""
        if not parent:
            return self._root
        descriptor = self._open.get(parent)
        if descriptor is not None:
            return descriptor
        if self._is_layer and (b"/.wh." in parent or parent.startswith(WHITEOUT_PREFIX)):
            raise Corrupt(f"tar: entry {_shown(path)} is below a whiteout")
        try:
            descriptor = openat2(self._root, parent, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            self._make_directories(parent)
            descriptor = openat2(self._root, parent, os.O_PATH | os.O_DIRECTORY)
        if len(self._open) >= _OPEN_DIRECTORIES:
            oldest = next(iter(self._open))
            os.close(self._open.pop(oldest))
        self._open[parent] = descriptor
        return descriptor

    def _make_directories(self, path: bytes, depth: int = 0) -> None:
        """Make the directory `path` and those above it; where a symlink dangles, make what it points to."""
        if depth > _SYMLINK_LIMIT:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        made = b""
        for name in path.split(b"/"):
            parent, made = made, made + b"/" + name if made else name
            holder = openat2(self._root, parent or b".", os.O_PATH | os.O_DIRECTORY)
            try:
                os.mkdir(name, 0o755, dir_fd=holder)
                _chmod(holder, name, 0o755)
                self.implied[made] = None
            except FileExistsError:
                status = os.stat(name, dir_fd=holder, follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode):
                    self._make_target(parent, os.readlink(name, dir_fd=holder), depth)
                elif made in self.whiteouts and is_whiteout_device(status):
                    os.unlink(name, dir_fd=holder)
                    del self.whiteouts[made]
                    os.mkdir(name, 0o755, dir_fd=holder)
                    self._set_opaque(holder, name)
                    self.implied[made] = None
                elif not stat.S_ISDIR(status.st_mode):
                    raise
            finally:
                os.close(holder)

    def _make_target(self, parent: bytes, link: bytes, depth: int) -> None:
        target = link if link.startswith(b"/") else parent + b"/" + link
        inside = _clean(os.path.normpath(b"/" + target))
        if inside:
            self._make_directories(inside, depth + 1)

    def _make_way(self, parent: bytes, name: bytes, path: bytes, *, is_directory: bool) -> int:
        """Remove what is at `path`, and return the descriptor of its directory: the last entry of a name counts."""
        if not name:
            raise Corrupt("tar: the root is not a directory")
        directory = self._parent(parent, path)
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if self._keep_directories and stat.S_ISDIR(status.st_mode) != is_directory:
            new, old = ("directory", "non-directory") if is_directory else ("non-directory", "directory")
            raise InvalidArgument(f'cannot overwrite {old} "/{_shown(path)[1:-1]}" with {new}')
        if stat.S_ISDIR(status.st_mode):
            remove_tree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
        self.whiteouts.pop(path, None)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
            # Paths through it may lead elsewhere from now on.
            self._forget_directories()
            directory = self._parent(parent, path)
        return directory

    def _forget_directories(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


def _clean(name: bytes) -> bytes:
    """Return the path relative to the root, as Go's filepath.Clean makes it. Corrupt: above the root."""
    if b"/." not in name and b"//" not in name and not name.startswith((b"/", b".")):
        return name.removesuffix(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                if name.startswith(b"/"):
                    continue
                raise Corrupt(f"tar: entry {_shown(name)} is outside of the root")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _shown(name: bytes) -> str:
    return ascii(os.fsdecode(name[:256]))


def _time_ns(entry: Entry) -> int:
    return entry.mtime_ns if 0 <= entry.mtime_ns <= _TIME_LIMIT_NS else 0


def _chmod(directory: int, name: bytes, mode: int) -> None:
    """Set the mode of what must not be a symlink by now; fchmodat(2) has no flag for that before 6.6."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)


def _write(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def _write_sparse(file: int, entry: Entry, tar: TarReader) -> None:
    """Write the fragments where they belong and leave holes between them; only data take space on the disk."""
    pieces = _Pieces(tar.data())
    for offset, length in entry.sparse or ():
        os.lseek(file, offset, os.SEEK_SET)
        while length:
            piece = pieces.take(length)
            _write(file, piece)
            length -= len(piece)
    os.ftruncate(file, entry.real_size)


class _Pieces:
    """Pieces cut to measure."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def take(self, limit: int) -> memoryview:
        rest = self._rest or next(self._pieces)
        self._rest = rest[limit:]
        return rest[:limit]
