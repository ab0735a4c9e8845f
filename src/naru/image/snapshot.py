"""Snapshots: layers as directories, stacked by overlayfs.

    <root>/<n>/fs      what the layer adds and hides (an overlay's lower or upper directory)
    <root>/<n>/work    overlayfs's own, active snapshots only
    <root>/empty       the lower directory of a snapshot without a parent
    table snapshots    one row per number; the directory without a row is a leftover, and so is the reverse

A snapshot is *preparing* (a layer being unpacked; removed at the next start), *active* (writable, by key: a
container's or a build step's), or *committed* (immutable, by chain ID; the parent of others). A committed one goes
away only while nothing stands on it: no other snapshot (a row refers to it), no hold of this process, no image (the
caller says which). Nothing is ever mounted in the host's mount namespace.

Safe between threads; directories are made and filled outside of the database's lock, except for the empty ones.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path

from naru.errors import Conflict, Corrupt, NotFound, Unsupported
from naru.image.decompress import Source
from naru.image.diff import Change, changes
from naru.image.settle import settle
from naru.image.unpack import Unpacked, unpack_layer
from naru.kernel import quota
from naru.kernel.file import syncfs
from naru.kernel.overlay import overlay
from naru.kernel.tree import remove_tree, walk
from naru.oci.digest import ChainID, DiffID, chain_id
from naru.persist.database import Database, Row
from naru.runtime.rootfs import Overlay

SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL CHECK (state IN ('preparing', 'active', 'committed', 'removing')),
    key TEXT UNIQUE,
    chain_id TEXT UNIQUE,
    diff_id TEXT,
    parent INTEGER REFERENCES snapshots (id),
    size_bytes INTEGER NOT NULL DEFAULT 0,
    tar_size INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS snapshots_parent ON snapshots (parent);
"""
_STACK = """
WITH RECURSIVE stack (id, parent, depth) AS (
    SELECT id, parent, 0 FROM snapshots WHERE id = ?
    UNION ALL SELECT below.id, below.parent, depth + 1 FROM snapshots below JOIN stack ON below.id = stack.parent
) SELECT id FROM stack ORDER BY depth
"""
_LET_GO = "UPDATE snapshots SET state = 'removing', key = NULL, chain_id = NULL, parent = NULL WHERE id = ?"
_EMPTY = "empty"
# Projects of snapshots are numbered from here on, out of the way of those that people and other engines count from 1.
_FIRST_PROJECT = 0x6E000000


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed snapshot: `size_bytes` is what its own files hold, `tar_size` its uncompressed tar's length."""

    chain_id: ChainID
    diff_id: DiffID
    size_bytes: int
    tar_size: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is unpacked but on no parent yet; `commit_layer` or `discard` it."""

    number: int
    unpacked: Unpacked


class Snapshots:
    """The snapshots of one data root."""

    def __init__(self, database: Database, root: str | PathLike[str]) -> None:
        self._database = database
        self._root = Path(root)
        self._held: Counter[ChainID] = Counter()
        database.ensure(SCHEMA)
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._root / _EMPTY).mkdir(exist_ok=True, mode=0o755)

    def recover(self, keys: Collection[str]) -> None:
        """Remove what earlier processes left half done, and active snapshots whose key is not in `keys`.

        Call once, before anybody else uses the store.
        """
        with self._database.transaction() as connection:
            connection.execute("UPDATE snapshots SET state = 'removing' WHERE state = 'preparing'")
            for row in connection.execute("SELECT id, key FROM snapshots WHERE state = 'active'").fetchall():
                if row["key"] not in keys:
                    connection.execute(_LET_GO, (row["id"],))
        for row in self._database.query("SELECT id FROM snapshots WHERE state = 'removing'"):
            self._remove_number(row["id"])
        known = {str(row["id"]) for row in self._database.query("SELECT id FROM snapshots")} | {_EMPTY}
        for directory in self._root.iterdir():
            if directory.name not in known:
                remove_tree(str(directory))

    # Active snapshots

    def prepare(self, key: str, parent: ChainID | None) -> Overlay:
        """Make a writable snapshot on `parent` (None: on nothing) and return what to mount.

        NotFound: no such parent; Conflict: the key is taken.
        """
        with self._database.transaction() as connection:
            if connection.execute("SELECT 1 FROM snapshots WHERE key = ?", (key,)).fetchone():
                raise Conflict(f"snapshot {key} already exists")
            number = self._insert("active", parent=self._number(parent), key=key)
            self._make_directories(number, parent)
        return self.overlay(key)

    def limit(self, key: str, size_bytes: int) -> None:
        """Let a new active snapshot hold no more than that, itself and what overlayfs needs for it.

        Unsupported: the file system has no quotas of projects, or they are not on. NotFound.
        """
        number = self._active(key)["id"]
        directories = (str(self._path(number)), str(self._root / str(number) / "work"))
        try:
            quota.limit_directories(directories, _FIRST_PROJECT + number, size_bytes)
        except OSError as error:
            raise Unsupported(f"no quota for snapshot {key}: {error.strerror}") from error

    def overlay(self, key: str) -> Overlay:
        """Return what to mount for an active snapshot. NotFound."""
        row = self._active(key)
        number = row["id"]
        return Overlay(
            base=str(self._root),
            lower=self._lower(row["parent"]),
            upper=f"{number}/fs",
            work=f"{number}/work",
        )

    def mount_detached(self, key: str) -> int:
        """Mount an active snapshot, seen by nobody else, and return its root's descriptor; closing it unmounts.

        Not while a container runs on it: overlayfs does not define what two mounts of one upper directory show.
        """
        stack = self.overlay(key)
        return overlay(stack.lower, stack.upper, stack.work, base=stack.base)

    def mount_reading(self, key: str) -> int:
        """Mount an active snapshot at rest read-only, and return its root's descriptor; closing it unmounts. NotFound.

        Its own directory is just the topmost of the lower ones here: a container may start on it meanwhile, what
        that changes may then show or not.
        """
        stack = self.overlay(key)
        return overlay((stack.upper, *stack.lower), None, None, base=stack.base)

    def mount_view(self, chain: ChainID | None) -> int:
        """Mount a committed stack read-only (None: an empty directory) and return its root's descriptor."""
        return overlay(self._lower(self._number(chain)), None, None, base=str(self._root))

    def directories(self, chain: ChainID | None) -> list[str]:
        """Return the layers of a committed stack, topmost first (None: an empty one), to be mounted read-only."""
        return [str(self._root / path) for path in self._lower(self._number(chain))]

    def usage(self, key: str) -> int:
        """Return the bytes that an active snapshot's own files hold, each hard-linked one once. NotFound."""
        return _size_of(self._path(self._active(key)["id"]))

    def changes(self, key: str) -> list[Change]:
        """Return what an active snapshot adds, modifies and deletes, by path. NotFound."""
        row = self._active(key)
        with ExitStack() as stack:
            lowers = [_open(stack, self._root / path) for path in self._lower(row["parent"])]
            return changes(_open(stack, self._path(row["id"])), lowers)

    def upper(self, key: str) -> int:
        """Open an active snapshot's own directory, for `image.diff`; the caller closes it. NotFound."""
        return os.open(self._path(self._active(key)["id"]), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def remove(self, key: str) -> None:
        """Remove an active snapshot; nothing happens if there is none."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT id FROM snapshots WHERE key = ?", (key,)).fetchone()
            if row is None:
                return
            connection.execute(_LET_GO, (row["id"],))
        self._remove_number(row["id"])

    def commit(self, key: str, diff_id: DiffID, *, tar_size: int = 0) -> ChainID:
        """Make an active snapshot the layer `diff_id` on its parent; it must not be mounted or written to any more.

        If that chain is there already, this one is removed. Returns the chain ID. NotFound.
        """
        size = self.usage(key)
        with self._database.transaction() as connection:
            row = self._active(key)
            chain = chain_id(self._chain(row["parent"]), diff_id)
            is_new = self._commit_row(row["id"], row["parent"], chain, diff_id, size, tar_size)
            if is_new:
                connection.execute("UPDATE snapshots SET key = NULL WHERE id = ?", (row["id"],))
        if not is_new:
            self.remove(key)
        elif (work := self._root / str(row["id"]) / "work").exists():
            remove_tree(str(work))
        return chain

    # Layers

    def unpack(self, source: Source, expected: DiffID | None = None) -> Layer:
        """Unpack a layer's tar by itself. Corrupt: damaged, hostile, not `expected`; nothing is left of it then."""
        with self._database.transaction():
            number = self._insert("preparing", parent=None, key=None)
            (self._root / str(number)).mkdir(mode=0o700)
            self._path(number).mkdir(mode=0o755)
        try:
            with ExitStack() as stack:
                return Layer(number, unpack_layer(source, _open(stack, self._path(number)), expected=expected))
        except BaseException:
            self._remove_number(number)
            raise

    def commit_layer(self, layer: Layer, parent: ChainID | None) -> ChainID:
        """Put an unpacked layer on `parent`; if that chain is there already, the layer is removed. NotFound."""
        unpacked = layer.unpacked
        number = self._number(parent)
        with ExitStack() as stack:
            lowers = [_open(stack, self._root / path) for path in self._lower(number)]
            settle(_open(stack, self._path(layer.number)), lowers, unpacked.implied, unpacked.whiteouts)
        chain = chain_id(parent, unpacked.diff_id)
        with self._database.transaction():
            is_new = self._commit_row(
                layer.number, self._number(parent), chain, unpacked.diff_id, unpacked.size_bytes, unpacked.tar_size
            )
        if not is_new:
            self.discard(layer)
        return chain

    def discard(self, layer: Layer) -> None:
        """Remove a layer that was not committed."""
        self._remove_number(layer.number)

    # Committed snapshots

    def exists(self, chain: ChainID) -> bool:
        """Say whether the chain is there now; `hold` it to have it stay."""
        return bool(self._database.query("SELECT 1 FROM snapshots WHERE chain_id = ?", (chain,)))

    def get(self, chain: ChainID) -> Committed:
        """Return what is known of a committed snapshot. NotFound."""
        rows = self._database.query("SELECT * FROM snapshots WHERE chain_id = ?", (chain,))
        if not rows:
            raise NotFound(f"snapshot {chain} not found")
        return _committed(rows[0])

    def committed(self) -> list[Committed]:
        """Return every committed snapshot, parents first."""
        return [
            _committed(row)
            for row in self._database.query("SELECT * FROM snapshots WHERE state = 'committed' ORDER BY id")
        ]

    def total_usage(self) -> int:
        """Return the bytes that the files of all committed snapshots hold."""
        rows = self._database.query("SELECT sum(size_bytes) AS size FROM snapshots WHERE state = 'committed'")
        return int(rows[0]["size"] or 0)

    @contextmanager
    def hold(self, chains: Iterable[ChainID]) -> Iterator[None]:
        """Keep these chains, present or yet to come, from collection during the block."""
        held = list(chains)
        with self._database.transaction():
            self._held.update(held)
        try:
            yield
        finally:
            with self._database.transaction():
                self._held.subtract(held)
                self._held = +self._held

    def collect(self, keep: Collection[ChainID], *, only: Collection[ChainID] | None = None) -> list[ChainID]:
        """Remove the committed snapshots that nothing stands on, nobody holds, and are not in `keep`; topmost first.

        `only` narrows what may go.
        """
        removed: list[ChainID] = []
        numbers: list[int] = []
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT id, chain_id FROM snapshots WHERE state = 'committed' ORDER BY id DESC"
            ).fetchall()
            is_progressing = True
            while is_progressing:
                is_progressing = False
                for row in [row for row in rows if row["id"] not in numbers]:
                    chain = ChainID(row["chain_id"])
                    if chain in keep or self._held[chain] or (only is not None and chain not in only):
                        continue
                    if self._has_children(row["id"]):
                        continue
                    connection.execute(_LET_GO, (row["id"],))
                    numbers.append(row["id"])
                    removed.append(chain)
                    is_progressing = True
        for number in numbers:
            self._remove_number(number)
        return removed

    def sync(self) -> None:
        """Have everything unpacked so far on the disk: once per image, before it gets its name. syncfs(2)"""
        with ExitStack() as stack:
            syncfs(_open(stack, self._root))

    # Rows and directories

    def _path(self, number: int) -> Path:
        return self._root / str(number) / "fs"

    def _insert(self, state: str, *, parent: int | None, key: str | None) -> int:
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO snapshots (state, key, parent, created_at) VALUES (?, ?, ?, ?)",
                (state, key, parent, datetime.now(UTC).isoformat()),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _commit_row(
        self, number: int, parent: int | None, chain: ChainID, diff_id: DiffID, size_bytes: int, tar_size: int
    ) -> bool:
        """Commit one row unless the chain is there; part of a transaction, so that two unpackers both succeed."""
        with self._database.transaction() as connection:
            if connection.execute("SELECT 1 FROM snapshots WHERE chain_id = ?", (chain,)).fetchone():
                return False
            connection.execute(
                "UPDATE snapshots SET state = 'committed', parent = ?, chain_id = ?, diff_id = ?, size_bytes = ?,"
                " tar_size = ? WHERE id = ?",
                (parent, chain, diff_id, size_bytes, tar_size, number),
            )
            return True

    def _make_directories(self, number: int, parent: ChainID | None) -> None:
        """Make an active snapshot's directories; its root looks like its parent's, which it hides."""
        directory = self._root / str(number)
        directory.mkdir(mode=0o700)
        (directory / "work").mkdir(mode=0o700)
        upper = self._path(number)
        upper.mkdir(mode=0o755)
        lower = self._root / self._lower(self._number(parent))[0]
        status = lower.stat()
        os.chown(upper, status.st_uid, status.st_gid)
        upper.chmod(status.st_mode & 0o7777)

    def _remove_number(self, number: int) -> None:
        """Remove a directory, then its row: whoever stops in between leaves a row that says `removing`."""
        with self._database.transaction() as connection:
            connection.execute(_LET_GO, (number,))
        self._end_limit(number)
        try:
            remove_tree(str(self._root / str(number)))
        except FileNotFoundError:
            pass
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM snapshots WHERE id = ?", (number,))

    def _end_limit(self, number: int) -> None:
        """Forget a snapshot's quota: the file system keeps limits of projects that hold nothing."""
        with suppress(OSError), ExitStack() as stack:
            descriptor = _open(stack, self._path(number))
            project = quota.project_of(descriptor)
            if project == _FIRST_PROJECT + number:
                quota.limit_project(descriptor, project, 0)

    def _has_children(self, number: int) -> bool:
        return bool(self._database.query("SELECT 1 FROM snapshots WHERE parent = ? LIMIT 1", (number,)))

    def _active(self, key: str) -> Row:
        rows = self._database.query("SELECT * FROM snapshots WHERE key = ? AND state = 'active'", (key,))
        if not rows:
            raise NotFound(f"snapshot {key} not found")
        return rows[0]

    def _number(self, chain: ChainID | None) -> int | None:
        if chain is None:
            return None
        rows = self._database.query("SELECT id FROM snapshots WHERE chain_id = ?", (chain,))
        if not rows:
            raise NotFound(f"snapshot {chain} not found")
        return int(rows[0]["id"])

    def _chain(self, number: int | None) -> ChainID | None:
        if number is None:
            return None
        rows = self._database.query("SELECT chain_id FROM snapshots WHERE id = ?", (number,))
        if not rows or rows[0]["chain_id"] is None:
            raise Corrupt(f"snapshot {number} has a parent that is not committed")
        return ChainID(rows[0]["chain_id"])

    def _lower(self, number: int | None) -> tuple[str, ...]:
        """Return the lower directories of a stack, topmost first, relative to the root."""
        if number is None:
            return (_EMPTY,)
        return tuple(f"{row['id']}/fs" for row in self._database.query(_STACK, (number,)))


def _committed(row: Row) -> Committed:
    return Committed(ChainID(row["chain_id"]), DiffID(row["diff_id"]), row["size_bytes"], row["tar_size"])


def _open(stack: ExitStack, path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _size_of(path: Path) -> int:
    with ExitStack() as stack:
        sizes = {
            (node.status.st_dev, node.status.st_ino): node.status.st_size
            for node in walk(_open(stack, path))
            if not node.is_directory and node.status.st_size
        }
    return sum(sizes.values())
