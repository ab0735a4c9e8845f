"""Blobs by digest: verified while they are written, immutable once they have a name.

    <root>/blobs/<algorithm>/<hex>   complete and durable; published by rename after fsync
    <root>/ingest/<random>           unfinished; removed at the next start

One process owns a store; its threads share it freely. The store does not know what a blob means: `collect` is told
what to keep. What was committed since the oldest lease still held is kept too, so that whoever builds something of
several blobs takes a lease, writes them, records the thing that refers to them, and only then lets go.
A blob's access time is the time of its last use through this store.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from naru.errors import Corrupt, InvalidArgument, NotFound
from naru.oci import digest as digests
from naru.oci.digest import Digest
from naru.oci.image import Descriptor

_READ_SIZE = 1 << 20
# Documents (manifests, configs) are read whole; distribution servers refuse manifests beyond 4 MiB, as do we.
DOCUMENT_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """A committed blob as `blobs` lists it; `used_at` is seconds since the epoch."""

    digest: Digest
    size: int
    used_at: float


class Lease:
    """Keeps blobs from collection until it ends: all committed meanwhile, and those put under it by `hold`."""

    def __init__(self, store: ContentStore, number: int) -> None:
        self._store = store
        self.number = number
        self.held: set[Digest] = set()

    def hold(self, digest: Digest) -> bool:
        """Keep `digest` if it is there, and say whether it is: how to find out what need not be fetched."""
        return self._store.hold(self, digest)


class ContentStore:
    """The blobs below one directory."""

    def __init__(self, root: str | PathLike[str]) -> None:
        self._blobs = Path(root) / "blobs"
        self._ingest = Path(root) / "ingest"
        self._lock = threading.Lock()
        self._leases: set[Lease] = set()
        self._numbers = itertools.count(1)
        self._committed: dict[Digest, int] = {}
        for directory in (self._blobs / "sha256", self._ingest):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def recover(self) -> None:
        """Remove what earlier processes did not finish writing; call once, before anyone writes."""
        for leftover in self._ingest.iterdir():
            leftover.unlink()

    # Reading

    def path(self, digest: Digest) -> Path:
        """Return where the blob `digest` is or would be. InvalidArgument: not a digest."""
        digests.validate(digest)
        return self._blobs / digests.algorithm(digest) / digests.encoded(digest)

    def exists(self, digest: Digest) -> bool:
        """Say whether the blob is there now; under a lease ask `Lease.hold` instead, which also keeps it."""
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        """Return the blob's size in bytes. NotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"blob {digest} not found") from None

    def open(self, digest: Digest) -> BinaryIO:
        """Open the blob for reading, unbuffered and seekable, and note that it was used. NotFound."""
        try:
            file = open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"blob {digest} not found") from None
        self._touch(file.fileno())
        return file

    def read(self, digest: Digest, *, limit: int = DOCUMENT_LIMIT) -> bytes:
        """Return a small blob's bytes, checked against `digest` once more.

        NotFound; Corrupt: the bytes on disk have changed; InvalidArgument: larger than `limit`.
        """
        with self.open(digest) as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise InvalidArgument(f"blob {digest} is larger than {limit} bytes")
            data = file.read()
        if hashlib.new(digests.algorithm(digest), data).hexdigest() != digests.encoded(digest):
            raise Corrupt(f"blob {digest}: the bytes on disk do not match")
        return data

    def blobs(self) -> Iterator[Blob]:
        """List every committed blob, in no particular order."""
        for directory in sorted(self._blobs.iterdir()):
            with os.scandir(directory) as entries:
                for entry in entries:
                    digest = f"{directory.name}:{entry.name}"
                    if digests.is_digest(digest):
                        status = entry.stat()
                        yield Blob(Digest(digest), status.st_size, status.st_atime)

    def _touch(self, descriptor: int) -> None:
        os.utime(descriptor, ns=(time.time_ns(), os.fstat(descriptor).st_mtime_ns))

    # Writing

    def ingest(self, expected: Descriptor | None = None) -> ContentWriter:
        """Begin a blob: write to the returned context manager, then `commit`; leaving without it discards.

        With `expected` a byte too many is refused as it arrives, and the commit checks size and digest.
        """
        algorithm = "sha256"
        if expected is not None:
            algorithm = digests.algorithm(digests.validate(expected.digest))
            if expected.size < 0:
                raise InvalidArgument(f"blob {expected.digest}: size {expected.size} is negative")
        return ContentWriter(self, self._ingest / secrets.token_hex(16), algorithm, expected)

    def put(self, data: bytes, media_type: str = "") -> Descriptor:
        """Store `data` and return its descriptor."""
        descriptor = Descriptor(media_type=media_type, digest=digests.of(data), size=len(data))
        with self.ingest(descriptor) as writer:
            writer.write(data)
            writer.commit()
        return descriptor

    def put_stream(self, source: BinaryIO, expected: Descriptor | None = None, media_type: str = "") -> Descriptor:
        """Store what `source` yields until its end and return its descriptor. Corrupt: not as `expected`."""
        with self.ingest(expected) as writer:
            shutil.copyfileobj(source, writer, _READ_SIZE)
            return writer.commit(media_type)

    def publish(self, temporary: Path, digest: Digest) -> None:
        """Give a complete, synced ingest file its name; part of `ContentWriter.commit`."""
        target = self.path(digest)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        with self._lock:
            if self._leases:
                self._committed[digest] = next(self._numbers)
            os.rename(temporary, target)
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    # Keeping and collecting

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Hold what is committed during the block, so that a collection in another thread cannot take it away."""
        with self._lock:
            lease = Lease(self, next(self._numbers))
            self._leases.add(lease)
        try:
            yield lease
        finally:
            with self._lock:
                self._leases.discard(lease)
                oldest = min((other.number for other in self._leases), default=None)
                self._committed = {
                    digest: number
                    for digest, number in self._committed.items()
                    if oldest is not None and number > oldest
                }

    def hold(self, lease: Lease, digest: Digest) -> bool:
        """Put an existing blob under `lease`; `Lease.hold` is the way to call it."""
        with self._lock:
            if not self.exists(digest):
                return False
            lease.held.add(digest)
            return True

    def delete(self, digest: Digest) -> bool:
        """Remove one blob whoever refers to it; False if it was not there. Readers that have it open go on."""
        with self._lock:
            return self._unlink(digest)

    def collect(self, keep: Collection[Digest], *, only: Collection[Digest] | None = None) -> list[Blob]:
        """Remove the blobs that are neither in `keep` nor leased, and return them; `only` narrows what may go."""
        removed = []
        candidates = list(self.blobs())
        with self._lock:
            oldest = min((lease.number for lease in self._leases), default=None)
            leased = {digest for lease in self._leases for digest in lease.held}
            for blob in candidates:
                recent = oldest is not None and self._committed.get(blob.digest, 0) > oldest
                if recent or blob.digest in leased or blob.digest in keep:
                    continue
                if (only is None or blob.digest in only) and self._unlink(blob.digest):
                    removed.append(blob)
        return removed

    def _unlink(self, digest: Digest) -> bool:
        try:
            self.path(digest).unlink()
        except FileNotFoundError:
            return False
        self._committed.pop(digest, None)
        return True


class ContentWriter:
    """One blob being written. Not for sharing between threads."""

    def __init__(self, store: ContentStore, path: Path, algorithm: str, expected: Descriptor | None) -> None:
        self._store = store
        self._path = path
        self._algorithm = algorithm
        self._expected = expected
        self._hash = hashlib.new(algorithm)
        self.size = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append `data` and return its length. Corrupt: more than the expected size."""
        view = memoryview(data)
        size = self.size + view.nbytes
        if self._expected is not None and size > self._expected.size:
            raise Corrupt(f"blob {self._expected.digest}: larger than {self._expected.size} bytes")
        self._hash.update(view)
        self.size = size
        while view:
            view = view[os.write(self._descriptor, view) :]
        return len(data)

    def commit(self, media_type: str = "") -> Descriptor:
        """Check, sync and publish the blob; return its descriptor. Corrupt: size or digest is not as expected."""
        expected = self._expected
        if expected is not None and self.size != expected.size:
            raise Corrupt(f"blob {expected.digest}: {self.size} bytes arrived, expected {expected.size}")
        if expected is not None and self.digest != expected.digest:
            raise Corrupt(f"blob {expected.digest}: the content's digest is {self.digest}")
        os.fsync(self._descriptor)
        self._store.publish(self._path, self.digest)
        self.close()
        if expected is not None:
            media_type = media_type or expected.media_type
        return Descriptor(media_type=media_type, digest=self.digest, size=self.size)

    def close(self) -> None:
        """Discard the blob unless it was committed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> ContentWriter:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
