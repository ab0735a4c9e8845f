"""A tar reader for layers: fast enough that the kernel is the limit, strict enough for strangers' archives.

Reads ustar, pax (with GNU sparse 0.0, 0.1, 1.0), and GNU (long names, base-256 numbers, old sparse). Names are bytes
from beginning to end. Where archives are ambiguous the reading is that of Go's archive/tar, so that we unpack what
Docker unpacks. Damaged archives are Corrupt.

pax(1p), Extended Description; GNU tar manual, Basic Tar Format and Storing Sparse Files.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import NoReturn

from naru.errors import Corrupt

BLOCK = 512
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
XATTR_RECORD = b"SCHILY.xattr."

_HEADER_ONLY = frozenset({HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO})
_OLD_REGULAR, _CONTIGUOUS, _GNU_SPARSE = b"\0", b"7", b"S"
_GNU_LONG_NAME, _GNU_LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"
_SPECIAL = frozenset({_GNU_LONG_NAME, _GNU_LONG_LINK, _PAX, _PAX_GLOBAL})
# Extended headers and long names are held in memory; Go's reader has the same limit.
_SPECIAL_LIMIT = 1 << 20
# The map of a 1.0 sparse file lies among its data; a million fragments are enough for anybody.
_SPARSE_MAP_LIMIT = 32 << 20
_SECOND_NS = 1_000_000_000
_NUMBER_CACHE_LIMIT = 4096

_HEADER = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_CHECKSUM = slice(148, 156)
_ZEROS = bytes(BLOCK)

SparseMap = list[tuple[int, int]]


class Entry:
    """One member. `size` is what its data occupy in the archive, `real_size` the file's: more if it is sparse."""

    __slots__ = (
        "device",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime_ns",
        "name",
        "real_size",
        "size",
        "sparse",
        "uid",
        "xattrs",
    )

    def __init__(self, name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime_ns: int, link: bytes):
        self.name = name
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime_ns = mtime_ns
        self.link = link
        self.device = (0, 0)
        self.xattrs: dict[bytes, bytes] | None = None
        self.sparse: SparseMap | None = None
        self.real_size = size


class TarReader:
    """Iterate for the entries; `data`, `whole` and `read` give the current one's content, what is unread is skipped."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._view = memoryview(b"")
        self._position = 0
        self._left = 0
        self._padding = 0
        self._global: dict[bytes, bytes] = {}
        self._numbers: dict[bytes, int] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def whole(self) -> memoryview | None:
        """Return all of the current entry's data if they are at hand in one piece, without copying."""
        start, size = self._position, self._left
        if start + size > len(self._buffer):
            return None
        self._position = start + size
        self._left = 0
        return self._view[start : start + size]

    def data(self) -> Iterator[memoryview]:
        """Yield the rest of the current entry's data, without copying, in pieces as they arrived."""
        while self._left:
            start = self._position
            size = min(len(self._buffer) - start, self._left)
            if not size:
                self._refill()
                continue
            self._position = start + size
            self._left -= size
            yield self._view[start : start + size]

    def read(self, limit: int) -> bytes:
        """Return the rest of the current entry's data. Corrupt: more than `limit` bytes."""
        if self._left > limit:
            _corrupt(f"entry has {self._left} bytes where at most {limit} are expected")
        whole = self.whole()
        return b"".join(self.data()) if whole is None else bytes(whole)

    def drain(self) -> None:
        """Read the input to its end, past the archive's: a digest of it covers what follows, too."""
        self._buffer, self._view = b"", memoryview(b"")
        self._position = self._left = self._padding = 0
        for _piece in self._pieces:
            pass

    # Blocks

    def _refill(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            _corrupt("archive ends in the middle of an entry")
        self._buffer, self._view, self._position = piece, memoryview(piece), 0

    def _block(self) -> bytes | None:
        """Return the next 512 bytes, None at a clean end of input."""
        position = self._position
        block = self._buffer[position : position + BLOCK]
        self._position = position + len(block)
        while len(block) < BLOCK:
            piece = next(self._pieces, None)
            if piece is None:
                if block:
                    _corrupt("archive ends in the middle of a header")
                return None
            self._buffer, self._view = piece, memoryview(piece)
            self._position = min(BLOCK - len(block), len(piece))
            block += piece[: self._position]
        return block

    def _skip(self) -> None:
        left = self._left + self._padding
        self._left = self._padding = 0
        available = len(self._buffer) - self._position
        while left > available:
            left -= available
            self._refill()
            available = len(self._buffer)
        self._position += left

    # Entries

    def _next(self) -> Entry | None:
        long_name = long_link = None
        records: dict[bytes, bytes] | None = None
        while True:
            if self._left or self._padding:
                self._skip()
            block = self._block()
            if block is None or block == _ZEROS:
                return None
            entry = self._parse(block)
            if entry.kind not in _SPECIAL:
                break
            self._begin_data(entry.size)
            content = self.read(_SPECIAL_LIMIT)
            if entry.kind == _PAX:
                records = _pax_records(content)
            elif entry.kind == _PAX_GLOBAL:
                self._global.update(_pax_records(content))
            elif entry.kind == _GNU_LONG_NAME:
                long_name = content.partition(b"\0")[0]
            else:
                long_link = content.partition(b"\0")[0]
        if self._global:
            records = {**self._global, **(records or {})}
        if records:
            _apply_records(entry, records)
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.link = long_link
        if entry.kind in _HEADER_ONLY:
            entry.size = entry.real_size = 0
            return entry
        if entry.kind != REGULAR:
            self._settle_kind(entry, block)
        self._begin_data(entry.size)
        if records and any(key.startswith(b"GNU.sparse.") for key in records):
            self._pax_sparse(entry, records)
        return entry

    def _begin_data(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _settle_kind(self, entry: Entry, block: bytes) -> None:
        """Turn the kinds that are regular files by another letter into those."""
        if entry.kind == _GNU_SPARSE:
            entry.real_size = self._number(block[483:495])
            entry.sparse = self._old_sparse_map(block)
            _check_sparse(entry)
            entry.kind = REGULAR
        elif entry.kind == _OLD_REGULAR and entry.name.endswith(b"/"):
            entry.kind = DIRECTORY
            entry.size = entry.real_size = 0
        elif entry.kind in (_OLD_REGULAR, _CONTIGUOUS):
            entry.kind = REGULAR
        else:
            _corrupt(f"entry {entry.name!r} has the unknown type {entry.kind!r}")

    def _parse(self, block: bytes) -> Entry:
        (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _user, _group, major, minor, prefix) = (
            _HEADER.unpack(block)
        )
        # Adler-32's lower half is 1 + the sum of the bytes modulo 65521, computed in C; the field counts as 8 spaces.
        total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(checksum) + 8 * 0x20
        if (total - self._number(checksum)) % 65521:
            self._check_signed(block)
        name = name.partition(b"\0")[0]
        if prefix[0] and magic == b"ustar\00000":
            name = prefix.partition(b"\0")[0] + b"/" + name
        size_bytes = self._number(size)
        if size_bytes < 0:
            _corrupt(f"entry {name!r} has a negative size")
        if kind in _SPECIAL:
            return Entry(b"", kind, 0, 0, 0, size_bytes, 0, b"")
        known = self._numbers.get
        mode_bits, owner, group = known(mode), known(uid), known(gid)
        entry = Entry(
            name,
            kind,
            (self._number(mode) if mode_bits is None else mode_bits) & 0o7777,
            self._number(uid) if owner is None else owner,
            self._number(gid) if group is None else group,
            size_bytes,
            self._number(mtime) * _SECOND_NS,
            link.partition(b"\0")[0] if link[0] else b"",
        )
        if kind in (CHARACTER, BLOCK_DEVICE):
            entry.device = (self._number(major), self._number(minor))
        return entry

    def _check_signed(self, block: bytes) -> None:
        """Accept the sum that some old writers made, of signed characters."""
        header = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
        if sum(byte - 256 if byte > 127 else byte for byte in header) != self._number(block[_CHECKSUM]):
            _corrupt("header checksum does not match")

    def _number(self, field: bytes) -> int:
        """Parse a numeric field: octal with blanks around it, or base 256 if the first bit is set."""
        value = self._numbers.get(field)
        if value is not None:
            return value
        if field[0] & 0x80:
            bits = len(field) * 8 - 1
            value = int.from_bytes(field, "big") & ((1 << bits) - 1)
            return value - (1 << bits) if field[0] & 0x40 else value
        digits = field.partition(b"\0")[0].strip() or field.strip(b" \0") or b"0"
        if not digits.isdigit():
            _corrupt("header field is not a number")
        try:
            value = int(digits, 8)
        except ValueError:
            _corrupt("header field is not an octal number")
        if len(self._numbers) > _NUMBER_CACHE_LIMIT:
            self._numbers.clear()
        self._numbers[field] = value
        return value

    # Sparse files

    def _old_sparse_map(self, block: bytes) -> SparseMap:
        """Read the map of a GNU sparse entry: four fragments in its header, 21 in each block that follows."""
        sparse = self._fragments(block, 386, 4)
        is_extended = block[482] != 0
        while is_extended:
            extension = self._block()
            if extension is None:
                _corrupt("archive ends in a sparse map")
            sparse += self._fragments(extension, 0, 21)
            is_extended = extension[504] != 0
        return sparse

    def _fragments(self, block: bytes, start: int, count: int) -> SparseMap:
        fragments = []
        for at in range(start, start + 24 * count, 24):
            if block[at] == 0:
                break
            fragments.append((self._number(block[at : at + 12]), self._number(block[at + 12 : at + 24])))
        return fragments

    def _pax_sparse(self, entry: Entry, records: dict[bytes, bytes]) -> None:
        version = (records.get(b"GNU.sparse.major", b""), records.get(b"GNU.sparse.minor", b""))
        listed = records.get(b"GNU.sparse.map", b"")
        if version == (b"1", b"0"):
            pass
        elif not (version in ((b"0", b"0"), (b"0", b"1")) or (version == (b"", b"") and listed)):
            return
        entry.name = records.get(b"GNU.sparse.name") or entry.name
        real_size = records.get(b"GNU.sparse.size") or records.get(b"GNU.sparse.realsize")
        if real_size:
            entry.real_size = _decimal(real_size)
        if version == (b"1", b"0"):
            entry.sparse = self._leading_sparse_map()
            entry.size = self._left
        else:
            numbers = [_decimal(number) for number in listed.split(b",")] if listed else []
            if len(numbers) % 2:
                _corrupt("sparse map has an odd number of fields")
            entry.sparse = list(zip(numbers[::2], numbers[1::2], strict=True))
        _check_sparse(entry)

    def _leading_sparse_map(self) -> SparseMap:
        """Read a 1.0 map: decimal lines in front of the data, the first their count, padded to a block."""
        text = b""
        taken = 0
        lines: list[bytes] = []
        wanted = 1
        while len(lines) < wanted or wanted == 1:
            if self._left < BLOCK or taken > _SPARSE_MAP_LIMIT:
                _corrupt("sparse map is cut short or too large")
            block = self._block()
            if block is None:
                _corrupt("archive ends in a sparse map")
            self._left -= BLOCK
            taken += BLOCK
            text += block
            *complete, text = text.split(b"\n")
            lines += complete
            if lines:
                wanted = 1 + 2 * _decimal(lines[0])
                if wanted == 1:
                    break
        numbers = [_decimal(line) for line in lines[1:wanted]]
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def _check_sparse(entry: Entry) -> None:
    """Corrupt unless the fragments are in order, inside the file, and exactly as long as the data."""
    end = total = 0
    for offset, length in entry.sparse or ():
        if offset < end or length < 0:
            _corrupt(f"entry {entry.name!r}: sparse map overlaps")
        end = offset + length
        total += length
    if end > entry.real_size or total != entry.size:
        _corrupt(f"entry {entry.name!r}: sparse map does not match its size")


def _apply_records(entry: Entry, records: dict[bytes, bytes]) -> None:
    """Let pax records replace header fields; an empty value leaves the header's."""
    for key, value in records.items():
        if key.startswith(XATTR_RECORD):
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[key[len(XATTR_RECORD) :]] = value
        elif not value:
            continue
        elif key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = entry.real_size = _decimal(value)
        elif key == b"uid":
            entry.uid = _decimal(value)
        elif key == b"gid":
            entry.gid = _decimal(value)
        elif key == b"mtime":
            entry.mtime_ns = _time_ns(value)


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """Split `<length> <key>=<value>\\n` records; the fragments of a 0.0 sparse map become one of 0.1."""
    records: dict[bytes, bytes] = {}
    fragments: list[bytes] = []
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + 20)
        end = position + _decimal(content[position:space]) if space > 0 else 0
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if end > len(content) or end <= space or content[end - 1 : end] != b"\n" or not equals or not key:
            _corrupt("malformed pax record")
        if b"\0" in key or (key in (b"path", b"linkpath", b"GNU.sparse.name") and b"\0" in value):
            _corrupt("pax record with a NUL byte")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            is_offset = key == b"GNU.sparse.offset"
            if is_offset == bool(len(fragments) % 2) or b"," in value:
                _corrupt("malformed sparse map")
            fragments.append(value)
        else:
            records[key] = value
        position = end
    if fragments:
        records[b"GNU.sparse.map"] = b",".join(fragments)
    return records


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        _corrupt(f"{text[:20]!r} is not a number")
    return int(text)


def _time_ns(text: bytes) -> int:
    whole, _dot, fraction = text.partition(b".")
    is_negative = whole.startswith(b"-")
    nanoseconds = int(_decimal(fraction[:9].ljust(9, b"0"))) if fraction else 0
    total = _decimal(whole.removeprefix(b"-") or b"0") * _SECOND_NS + nanoseconds
    return -total if is_negative else total


def _corrupt(reason: str) -> NoReturn:
    raise Corrupt(f"tar: {reason}")
