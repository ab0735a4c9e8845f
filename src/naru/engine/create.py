"""Making a container's record, its writable layer and its volumes; nothing runs yet. Engine API, ContainerCreate."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from naru.api.container import ContainerCreateRequest, ContainerCreateResponse, MountPoint
from naru.api.host import HostConfig
from naru.engine import names
from naru.engine.clock import now
from naru.engine.container import Container
from naru.engine.devices import device_node
from naru.engine.links import check_links
from naru.engine.log_config import task_log_config
from naru.engine.merge import merge
from naru.engine.mounts import plan_mounts, wants_copy
from naru.engine.namespaces import check_mode_conflicts, requested_ports
from naru.engine.parts import Parts
from naru.engine.signals import parse_signal
from naru.engine.spec import SecurityOptions, limits, rlimits
from naru.errors import Conflict, InvalidArgument, NotFound
from naru.image.store import Image

_LEAST_MEMORY = 6 << 20  # below this a container's start fails in strange ways (moby's limit)
_RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")


def create_container(
    parts: Parts,
    name: str,
    request: ContainerCreateRequest,
    platform: str,
    publish: Callable[..., None],
) -> ContainerCreateResponse:
    """Create a container and return its ID. On any error nothing is left.

    NotFound: no such image. Conflict: the name is taken. InvalidArgument: the request contradicts itself, or names a
    network or another container that is not there.
    """
    wanted = names.check(name) if name else ""
    image = parts.images.get(request.image) if request.image else None
    if image is None:
        raise InvalidArgument("no image specified: a container is created from an image")
    host = request.host_config
    warnings = check_host_config(host)
    container = Container(
        id=secrets.token_hex(32),
        name=wanted or names.generate(parts.containers.names()),
        created_at=now(),
        image_id=image.id,
        image=request.image,
        platform=platform or "linux",
        config=merge(request, image.config.config),
        host_config=_with_defaults(host),
        networking=request.networking_config,
    )
    cwd = container.config.working_dir
    if cwd and not cwd.startswith("/"):
        raise InvalidArgument(f"the working directory '{cwd}' is invalid, it needs to be an absolute path")
    if container.config.stop_signal:
        parse_signal(container.config.stop_signal)
    _check_texts(container)
    check_mode_conflicts(container, requested_ports(container))
    with _not_the_image():
        _check_networks(parts, container)
    check_links(container, parts.containers)
    with ExitStack() as undo:
        with _not_the_image():
            container = _with_mounts(parts, container, image, undo)
        directory = parts.paths.container(container.id)
        (directory / "rootfs").mkdir(mode=0o710, parents=True)
        undo.callback(shutil.rmtree, directory)
        parts.snapshots.prepare(container.id, image.chain_id)
        undo.callback(parts.snapshots.remove, container.id)
        _populate_volumes(parts, container)
        container = _add(parts, container, may_rename=not wanted)
        undo.pop_all()
    publish(container, "create")
    return ContainerCreateResponse(id=container.id, warnings=warnings)


def _add(parts: Parts, container: Container, *, may_rename: bool) -> Container:
    """Save the record; under another generated name where somebody was given the same one meanwhile."""
    while True:
        try:
            parts.containers.add(container)
        except Conflict:
            if not may_rename:
                raise
            container = msgspec.structs.replace(container, name=names.generate(parts.containers.names()))
        else:
            return container


def _check_texts(container: Container) -> None:
    """Refuse what execve(2) and /etc/hosts cannot hold."""
    config = container.config
    for text in [*(config.env or []), *(config.cmd or []), *(config.entrypoint or []), config.working_dir]:
        if "\0" in text:
            raise InvalidArgument("invalid argument: NUL in the command, the environment or the working directory")
    for name in (config.hostname, config.domainname):
        if any(character.isspace() or not character.isprintable() for character in name):
            raise InvalidArgument(f"invalid hostname: {name!r}")


def check_host_config(host: HostConfig) -> list[str]:
    """Return Docker's warnings about `host`. InvalidArgument: it cannot be right."""
    if host.memory and host.memory < _LEAST_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swap > 0 and host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_reservation and host.memory and host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.nano_cpus and (host.cpu_quota or host.cpu_period):
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    cpus = os.cpu_count() or 1
    if host.nano_cpus < 0 or host.nano_cpus > cpus * 1_000_000_000:
        raise InvalidArgument(
            f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available",
        )
    policy = host.restart_policy
    if policy.name not in _RESTART_POLICIES:
        raise InvalidArgument(f"invalid restart policy: unknown policy '{policy.name}'")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    if host.userns_mode not in ("", "host"):
        raise InvalidArgument(f"invalid user namespace mode: {host.userns_mode}: user namespaces are not offered yet")
    if host.device_requests:
        raise InvalidArgument('could not select device driver "" with capabilities: [[gpu]]')
    if host.storage_opt:
        raise InvalidArgument("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    if host.runtime not in ("", "naru"):
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f'invalid isolation "{host.isolation}": linux has only "default"')
    if host.volume_driver not in ("", "local"):
        raise InvalidArgument(
            f'error looking up volume plugin {host.volume_driver}: plugin "{host.volume_driver}" not found'
        )
    SecurityOptions(host.security_opt or [])
    task_log_config(host.log_config, "")
    rlimits(host)
    limits(host, device_node)
    return []


@contextmanager
def _not_the_image() -> Iterator[None]:
    """Turn NotFound into InvalidArgument: a client that reads 404 here takes it for the image, and pulls."""
    try:
        yield
    except NotFound as error:
        raise InvalidArgument(str(error)) from error


def _with_defaults(host: HostConfig) -> HostConfig:
    host.network_mode = host.network_mode or "default"
    host.restart_policy.name = host.restart_policy.name or "no"
    host.log_config.type = host.log_config.type or "json-file"
    host.ipc_mode = host.ipc_mode or "private"
    host.cgroupns_mode = host.cgroupns_mode or "private"
    host.runtime = host.runtime or "naru"
    return host


def _check_networks(parts: Parts, container: Container) -> None:
    mode = container.host_config.network_mode
    if mode.startswith("container:"):
        parts.containers.get(mode.removeprefix("container:"))
    elif mode not in ("default", "host", "none"):
        parts.networks.get(mode)
    for name in container.networking.endpoints_config or {}:
        if name not in ("default", "host", "none"):
            parts.networks.get(name)


def _with_mounts(parts: Parts, container: Container, image: Image, undo: ExitStack) -> Container:
    """Plan the mounts, make the volumes among them, and return the container that has them."""
    planned = plan_mounts(
        container.host_config,
        list(container.config.volumes or {}),
        lambda reference: parts.containers.get(reference).mounts,
    )
    undo.callback(parts.volumes.release, container.id, remove_anonymous=True)
    finished = [_resolve(parts, container, point) for _, point in sorted(planned.items())]
    container.mounts.extend(finished)
    return container


def _resolve(parts: Parts, container: Container, point: MountPoint) -> MountPoint:
    if point.type == "bind":
        _check_bind_source(container.host_config, point)
    if point.type == "volume":
        volume = parts.volumes.acquire(point.name or None, container.id)
        point.name, point.source, point.driver = volume.name, volume.mountpoint, "local"
    return point


def _check_bind_source(host: HostConfig, point: MountPoint) -> None:
    """`-v` makes a missing source directory; `--mount` refuses it unless asked to make it."""
    if os.path.lexists(point.source):
        return
    for mount in host.mounts or []:
        if mount.type == "bind" and os.path.normpath(mount.source) == point.source:
            if mount.bind_options and mount.bind_options.create_mountpoint:
                break
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
            )
    try:
        os.makedirs(point.source, mode=0o755, exist_ok=True)
    except OSError as error:
        raise InvalidArgument(
            f"error while creating mount source path '{point.source}': mkdir {point.source}: "
            f"{(error.strerror or str(error)).lower()}"
        ) from error


def _populate_volumes(parts: Parts, container: Container) -> None:
    """Fill new, empty volumes with what the image has at their mount points."""
    wanted = [point for point in container.mounts if wants_copy(container.host_config, point)]
    empty = [point for point in wanted if parts.volumes.is_empty(point.name)]
    if not empty:
        return
    root = parts.snapshots.mount_detached(container.id)
    try:
        for point in empty:
            try:
                parts.volumes.populate(point.name, root, point.destination)
            except NotFound:
                continue  # the image has nothing there
    finally:
        os.close(root)
