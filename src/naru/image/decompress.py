"""Layers as they come: gzip, zstd, xz, bzip2 or plain, told apart by their first bytes, never by a media type.

The output comes in pieces of bounded size whatever the ratio, so that a small file cannot fill the memory. The end of
a compressed stream must be seen: a cut one is Corrupt, not short.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import zstandard
from isal import isal_zlib

from naru.errors import Corrupt

_READ_SIZE = 128 << 10
_PIECE_SIZE = 1 << 20
# zstandard cannot bound its output, so its input is: one block makes 128 KiB out of 4 bytes, hence 4 KiB make 128 MiB.
_ZSTD_READ_SIZE = 4 << 10
# Windows beyond 128 MiB need `zstd --long`; decoders refuse them unless told otherwise. RFC 8878, 3.1.1.1.2
_ZSTD_WINDOW = 128 << 20
_GZIP_MAGIC = b"\x1f\x8b\x08"
_GZIP_WBITS = 31
_IsalError = cast(type[Exception], isal_zlib.error)


class Source(Protocol):
    """Where bytes come from: a file, a pipe, a blob."""

    def read(self, size: int, /) -> bytes: ...


def decompressed(source: Source) -> Iterator[bytes]:
    """Yield what `source` holds, decompressed, in pieces of at most about a MiB (zstd: see above).

    Corrupt: damaged, cut short, or followed by something that is not the same format.
    """
    first = source.read(_READ_SIZE)
    while 0 < len(first) < 8 and (more := source.read(_READ_SIZE)):
        first += more
    if first.startswith(_GZIP_MAGIC):
        pieces = _gzip(source, first)
    elif first.startswith(b"\x28\xb5\x2f\xfd") or (first[1:4] == b"\x2a\x4d\x18" and first[0] & 0xF0 == 0x50):
        pieces = _zstd(source, first)
    elif first.startswith(b"\xfd7zXZ\x00"):
        pieces = _limited(source, first, lambda: lzma.LZMADecompressor(memlimit=_ZSTD_WINDOW))
    elif first.startswith(b"BZh"):
        pieces = _limited(source, first, bz2.BZ2Decompressor)
    else:
        pieces = _plain(source, first)
    try:
        yield from pieces
    except (_IsalError, zstandard.ZstdError, lzma.LZMAError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Corrupt(f"compressed data: {error}") from error


def _plain(source: Source, first: bytes) -> Iterator[bytes]:
    data = first
    while data:
        yield data
        data = source.read(_PIECE_SIZE)


def _gzip(source: Source, data: bytes) -> Iterator[bytes]:
    decoder = isal_zlib.decompressobj(_GZIP_WBITS)
    while data:
        piece = decoder.decompress(data, _PIECE_SIZE)
        if piece:
            yield piece
        if decoder.eof:
            data = _next_member(source, decoder.unused_data)
            decoder = isal_zlib.decompressobj(_GZIP_WBITS)
            if not data:
                return
        else:
            data = decoder.unconsumed_tail or source.read(_READ_SIZE)
    raise Corrupt("compressed data: ends in the middle")


def _limited(
    source: Source, data: bytes, make: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]
) -> Iterator[bytes]:
    decoder = make()
    while True:
        piece = decoder.decompress(data, _PIECE_SIZE)
        if piece:
            yield piece
        if decoder.eof:
            data = _next_member(source, decoder.unused_data)
            if not data:
                return
            decoder = make()
        elif decoder.needs_input:
            data = source.read(_READ_SIZE)
            if not data:
                raise Corrupt("compressed data: ends in the middle")
        else:
            data = b""


def _zstd(source: Source, data: bytes) -> Iterator[bytes]:
    make = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj
    decoder = make()
    while data:
        view = memoryview(data)
        data = b""
        for start in range(0, len(view), _ZSTD_READ_SIZE):
            piece = decoder.decompress(view[start : start + _ZSTD_READ_SIZE])
            if piece:
                yield piece
            if decoder.eof:
                data = decoder.unused_data + bytes(view[start + _ZSTD_READ_SIZE :])
                break
        if decoder.eof:
            data = _next_member(source, data)
            if not data:
                return
            decoder = make()
        else:
            data = source.read(_READ_SIZE)
    raise Corrupt("compressed data: ends in the middle")


def _next_member(source: Source, unused: bytes) -> bytes:
    """Return the beginning of what follows a complete member, past zero padding; empty at the end."""
    unused = unused.lstrip(b"\0")
    while len(unused) < 8 and (more := source.read(_READ_SIZE)):
        unused = (unused + more).lstrip(b"\0")
    return unused
