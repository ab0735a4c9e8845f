"""The build cache: from what a step depends on to the layer it made.

    table build_cache    key → layer (diff ID, chain ID, blob); a record is worth nothing once its snapshot or blob is
                         gone, and is dropped when that is noticed

A key is a digest of the file system below (its chain ID) and everything a step can see: for RUN the command,
environment, user, directory and mounts; for COPY the files' fingerprint and attributes. Labels, times and the
instruction's spelling are not in it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from naru.oci.digest import ChainID, DiffID, Digest, of
from naru.oci.image import Descriptor
from naru.persist.database import Database, Row

SCHEMA = """
CREATE TABLE IF NOT EXISTS build_cache (
    key TEXT PRIMARY KEY,
    parent_chain_id TEXT NOT NULL,
    chain_id TEXT NOT NULL,
    diff_id TEXT NOT NULL,
    media_type TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    description TEXT NOT NULL,
    created_at TEXT NOT NULL,
    last_used_at TEXT NOT NULL,
    used INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS build_cache_chain ON build_cache (chain_id);
"""

Value = str | int | bool | None | Sequence["Value"] | Mapping[str, "Value"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A finished layer: its tar's diff ID, its blob, and the chain it completes."""

    diff_id: DiffID
    chain_id: ChainID
    blob: Descriptor


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """One row, for `docker system df` and `builder prune`. `layer` is None for a step that changed nothing."""

    key: str
    layer: Layer | None
    description: str
    created_at: datetime
    last_used_at: datetime
    used: int


def cache_key(kind: str, parent: ChainID | None, facts: Mapping[str, Value]) -> str:
    """Return the key of a step of `kind` on top of `parent` that depends on `facts` and nothing else."""
    document = json.dumps([kind, parent or "", facts], sort_keys=True, separators=(",", ":"))
    return of(document.encode("utf-8", "surrogateescape"))


class BuildCache:
    """The records, and a turn for each step that is being made."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._running: dict[str, tuple[threading.Lock, int]] = {}
        database.ensure(SCHEMA)

    def find(self, key: str) -> CacheRecord | None:
        """Return the record of `key` and count the use, or None."""
        rows = self._database.query("SELECT * FROM build_cache WHERE key = ?", (key,))
        if not rows:
            return None
        with self._database.transaction() as connection:
            connection.execute("UPDATE build_cache SET last_used_at = ?, used = used + 1 WHERE key = ?", (_now(), key))
        return _record(rows[0])

    def put(self, key: str, parent: ChainID | None, layer: Layer | None, description: str) -> CacheRecord:
        """Remember that `key` made `layer` (None: nothing changed) on top of `parent`, and return the record."""
        now = _now()
        values: tuple[str | int, ...] = ("", "", "", "", 0)
        if layer is not None:
            blob = layer.blob
            values = (layer.chain_id, layer.diff_id, blob.media_type, blob.digest, blob.size)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO build_cache (key, parent_chain_id, chain_id, diff_id, media_type, digest, size,"
                " description, created_at, last_used_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, parent or "", *values, description, now, now),
            )
        made = datetime.fromisoformat(now)
        return CacheRecord(key, layer, description, made, made, 0)

    def drop(self, key: str) -> None:
        """Forget `key`."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM build_cache WHERE key = ?", (key,))

    def records(self) -> list[CacheRecord]:
        """Return all records, the longest unused first."""
        return [_record(row) for row in self._database.query("SELECT * FROM build_cache ORDER BY last_used_at")]

    @contextmanager
    def exclusively(self, key: str) -> Iterator[None]:
        """Let one builder at a time make the step of `key`: a second one waits, and then finds it."""
        with self._lock:
            lock, users = self._running.get(key, (threading.Lock(), 0))
            self._running[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._running.pop(key)
                if users > 1:
                    self._running[key] = (lock, users - 1)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _record(row: Row) -> CacheRecord:
    layer = None
    if row["chain_id"]:
        blob = Descriptor(media_type=row["media_type"], digest=Digest(row["digest"]), size=row["size"])
        layer = Layer(DiffID(row["diff_id"]), ChainID(row["chain_id"]), blob)
    return CacheRecord(
        row["key"],
        layer,
        row["description"],
        datetime.fromisoformat(row["created_at"]),
        datetime.fromisoformat(row["last_used_at"]),
        row["used"],
    )
