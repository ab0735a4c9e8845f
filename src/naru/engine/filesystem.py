"""A container's file system from outside: its root as a descriptor, with nothing mounted on the host.

Of a container that runs it is the root of its own mount namespace, so volumes, binds and tmpfs show what it sees. Of
one that does not, it is a detached mount of its layers, its volumes and binds below it. Who gets a root uses it by
openat2 only: a container may change any path meanwhile, and was never to be trusted with one. ADR 0006.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from naru.api.container import MountPoint
from naru.engine import etc_files
from naru.engine.container import Container
from naru.engine.lifecycle import Lifecycle
from naru.engine.mounts import Planned, planned_of
from naru.engine.parts import Parts
from naru.errors import Conflict, NaruError
from naru.kernel import mntns
from naru.kernel import mount as m
from naru.runtime import rooted
from naru.runtime.mount_sources import clone_beneath
from naru.runtime.step import Refused, reason

_ATTEMPTS = 10
_SETTLING_S = 1.0


class Filesystems:
    """Opens the file systems of one engine's containers. A yielded descriptor is closed after the block."""

    def __init__(self, parts: Parts, lifecycle: Lifecycle) -> None:
        self._parts = parts
        self._lifecycle = lifecycle

    @contextmanager
    def reading(self, container: Container) -> Iterator[int]:
        """Yield the root, to be read. The container may be started, stopped and removed meanwhile. NotFound."""
        root = self._running(container, mntns.open_root)
        if root is None:
            root = self._stopped(container, writable=False)
        with _closing(root):
            yield root

    @contextmanager
    def writing(self, container: Container) -> Iterator[int]:
        """Yield the root, to be written to. A container that does not run is kept from starting meanwhile. NotFound.

        Conflict: it starts and ends so fast that it can be met neither running nor at rest.
        """
        for _attempt in range(_ATTEMPTS):
            container = self._parts.containers.get(container.id)
            if not container.is_running:
                with self._parts.containers.locked(container.id) as current:
                    if not current.is_running:
                        with _closing(self._stopped(current, writable=True)) as root:
                            yield root
                        return
            running = self._running(container, mntns.open_root)
            if running is not None:
                with _closing(running) as root:
                    yield root
                return
            with suppress(TimeoutError):  # it has ended, and that is about to be recorded
                self._lifecycle.wait(container.id, "not-running").result(_SETTLING_S)
        raise Conflict(f"container {container.id} starts and stops too fast to be copied to")

    @contextmanager
    def layers(self, container: Container) -> Iterator[int]:
        """Yield the root with nothing mounted below it: the image and what the container changed. NotFound."""
        root = self._running(container, mntns.copy_root)
        if root is None:
            root = self._parts.snapshots.mount_reading(container.id)
        with _closing(root):
            yield root

    def _running(self, container: Container, look: Callable[[int], int]) -> int | None:
        """Return what `look` finds with a pidfd of the container's init; None if the container does not run."""
        if not container.is_running:
            return None
        try:
            pidfd = self._lifecycle.task(container).open_init()
        except Conflict:
            return None
        with _closing(pidfd):
            try:
                return look(pidfd)
            except OSError as error:
                if error.errno == errno.ESRCH:
                    return None
                raise

    def _stopped(self, container: Container, *, writable: bool) -> int:
        """Mount the layers and, below them, what a start would mount there. `writable` under the container's lock."""
        snapshots = self._parts.snapshots
        points = self._mount_points(container)
        with ExitStack() as undo:
            self._mount_volumes(container, undo)
            if not writable:
                self._make_mount_points(container, points)
            root = snapshots.mount_detached(container.id) if writable else snapshots.mount_reading(container.id)
            if not points:
                return root
            place = self._parts.paths.container(container.id) / "rootfs"
            with _closing(root):
                return mntns.with_mounts(root, str(place), lambda tree: self._attach_all(tree, points))

    def _mount_volumes(self, container: Container, undo: ExitStack) -> None:
        """Have volumes with options mounted while they are copied from; a copy of a mount goes on by itself."""
        user = f"files of {container.id} {threading.get_ident()}"
        undo.callback(self._parts.volumes.unmount, user)
        for point in container.mounts:
            if point.type == "volume":
                self._parts.volumes.mount(point.name, user)

    def _mount_points(self, container: Container) -> list[Planned]:
        """Return volumes, binds and images, and the files of /etc that a start has written, outer ones first."""
        taken = [point.destination for point in container.mounts]
        files = [
            Planned(MountPoint(type="bind", source=bind.source, destination=bind.destination, rw=True))
            for bind in etc_files.binds(self._parts.paths.container(container.id), taken)
            if Path(bind.source).exists()
        ]
        points = [planned for planned in planned_of(container) if planned.point.source]
        return sorted([*files, *points], key=lambda planned: planned.point.destination.count("/"))

    def _make_mount_points(self, container: Container, points: Sequence[Planned]) -> None:
        """Make, in the layer, the mount points that a first start would: nothing can be made in a view to be read."""
        outer = [point for point in points if not _is_below_another(point, points)]
        with _closing(self._parts.snapshots.mount_reading(container.id)) as root:
            missing = [planned for planned in outer if not _exists(root, planned.point.destination)]
        if not missing:
            return
        with self._parts.containers.locked(container.id) as current:
            if current.is_running:
                return  # then its start has made them
            with _closing(self._parts.snapshots.mount_detached(container.id)) as root:
                for planned in missing:
                    with _closing(self._source(planned)) as source:
                        os.close(_make_target(root, planned.point, is_directory=rooted.is_directory(source)))

    def _attach_all(self, tree: int, points: Sequence[Planned]) -> None:
        for planned in points:
            point = planned.point
            try:
                self._attach(tree, planned)
            except (OSError, Refused) as error:
                said = reason(error)
                raise NaruError(
                    f"error while mounting volume '{point.source}' at {point.destination}: {said}"
                ) from error

    def _attach(self, tree: int, planned: Planned) -> None:
        with _closing(self._source(planned)) as source:
            if not planned.point.rw:
                m.mount_setattr(source, attr_set=m.MOUNT_ATTR_RDONLY)
            with _closing(_make_target(tree, planned.point, is_directory=rooted.is_directory(source))) as target:
                m.move_mount(source, target)

    def _source(self, planned: Planned) -> int:
        """Return a detached copy of what is mounted, as `runtime.mount_sources` takes it for a start.

        A part of an image needs Linux 6.15 here: OSError, EINVAL before.
        """
        point = planned.point
        if point.type == "image":
            top = self._parts.snapshots.mount_view(self._parts.images.get(point.source).chain_id)
        elif not planned.subpath:
            return m.open_tree(m.AT_FDCWD, point.source, clone=True, recursive=True)
        else:
            top = os.open(point.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if not planned.subpath:
            return top
        with _closing(top):
            return clone_beneath(top, planned.subpath, recursive=point.type != "image")


def _make_target(root: int, point: MountPoint, *, is_directory: bool) -> int:
    make = rooted.make_directory if is_directory else rooted.make_file
    return make(root, point.destination)


def _exists(root: int, path: str) -> bool:
    try:
        os.close(rooted.open_in_root(root, path))
    except OSError:
        return False
    return True


def _is_below_another(one: Planned, all_of_them: Sequence[Planned]) -> bool:
    return any(one.point.destination.startswith(f"{other.point.destination}/") for other in all_of_them)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
