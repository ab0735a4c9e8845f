"""Making a container's record, its writable layer and its volumes; nothing runs yet. Engine API, ContainerCreate."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from naru.api.container import ContainerCreateRequest, ContainerCreateResponse
from naru.api.host import HostConfig
from naru.engine import device_requests, mount_sources, names
from naru.engine.clock import now
from naru.engine.container import Container
from naru.engine.devices import device_node, requested_devices
from naru.engine.host_config import check_config, check_conflicts, check_host_config, storage_size
from naru.engine.limits import limits
from naru.engine.links import check_links
from naru.engine.log_config import task_log_config, with_defaults
from naru.engine.merge import merge
from naru.engine.namespaces import attachments, check_shared, requested_ports
from naru.engine.parts import Parts
from naru.engine.resources import check_resources, this_host
from naru.errors import Conflict, InvalidArgument, NotFound, Unsupported
from naru.image.store import Image
from naru.oci import platform as platforms
from naru.oci.image import Platform
from naru.task.spec import DEFAULT_SHM_BYTES, MASKED_PATHS, READONLY_PATHS


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
    host.log_config = with_defaults(host.log_config, parts.log_config)
    with _not_the_image():
        warnings = check_request(request)
    _check_platform(image, request.image, platform, warnings)
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
    check_config(container.config)
    task_log_config(container, "")
    requested_ports(container)
    with _not_the_image():
        check_shared(container, parts.containers)
        container = msgspec.structs.replace(container, networking=attachments(container, parts.networks))
    check_links(container, parts.containers)
    with ExitStack() as undo:
        with _not_the_image():
            mounts = mount_sources.acquire(parts, container, undo)
        directory = parts.paths.container(container.id)
        (directory / "rootfs").mkdir(mode=0o710, parents=True)
        undo.callback(shutil.rmtree, directory)
        parts.snapshots.prepare(container.id, image.chain_id)
        undo.callback(parts.snapshots.remove, container.id)
        _limit_layer(parts, container)
        _mark(parts, container)
        mount_sources.populate(parts, container, mounts)
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


def _mark(parts: Parts, container: Container) -> None:
    """Make the file by which programs know that they are in a container."""
    upper = parts.snapshots.upper(container.id)
    try:
        os.close(os.open(".dockerenv", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o755, dir_fd=upper))
    finally:
        os.close(upper)


def _limit_layer(parts: Parts, container: Container) -> None:
    size = storage_size(container.host_config)
    try:
        if size:
            parts.snapshots.limit(container.id, size)
    except Unsupported:
        raise InvalidArgument(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        ) from None


@contextmanager
def _not_the_image() -> Iterator[None]:
    """Turn NotFound into InvalidArgument: a client that reads 404 here takes it for the image, and pulls."""
    try:
        yield
    except NotFound as error:
        raise InvalidArgument(str(error)) from error


def check_request(request: ContainerCreateRequest) -> list[str]:
    """Return Docker's warnings about a request, from which what means nothing here was taken. InvalidArgument."""
    host = request.host_config
    endpoints = (request.networking_config.endpoints_config or {}).values()
    warnings = check_host_config(host) + check_resources(host, this_host())
    check_conflicts(request, host, [endpoint.mac_address for endpoint in endpoints])
    limits(host, device_node)
    requested_devices(host)
    device_requests.check(host.device_requests or [])
    return warnings


def _check_platform(image: Image, name: str, asked: str, warnings: list[str]) -> None:
    """Refuse an image for another platform than was asked for, and warn of one that nobody asked for.

    NotFound, which has clients pull the right one.
    """
    made_for = image.config.platform
    if not made_for.os or not made_for.architecture:
        return  # an imported file system says nothing
    if asked:
        wanted = platforms.parse(asked)
        if platforms.rank(wanted, made_for) is None:
            raise NotFound(
                f"image with reference {name} was found but its platform ({_words(made_for)}) "
                f"does not match the specified platform ({_words(wanted)})"
            )
    elif platforms.rank(platforms.host(), made_for) is None:
        warnings.append(
            f"The requested image's platform ({_words(made_for)}) does not match the detected host platform "
            f"({_words(platforms.host())}) and no specific platform was requested"
        )


def _words(platform: Platform) -> str:
    known = platforms.normalize(platform.os, platform.architecture, platform.variant)
    return "/".join(filter(None, (known.os, known.architecture, known.variant)))


def _with_defaults(host: HostConfig) -> HostConfig:
    if host.memory and not host.memory_swap:
        host.memory_swap = 2 * host.memory
    host.shm_size = host.shm_size or DEFAULT_SHM_BYTES
    if not host.privileged:
        host.masked_paths = MASKED_PATHS if host.masked_paths is None else host.masked_paths
        host.readonly_paths = READONLY_PATHS if host.readonly_paths is None else host.readonly_paths
    host.network_mode = host.network_mode or "default"
    host.restart_policy.name = host.restart_policy.name or "no"
    host.ipc_mode = host.ipc_mode or "private"
    host.cgroupns_mode = host.cgroupns_mode or "private"
    host.runtime = host.runtime or "naru"
    return host
