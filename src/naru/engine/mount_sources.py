"""What a container's mounts come from: made or found at create, mounted while it runs, let go of when it ends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from naru.api.container import MountPoint
from naru.engine.container import Container
from naru.engine.mounts import Planned, plan_mounts, planned_of
from naru.engine.parts import Parts
from naru.errors import InvalidArgument
from naru.kernel import mountinfo
from naru.kernel.openat2 import openat2


def acquire(parts: Parts, container: Container, undo: ExitStack) -> list[Planned]:
    """Plan a new container's mounts and make the volumes among them; undone by `undo`. The container's are filled in.

    InvalidArgument: a mount that cannot be. NotFound: a container or image that is not there.
    """
    plan = plan_mounts(
        container.host_config,
        list(container.config.volumes or {}),
        lambda reference: planned_of(parts.containers.get(reference)),
    )
    undo.callback(parts.volumes.release, container.id, remove_anonymous=True)
    planned = [plan[destination] for destination in sorted(plan)]
    for one in planned:
        _find(parts, container.id, one)
        container.mounts.append(one.point)
        if one.asked is not None:
            container.mount_options[one.point.destination] = one.asked
    return planned


def _find(parts: Parts, container_id: str, planned: Planned) -> None:
    point = planned.point
    match point.type:
        case "bind":
            _check_bind_source(planned)
            _check_propagation(point)
        case "volume":
            options = planned.asked.volume_options if planned.asked is not None else None
            driver = options.driver_config if options is not None else None
            volume = parts.volumes.acquire(
                point.name or None,
                container_id,
                labels=(options.labels if options is not None else None) or {},
                options=(driver.options if driver is not None else None) or {},
            )
            point.name, point.source, point.driver = volume.name, volume.mountpoint, "local"
        case "image":
            point.source = parts.images.get(point.source or point.name).id


def _check_bind_source(planned: Planned) -> None:
    """`-v` makes a missing source directory; `--mount` refuses it unless asked to make it."""
    source, asked = planned.point.source, planned.asked
    if os.path.lexists(source):
        return
    if asked is not None and not (asked.bind_options and asked.bind_options.create_mountpoint):
        raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {source}')
    make_bind_source(source)


def make_bind_source(source: str) -> None:
    """Make a directory to bind. InvalidArgument in Docker's words."""
    try:
        os.makedirs(source, mode=0o755, exist_ok=True)
    except OSError as error:
        raise InvalidArgument(
            f"error while creating mount source path '{source}': mkdir {source}: "
            f"{(error.strerror or str(error)).lower()}"
        ) from error


def _check_propagation(point: MountPoint) -> None:
    """Mounts can spread only from a mount that shares them, and come in only where some are shared."""
    if point.propagation in ("private", "rprivate"):
        return
    entry = mountinfo.containing(point.source)
    if point.propagation in ("shared", "rshared") and not entry.is_shared:
        raise InvalidArgument(f"path {point.source} is mounted on {entry.mount_point} but it is not a shared mount")
    if not entry.is_shared and not entry.is_slave:
        raise InvalidArgument(
            f"path {point.source} is mounted on {entry.mount_point} but it is not a shared or slave mount"
        )


def populate(parts: Parts, container: Container, planned: Sequence[Planned]) -> None:
    """Fill new, empty volumes with what the image has at their mount points."""
    wanted = [one.point for one in planned if one.wants_copy and _can_be_filled(parts, one.point.name)]
    if not wanted:
        return
    root = parts.snapshots.mount_detached(container.id)
    try:
        for point in wanted:
            if not _has(root, point.destination):
                continue
            try:
                parts.volumes.mount(point.name, container.id)
                parts.volumes.populate(point.name, root, point.destination)
            finally:
                parts.volumes.unmount(container.id)
    finally:
        os.close(root)


def _has(root: int, path: str) -> bool:
    try:
        os.close(openat2(root, path, os.O_PATH))
    except FileNotFoundError:
        return False
    return True


def _can_be_filled(parts: Parts, name: str) -> bool:
    """A volume with options is looked at when it is mounted."""
    return bool(parts.volumes.get(name).options) or parts.volumes.is_empty(name)


def mount(parts: Parts, container: Container, undo: ExitStack) -> dict[str, list[str]]:
    """Have ready what a container that starts will mount; return its image mounts' layers by destination.

    InvalidArgument: a volume with options cannot be mounted. NotFound: an image is no more.
    """
    layers: dict[str, list[str]] = {}
    undo.callback(parts.volumes.unmount, container.id)
    for planned in planned_of(container):
        point = planned.point
        if point.type == "volume":
            parts.volumes.mount(point.name, container.id)
        elif point.type == "bind" and planned.asked is None and not os.path.lexists(point.source):
            make_bind_source(point.source)
        elif point.type == "image":
            layers[point.destination] = parts.snapshots.directories(parts.images.get(point.source).chain_id)
    return layers


def hold(parts: Parts, container: Container) -> None:
    """Remember what a container that runs already, found after a restart of the daemon, has mounted."""
    for point in container.mounts:
        if point.type == "volume":
            parts.volumes.mount(point.name, container.id)
