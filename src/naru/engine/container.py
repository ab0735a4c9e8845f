"""The durable record of a container, its status machine, and the table that keeps it.

A verb is a table lookup that yields a new record (`advance`); side effects happen around it, under that container's
lock, and the record is saved before anyone is told. Everything here is plain data: the running process is a `Task`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec import Struct

from naru.api.container import ContainerConfig, MountPoint
from naru.api.host import HostConfig, Mount
from naru.api.network import NetworkingConfig
from naru.errors import Conflict, InvalidArgument, NotFound
from naru.network.record import Endpoint, PortBinding
from naru.persist.database import Database


class Status(StrEnum):
    """Docker's container status. Engine API, ContainerState."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Verb(StrEnum):
    """What moves a container from one status to another."""

    START = "start"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    EXIT = "exit"
    AWAIT_RESTART = "await restart"
    REMOVE = "remove"


NEXT: dict[tuple[Status, Verb], Status] = {
    (Status.CREATED, Verb.START): Status.RUNNING,
    (Status.EXITED, Verb.START): Status.RUNNING,
    (Status.RESTARTING, Verb.START): Status.RUNNING,
    (Status.RUNNING, Verb.PAUSE): Status.PAUSED,
    (Status.PAUSED, Verb.UNPAUSE): Status.RUNNING,
    (Status.CREATED, Verb.EXIT): Status.CREATED,  # a first start that failed leaves it created, with an exit code
    (Status.RUNNING, Verb.EXIT): Status.EXITED,
    (Status.PAUSED, Verb.EXIT): Status.EXITED,
    (Status.RESTARTING, Verb.EXIT): Status.EXITED,
    (Status.EXITED, Verb.EXIT): Status.EXITED,
    (Status.EXITED, Verb.AWAIT_RESTART): Status.RESTARTING,
    (Status.CREATED, Verb.REMOVE): Status.REMOVING,
    (Status.EXITED, Verb.REMOVE): Status.REMOVING,
    (Status.RESTARTING, Verb.REMOVE): Status.REMOVING,
    (Status.DEAD, Verb.REMOVE): Status.REMOVING,
    (Status.REMOVING, Verb.REMOVE): Status.REMOVING,
}


class Container(Struct, frozen=True, kw_only=True):
    """One container as it is saved; `id` is 64 hex digits, and the key of its writable layer's snapshot.

    `mount_options` are the `--mount` values behind `mounts`, by destination, inherited ones included.
    `is_paused_for_commit` counts while it is paused: then it goes on with a new daemon, whose commit it was is gone.
    """

    id: str
    name: str
    created_at: datetime
    image_id: str
    image: str
    platform: str
    config: ContainerConfig
    host_config: HostConfig
    networking: NetworkingConfig
    mounts: list[MountPoint] = []
    mount_options: dict[str, Mount] = {}
    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    is_oom_killed: bool = False
    is_stopped_by_user: bool = False
    is_paused_for_commit: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    restart_count: int = 0
    endpoints: list[Endpoint] = []
    ports: list[PortBinding] = []

    @property
    def image_ids(self) -> set[str]:
        """The images it needs: the one it was made from, and those it mounts."""
        return {self.image_id, *(point.source for point in self.mounts if point.type == "image")}

    @property
    def is_running(self) -> bool:
        """True while it has a task: running or paused."""
        return self.status in (Status.RUNNING, Status.PAUSED)


def advance(container: Container, verb: Verb) -> Container:
    """Return `container` after `verb`. Conflict: its status does not allow it."""
    try:
        status = NEXT[container.status, verb]
    except KeyError:
        raise Conflict(f"Container {container.id} is {container.status}: cannot {verb}") from None
    return msgspec.structs.replace(container, status=status)


_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    record BLOB NOT NULL      -- Container as JSON
);
"""


class Containers:
    """All container records: in memory for reading, in the database before any change is visible."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.ensure(_SCHEMA)
        decoder = msgspec.json.Decoder(Container)
        rows = database.query("SELECT record FROM containers")
        self._by_id = {record.id: record for record in (decoder.decode(row["record"]) for row in rows)}
        self._ids = {record.name: record.id for record in self._by_id.values()}
        self._mutex = threading.Lock()
        self._locks: dict[str, threading.RLock] = {}

    def names(self) -> frozenset[str]:
        """Return every name in use."""
        with self._mutex:
            return frozenset(self._ids)

    def all(self) -> list[Container]:
        """Return every record, newest first."""
        with self._mutex:
            return sorted(self._by_id.values(), key=lambda container: container.created_at, reverse=True)

    def count_running(self) -> int:
        """Return how many containers have a task."""
        with self._mutex:
            return sum(container.is_running for container in self._by_id.values())

    def get(self, reference: str) -> Container:
        """Return the container named by a full ID, a name, or an unambiguous ID prefix.

        NotFound: none. InvalidArgument: the prefix fits several.
        """
        with self._mutex:
            if reference in self._by_id:
                return self._by_id[reference]
            identifier = self._ids.get(reference.removeprefix("/"))
            if identifier is not None:
                return self._by_id[identifier]
            found = [record for key, record in self._by_id.items() if reference and key.startswith(reference)]
        if len(found) > 1:
            raise InvalidArgument(f"Multiple IDs found with provided prefix: {reference}")
        if not found:
            raise NotFound(f"No such container: {reference}")
        return found[0]

    def add(self, container: Container) -> None:
        """Save a new record. Conflict: its name is taken, in Docker's words."""
        with self._mutex:
            holder = self._ids.get(container.name)
            if holder is not None:
                raise Conflict(
                    f'Conflict. The container name "/{container.name}" is already in use by container "{holder}". '
                    "You have to remove (or rename) that container to be able to reuse that name."
                )
            self._ids[container.name] = container.id
        try:
            self._write(container)
        except BaseException:
            with self._mutex:
                del self._ids[container.name]
            raise
        with self._mutex:
            self._by_id[container.id] = container

    def save(self, container: Container) -> Container:
        """Replace the record with the same ID, and return it."""
        self._write(container)
        with self._mutex:
            self._by_id[container.id] = container
        return container

    def rename(self, container: Container, name: str) -> Container:
        """Save `container` under `name`. Conflict: taken."""
        with self._mutex:
            holder = self._ids.get(name)
            if holder is not None:
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                    "You have to remove (or rename) that container to be able to reuse that name."
                )
            self._ids[name] = container.id
            del self._ids[container.name]
        return self.save(msgspec.structs.replace(container, name=name))

    def remove(self, container: Container) -> None:
        """Forget the record and free its name."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM containers WHERE id = ?", (container.id,))
        with self._mutex:
            self._by_id.pop(container.id, None)
            if self._ids.get(container.name) == container.id:
                del self._ids[container.name]
            self._locks.pop(container.id, None)

    @contextmanager
    def locked(self, reference: str) -> Iterator[Container]:
        """Hold the lock of one container and yield its record as it is then."""
        identifier = self.get(reference).id
        with self._mutex:
            lock = self._locks.setdefault(identifier, threading.RLock())
        with lock:
            yield self.get(identifier)

    def _write(self, container: Container) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO containers (id, name, record) VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record",
                (container.id, container.name, msgspec.json.encode(container)),
            )
