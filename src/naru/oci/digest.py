"""Digests and the identifiers made of them, each a type of its own so that mixing two is a type error.

A digest is `algorithm:hex` of exact bytes. OCI image-spec, descriptor.md, Digests; config.md, Layer ChainID.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NewType

from naru.errors import InvalidArgument

Digest = NewType("Digest", str)
"""`algorithm:hex` of some blob's bytes."""
DiffID = NewType("DiffID", str)
"""Digest of a layer's uncompressed tar."""
ChainID = NewType("ChainID", str)
"""Names a stack of layers, from the bottom up to one of them."""
ImageID = NewType("ImageID", str)
"""Digest of an image's config, with its `sha256:` prefix."""
ContainerID = NewType("ContainerID", str)
"""64 random hex digits."""

_HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)")
_SHORT_LENGTH = 12


def of(data: bytes | bytearray | memoryview) -> Digest:
    """Return the sha256 digest of `data`."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def is_digest(text: str) -> bool:
    """Say whether `text` is a digest of an algorithm that we can verify."""
    match = _DIGEST.fullmatch(text)
    return match is not None and len(match[2]) == _HEX_DIGITS[match[1]]


def validate(text: str) -> Digest:
    """Return `text` as a Digest. InvalidArgument: malformed, or an algorithm that we cannot verify."""
    if not is_digest(text):
        raise InvalidArgument(f"invalid digest {text!r}")
    return Digest(text)


def algorithm(digest: str) -> str:
    """Return the part before the colon."""
    return digest.partition(":")[0]


def encoded(digest: str) -> str:
    """Return the hex part."""
    return digest.partition(":")[2]


def short(identifier: str) -> str:
    """Return the 12 hex digits by which people know an image or a container."""
    return (encoded(identifier) or identifier)[:_SHORT_LENGTH]


def chain_ids(diff_ids: Iterable[DiffID]) -> list[ChainID]:
    """Return the chain ID of each layer, bottom first: the first diff ID, then sha256 of `"<below> <diff ID>"`."""
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1] if chain else None, diff_id))
    return chain


def chain_id(parent: ChainID | None, diff_id: DiffID) -> ChainID:
    """Return the name of the stack made of `diff_id` on top of `parent`."""
    if parent is None:
        return ChainID(diff_id)
    return ChainID(of(f"{parent} {diff_id}".encode()))
