"""Named volumes on this machine: directories that outlive containers. Docker's `local` driver.

    <root>/<name>/_data       what containers see, mounted by them and by nobody else
    <root>/<name>/_new        a copy being made of what an image has there; becomes _data by rename
    <root>/.removing-<hex>    on its way out; removed at the next start if need be
    table volumes             one row per volume
    table volume_users        volume × container; a volume with users is not removed

A volume with `options` (`type`, `device`, `o`) is mounted at its `_data` as long as a running container uses it, since
all who use it must see one file system; it is the one thing that this engine mounts on the host. A directory without a
row is never removed, it may be somebody's data.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from naru.errors import Conflict, InvalidArgument, NotFound
from naru.kernel.mount import MNT_DETACH, umount2
from naru.kernel.mountinfo import is_mounted, mounts
from naru.kernel.openat2 import openat2
from naru.kernel.tree import copy_tree, remove_tree, walk
from naru.persist.database import Database, Row
from naru.volume import local_options

ANONYMOUS_LABEL = "com.docker.volume.anonymous"

SCHEMA = """
CREATE TABLE IF NOT EXISTS volumes (
    name TEXT PRIMARY KEY,
    labels TEXT NOT NULL,
    options TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS volume_users (
    volume TEXT NOT NULL REFERENCES volumes (name),
    container_id TEXT NOT NULL,
    PRIMARY KEY (volume, container_id)
);
CREATE INDEX IF NOT EXISTS volume_users_container ON volume_users (container_id);
"""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_NAME_LENGTH = 255
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as it is recorded; `mountpoint` is the host directory that containers see."""

    name: str
    mountpoint: str
    created_at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_anonymous(self) -> bool:
        """Whether it was made for one container, without a name, and goes with `docker rm -v`."""
        return ANONYMOUS_LABEL in self.labels


VolumeList: TypeAlias = list[Volume]
Names: TypeAlias = list[str]


class Volumes:
    """The volumes of one data root. Safe between threads."""

    def __init__(self, database: Database, root: str | PathLike[str]) -> None:
        self._database = database
        self._root = Path(root)
        self._populating = threading.Lock()
        self._mounting = threading.Lock()
        self._mounted_for: dict[str, set[str]] = {}
        database.ensure(SCHEMA)
        self._root.mkdir(parents=True, exist_ok=True, mode=0o701)

    def recover(self, container_ids: Collection[str]) -> None:
        """Forget users that are no more, finish removals, drop half-made copies. Call once, at start.

        What an earlier process mounted for containers that run no more is unmounted; `mount` comes before this for
        those that do.
        """
        used = {self._place(name) for name in self._mounted_for}
        root = self._root.resolve()
        for entry in reversed(mounts()):
            if Path(entry.mount_point).is_relative_to(root) and entry.mount_point not in used:
                umount2(entry.mount_point, MNT_DETACH)
        with self._database.transaction() as connection:
            for row in connection.execute("SELECT DISTINCT container_id FROM volume_users").fetchall():
                if row["container_id"] not in container_ids:
                    connection.execute("DELETE FROM volume_users WHERE container_id = ?", (row["container_id"],))
        for directory in self._root.iterdir():
            if directory.name.startswith(".removing-"):
                remove_tree(str(directory))
            elif (directory / "_new").is_dir():
                remove_tree(str(directory / "_new"))
        for volume in self.list():
            Path(volume.mountpoint).mkdir(mode=0o755, parents=True, exist_ok=True)

    # Records

    def create(
        self, name: str | None = None, *, labels: Mapping[str, str] = _NOTHING, options: Mapping[str, str] = _NOTHING
    ) -> Volume:
        """Make a volume, or return the one of that name; without a name make an anonymous one.

        InvalidArgument: not a name, or an unknown option. Conflict: it exists with other options.
        """
        if name is None:
            name = secrets.token_hex(32)
            labels = {**labels, ANONYMOUS_LABEL: ""}
        _check_name(name)
        local_options.check_options(name, options)
        with self._database.transaction() as connection:
            row = connection.execute("SELECT * FROM volumes WHERE name = ?", (name,)).fetchone()
            if row is not None:
                volume = self._volume(row)
                if options and dict(options) != dict(volume.options):
                    raise Conflict(f"volume {name} already exists with other options")
                return volume
            data = self._root / name / "_data"
            data.mkdir(mode=0o755, parents=True, exist_ok=True)
            connection.execute(
                "INSERT INTO volumes (name, labels, options, created_at) VALUES (?, ?, ?, ?)",
                (name, _json(labels), _json(options), datetime.now(UTC).isoformat()),
            )
        return self.get(name)

    def get(self, name: str) -> Volume:
        """Return a volume. NotFound, in Docker's words."""
        rows = self._database.query("SELECT * FROM volumes WHERE name = ?", (name,))
        if not rows:
            raise NotFound(f"get {name}: no such volume")
        return self._volume(rows[0])

    def list(self) -> VolumeList:
        """Return every volume, by name."""
        return [self._volume(row) for row in self._database.query("SELECT * FROM volumes ORDER BY name")]

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its data; `force` does not mind that there is none.

        Conflict: containers use it. NotFound.
        """
        doomed = self._root / f".removing-{secrets.token_hex(8)}"
        with self._database.transaction() as connection:
            users = self.users(name)
            if users or self._mounted_for.get(name):
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            if not connection.execute("DELETE FROM volumes WHERE name = ?", (name,)).rowcount:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            if is_mounted(self._place(name)):  # a killed process left it so
                self._unmount(name)
            try:
                os.rename(self._root / name, doomed)
            except FileNotFoundError:
                return
        remove_tree(str(doomed))

    # Users

    def acquire(
        self,
        name: str | None,
        container_id: str,
        *,
        labels: Mapping[str, str] = _NOTHING,
        options: Mapping[str, str] = _NOTHING,
    ) -> Volume:
        """Return the volume `name`, made if missing, or a new anonymous one; the container is now a user of it."""
        with self._database.transaction() as connection:
            volume = self.create(name, labels=labels, options=options)
            connection.execute("INSERT OR IGNORE INTO volume_users VALUES (?, ?)", (volume.name, container_id))
        return volume

    def release(self, container_id: str, *, remove_anonymous: bool = False) -> Names:
        """End a container's use of its volumes; remove the anonymous ones that nobody uses then, and return those."""
        removed = []
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT volume FROM volume_users WHERE container_id = ?", (container_id,))
            names = [row["volume"] for row in rows.fetchall()]
            connection.execute("DELETE FROM volume_users WHERE container_id = ?", (container_id,))
        for name in names if remove_anonymous else ():
            try:
                if self.get(name).is_anonymous:
                    self.remove(name)
                    removed.append(name)
            except (Conflict, NotFound):
                continue
        return removed

    def users(self, name: str) -> Names:
        """Return the IDs of the containers that use a volume."""
        rows = self._database.query(
            "SELECT container_id FROM volume_users WHERE volume = ? ORDER BY container_id", (name,)
        )
        return [row["container_id"] for row in rows]

    # Mounts of volumes with options

    def mount(self, name: str, container_id: str) -> None:
        """Have a volume with options mounted for a container; nothing for one without. Again for the same: nothing.

        NotFound. InvalidArgument: it cannot be mounted, with the kernel's reason.
        """
        volume = self.get(name)
        if not volume.options:
            return
        with self._mounting:
            if not is_mounted(self._place(name)):
                local_options.mount_at(volume.options, volume.mountpoint)
            self._mounted_for.setdefault(name, set()).add(container_id)

    def unmount(self, container_id: str) -> None:
        """End a container's use of mounted volumes; the last one's end unmounts. Nothing if it used none."""
        with self._mounting:
            for name in [name for name, users in self._mounted_for.items() if container_id in users]:
                self._mounted_for[name].discard(container_id)
                if not self._mounted_for[name]:
                    del self._mounted_for[name]
                    self._unmount(name)

    def _place(self, name: str) -> str:
        """Return where a volume is mounted, as the kernel lists it."""
        return os.path.realpath(self._root / name / "_data")

    def _unmount(self, name: str) -> None:
        place = self._place(name)
        try:
            umount2(place)
        except OSError as error:
            if error.errno == errno.EBUSY:  # somebody on the host looks into it: it goes when they do
                umount2(place, MNT_DETACH)
            elif error.errno != errno.EINVAL:  # not mounted: an administrator was here before us
                raise

    # Data

    def is_empty(self, name: str) -> bool:
        """Say whether there is nothing in a volume. NotFound."""
        with os.scandir(self.get(name).mountpoint) as entries:
            return next(entries, None) is None

    def usage(self, name: str) -> int:
        """Return the bytes that a volume's files hold, each hard-linked one once. NotFound."""
        with ExitStack() as stack:
            directory = _open(stack, self.get(name).mountpoint)
            return sum(
                {node.status.st_ino: node.status.st_size for node in walk(directory) if not node.is_directory}.values()
            )

    def populate(self, name: str, root: int, path: str) -> bool:
        """Fill an empty volume with what the image root open as `root` has at `path`; False if it was not empty.

        The volume's own directory gets the owner and mode of the image's. A crash leaves the volume empty.
        NotFound: nothing there. Conflict: a file is there.
        """
        volume = self.get(name)
        with self._populating, ExitStack() as stack:
            if not self.is_empty(name):
                return False
            source = _open_source(stack, root, path)
            if len(self.users(name)) > 1 or volume.options:
                # Somebody may have mounted this very directory: it must not be replaced by another.
                copy_tree(source, _open(stack, volume.mountpoint))
                return True
            copy = self._root / name / "_new"
            copy.mkdir(mode=0o700)
            try:
                copy_tree(source, _open(stack, copy))
                os.rename(copy, volume.mountpoint)
            except BaseException:
                remove_tree(str(copy))
                raise
        return True

    def _volume(self, row: Row) -> Volume:
        return Volume(
            name=row["name"],
            mountpoint=str(self._root / row["name"] / "_data"),
            created_at=datetime.fromisoformat(row["created_at"]),
            labels=msgspec.json.decode(row["labels"], type=dict[str, str]),
            options=msgspec.json.decode(row["options"], type=dict[str, str]),
        )


def _open_source(stack: ExitStack, root: int, path: str) -> int:
    try:
        descriptor = openat2(root, path.lstrip("/") or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise Conflict(f"cannot mount volume over existing file, file exists {path}") from error
        if error.errno == errno.ENOENT:
            raise NotFound(f"{path} is not in the image") from error
        raise
    stack.callback(os.close, descriptor)
    return descriptor


def _check_name(name: str) -> None:
    if len(name) < 2:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH:
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )


def _json(values: Mapping[str, str]) -> str:
    return msgspec.json.encode(dict(values)).decode()


def _open(stack: ExitStack, path: str | Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor
