"""The records of one daemon: a SQLite file in WAL mode with a single writer.

    <data-root>/naru.db        owned by narud; `lock` beside it is held for narud's lifetime

A transaction is committed before anyone is told of a change. The write-ahead log has room in advance: on a full disk
containers still end, and removing one is how people make room. `synchronous=NORMAL`: a power cut may lose the last
commits but never their order or the file, and `recover` brings the machine back to what the records say.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from typing import Any

Row = sqlite3.Row

# SQLite writes its log from the start again after each checkpoint, into the blocks it has. A checkpoint that finds no
# room for new pages of the database is put off; the second megabyte is for what is written meanwhile.
_CHECKPOINT_PAGES = 256
_LOG_BYTES = 2 << 20


def _keep_private(path: str) -> None:
    """Make the file if it is missing, for its owner alone: environments in it hold passwords.

    SQLite gives the log and the index beside it the same mode when it makes them.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.chmod(path + suffix, 0o600)


class Database:
    """One SQLite file. Safe to share between threads; a transaction holds the one write lock."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._lock = threading.RLock()
        _keep_private(os.fspath(path))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._path = os.fspath(path)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA foreign_keys=ON")

    def ensure(self, schema: str) -> None:
        """Create what `schema` (CREATE … IF NOT EXISTS statements) names and is not there yet."""
        with self._lock, self._translated():
            self._connection.executescript(schema)
            self._reserve()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: commit at the end of the block, roll back when it raises. Nests by joining the outer one.

        OSError ENOSPC: the disk is full.
        """
        with self._lock, self._translated():
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # after some errors SQLite has done it by itself
            self._connection.execute("ROLLBACK")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of one SELECT."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path) from error
            raise

    def _reserve(self) -> None:
        """Give the log its blocks. Zeros after its last frame end it as anything unwritten does."""
        with suppress(OSError):  # no room already, or a file system that cannot
            log = os.open(f"{self._path}-wal", os.O_RDWR | os.O_CLOEXEC)
            try:
                if 0 < os.fstat(log).st_size < _LOG_BYTES:
                    os.posix_fallocate(log, 0, _LOG_BYTES)
            finally:
                os.close(log)

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        with self._lock:
            self._connection.close()
