"""A tar writer whose output is a function of the tree alone: same files, same bytes.

ustar headers with whole seconds, as Docker writes layers; pax records only for what does not fit. Files with large
holes are written as GNU sparse 1.0, which Go's reader knows, so that a terabyte that holds one page stays small.

pax(1p), ustar Interchange Format; GNU tar manual, Storing Sparse Files
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from naru.errors import NaruError
from naru.image.tar_reader import BLOCK, XATTR_RECORD
from naru.kernel.tree import Node, data_ranges, read_xattrs

_READ_SIZE = 1 << 20
_MIN_HOLES = 1 << 20
_NAME_SIZE = _LINK_SIZE = 100
_MAX_ID = 0o7777777
_MAX_SIZE = _MAX_TIME = 0o77777777777
_END = bytes(2 * BLOCK)
_ZEROS = bytes(BLOCK)
# What belongs to a file wherever it goes; security labels of this host and overlayfs's own notes do not.
_KEPT_XATTRS = (b"user.", b"security.capability", b"system.posix_acl_")
_DROPPED_XATTRS = (b"user.overlay.",)
_NO_XATTRS: dict[bytes, bytes] = {}

_KINDS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


class Vanished(NaruError):
    """What was to be added went, or became something else, since it was seen. Nothing of it was written."""


class TarWriter:
    """Writes entries to `write`, in the order they are added. `finish` ends the archive.

    `latest_ns` is the newest time an entry may have (SOURCE_DATE_EPOCH); later ones become it.
    """

    def __init__(self, write: Callable[[bytes], object], *, latest_ns: int | None = None) -> None:
        self._write = write
        self._latest_ns = latest_ns
        self._links: dict[tuple[int, int], bytes] = {}

    def add(self, node: Node, name: bytes) -> None:
        """Add one entry of a tree as `name`; sockets are left out, a second name of a file becomes a hard link.

        Vanished.
        """
        status = node.status
        mode = status.st_mode
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind is None:
            return
        if kind == b"0":
            self._add_file(node, name)
            return
        with _seen(node):
            link = node.readlink() if kind == b"2" else b""
            xattrs = _kept(node.xattrs())
        device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in (b"3", b"4") else (0, 0)
        if kind == b"5":
            name += b"/"
        self.header(name, kind, status, link=link, device=device, xattrs=xattrs)

    def add_root(self, directory: int, name: bytes) -> None:
        """Add the open directory itself as `name`."""
        self.header(name.rstrip(b"/") + b"/", b"5", os.fstat(directory))

    def add_bytes(self, name: str, data: bytes, *, mode: int = 0o644, mtime: int = 0) -> None:
        """Add a generated file, owned by root."""
        self._fields(name.encode(), b"0", mode, 0, 0, len(data), mtime)
        self._write(data)
        self._pad(len(data))

    def add_stream(self, name: str, size: int, pieces: Iterable[bytes], *, mode: int = 0o644) -> None:
        """Add a file of `size` bytes that come in pieces. EOFError: there are fewer or more."""
        self._fields(name.encode(), b"0", mode, 0, 0, size, 0)
        left = size
        for piece in pieces:
            left -= len(piece)
            if left < 0:
                raise EOFError(f"{name} is longer than {size} bytes")
            self._write(piece)
        if left:
            raise EOFError(f"{name} ends {left} bytes early")
        self._pad(size)

    def add_directory(self, name: str) -> None:
        """Add a generated directory, owned by root."""
        self._fields(name.rstrip("/").encode() + b"/", b"5", 0o755, 0, 0, 0, 0)

    def add_marker(self, name: bytes, mtime_ns: int = 0) -> None:
        """Add an empty file without permissions, as whiteouts are."""
        self._fields(name, b"0", 0, 0, 0, 0, self._seconds(mtime_ns))

    def finish(self) -> None:
        """End the archive."""
        self._write(_END)

    def header(
        self,
        name: bytes,
        kind: bytes,
        status: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: Mapping[bytes, bytes] = _NO_XATTRS,
        records: Mapping[bytes, bytes] = _NO_XATTRS,
    ) -> None:
        """Write one header, and the pax records it needs in front of it."""
        self._fields(
            name,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            size,
            self._seconds(status.st_mtime_ns),
            link,
            device,
            {**{XATTR_RECORD + key: value for key, value in xattrs.items()}, **records},
        )

    def _seconds(self, time_ns: int) -> int:
        if self._latest_ns is not None:
            time_ns = min(time_ns, self._latest_ns)
        return max(0, time_ns // 1_000_000_000)

    def _add_file(self, node: Node, name: bytes) -> None:
        status = node.status
        if status.st_nlink > 1:
            known = self._links.get((status.st_dev, status.st_ino))
            if known is not None:
                self.header(name, b"1", status, link=known)
                return
        with _seen(node):
            file = node.open()
        try:
            status = os.fstat(file)
            xattrs = _kept(read_xattrs(file))
            if status.st_nlink > 1:
                self._links[status.st_dev, status.st_ino] = name
            if status.st_size > status.st_blocks * 512 + _MIN_HOLES:
                self._sparse(file, name, status, xattrs)
                return
            self.header(name, b"0", status, size=status.st_size, xattrs=xattrs)
            self._content(file, 0, status.st_size)
            self._pad(status.st_size)
        finally:
            os.close(file)

    def _content(self, file: int, start: int, length: int) -> None:
        """Write a part of a file, as zeros where it shrank meanwhile: the header has promised the size."""
        position, end = start, start + length
        while position < end:
            data = os.pread(file, min(_READ_SIZE, end - position), position) or bytes(min(_READ_SIZE, end - position))
            self._write(data)
            position += len(data)

    def _sparse(self, file: int, name: bytes, status: os.stat_result, xattrs: Mapping[bytes, bytes]) -> None:
        ranges = list(data_ranges(file, status.st_size))
        if not ranges or sum(ranges[-1]) < status.st_size:
            ranges.append((status.st_size, 0))
        lines = b"".join(b"%d\n%d\n" % fragment for fragment in ranges)
        table = b"%d\n%s" % (len(ranges), lines)
        table += bytes(-len(table) % BLOCK)
        size = len(table) + sum(length for _offset, length in ranges)
        records = {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": name,
            b"GNU.sparse.realsize": b"%d" % status.st_size,
        }
        parent, _slash, last = name.rpartition(b"/")
        placeholder = b"/".join(filter(None, (parent, b"GNUSparseFile.0", last)))
        self.header(placeholder, b"0", status, size=size, xattrs=xattrs, records=records)
        self._write(table)
        for offset, length in ranges:
            self._content(file, offset, length)
        self._pad(size)

    def _fields(
        self,
        name: bytes,
        kind: bytes,
        mode: int,
        uid: int,
        gid: int,
        size: int,
        mtime: int,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        records: Mapping[bytes, bytes] = _NO_XATTRS,
    ) -> None:
        needed: dict[bytes, bytes] = {}
        if len(name) > _NAME_SIZE:
            needed[b"path"] = name
        if len(link) > _LINK_SIZE:
            needed[b"linkpath"] = link
        for key, value, limit in ((b"uid", uid, _MAX_ID), (b"gid", gid, _MAX_ID), (b"size", size, _MAX_SIZE)):
            if value > limit:
                needed[key] = b"%d" % value
        if mtime > _MAX_TIME:
            needed[b"mtime"] = b"%d" % mtime
        if needed or records:
            self._pax({**needed, **records})
            uid, gid = (uid if uid <= _MAX_ID else 0), (gid if gid <= _MAX_ID else 0)
            size, mtime = (size if size <= _MAX_SIZE else 0), (mtime if mtime <= _MAX_TIME else 0)
        self._write(_ustar(name, kind, mode, uid, gid, size, mtime, link, device))

    def _pax(self, records: Mapping[bytes, bytes]) -> None:
        if any(not _is_utf8(value) for key, value in records.items() if not key.startswith(XATTR_RECORD)):
            records = {b"hdrcharset": b"BINARY", **records}
        data = b"".join(_pax_record(key, records[key]) for key in sorted(records))
        self._write(_ustar(b"PaxHeaders.0/entry", b"x", 0o644, 0, 0, len(data), 0, b"", (0, 0)))
        self._write(data)
        self._pad(len(data))

    def _pad(self, size: int) -> None:
        if size % BLOCK:
            self._write(_ZEROS[: -size % BLOCK])


def _ustar(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes, device: tuple[int, int]
) -> bytes:
    header = bytearray(BLOCK)
    header[0 : len(name[:_NAME_SIZE])] = name[:_NAME_SIZE]
    header[100:156] = b"%07o\0%07o\0%07o\0%011o\0%011o\0        " % (mode, uid, gid, size, mtime)
    header[156:157] = kind
    header[157 : 157 + len(link[:_LINK_SIZE])] = link[:_LINK_SIZE]
    header[257:265] = b"ustar\00000"
    header[329:345] = b"%07o\0%07o\0" % device
    header[148:156] = b"%06o\0 " % sum(header)  # counted with blanks in its own place
    return bytes(header)


def _pax_record(key: bytes, value: bytes) -> bytes:
    """Return `<length> <key>=<value>\\n`, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


@contextmanager
def _seen(node: Node) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EINVAL):  # EINVAL: to read a link that is none
            raise Vanished(f"{os.fsdecode(node.path)}: {error.strerror}") from error
        raise


def _kept(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return {
        name: value
        for name, value in xattrs.items()
        if name.startswith(_KEPT_XATTRS) and not name.startswith(_DROPPED_XATTRS)
    }


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
