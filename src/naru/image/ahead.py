"""One step of a pipeline in a thread of its own: decompress and hash ahead of whoever writes the files.

zlib, zstd, hashlib and file reads let go of the interpreter lock, so this overlaps with unpacking on a second core.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator

from naru.oci.digest import Digest

# Pieces are up to about a MiB; more of them do not make it faster, and each layer being unpacked holds as many.
_DEPTH = 6


class Ahead:
    """An iterator over `pieces`, read ahead and hashed in a thread. Close it, or use it as a context manager.

    What `pieces` raises is raised here, in its place. `digest` and `size` are complete once it is exhausted.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_DEPTH)
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, args=(pieces,), name="read-ahead", daemon=True)
        self._thread.start()

    @property
    def digest(self) -> Digest:
        """The digest of what was read so far."""
        return Digest(f"sha256:{self._hash.hexdigest()}")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        piece = self._queue.get()
        if isinstance(piece, bytes):
            return piece
        self._ended = True
        if piece is None:
            raise StopIteration
        raise piece

    def _run(self, pieces: Iterator[bytes]) -> None:
        end: BaseException | None = None
        try:
            for piece in pieces:
                self._hash.update(piece)
                self.size += len(piece)
                self._queue.put(piece)
                if self._stop.is_set():
                    return
        except BaseException as error:
            end = error
        if not self._stop.is_set():
            self._queue.put(end)

    def close(self) -> None:
        """Stop reading and wait for the thread; a source that blocks for ever must be closed by its owner first."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
