"""`RUN --mount` made real: what is bound into a step, and what of it the cache key holds.

What a step writes to a bind mount is thrown away with the copy it was given. Secrets and ssh agents come with a build
session, which the classic POST /build does not have.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from naru.build.cache import Value
from naru.build.config import working_directory
from naru.build.copying import copy_out
from naru.build.directories import MOUNTS_PREFIX, CacheDirectories
from naru.build.filetree import Tree, fingerprint, select
from naru.build.run_mount import RunMount
from naru.errors import InvalidArgument, Unsupported
from naru.oci.image import ContainerConfig
from naru.oci.runtime import Mount

TreeOf = Callable[[str], AbstractContextManager[Tree]]


def mount_facts(mounts: tuple[RunMount, ...], tree_of: TreeOf) -> list[Value]:
    """Return what a RUN's result depends on through its mounts: bound files count, cache contents do not."""
    facts: list[Value] = []
    for mount in mounts:
        files = ""
        if mount.type == "bind":
            with tree_of(mount.from_) as tree:
                files = fingerprint(tree, select(tree, mount.source or "/"))
        facts.append([mount.type, mount.target, mount.id, mount.read_only, mount.size_bytes, files])
    return facts


@contextmanager
def mounted(
    mounts: tuple[RunMount, ...], tree_of: TreeOf, caches: CacheDirectories, config: ContainerConfig
) -> Iterator[list[Mount]]:
    """Yield the runtime mounts of a RUN; what was copied for them is removed afterwards.

    InvalidArgument: a secret or ssh agent is required that the build does not have.
    """
    with ExitStack() as stack:
        yield [found for mount in mounts if (found := _mount(mount, tree_of, caches, config, stack)) is not None]


def _mount(
    mount: RunMount, tree_of: TreeOf, caches: CacheDirectories, config: ContainerConfig, stack: ExitStack
) -> Mount | None:
    target = working_directory(config, mount.target)
    access = "ro" if mount.read_only else "rw"
    if mount.type == "tmpfs":
        size = [f"size={mount.size_bytes}"] if mount.size_bytes else []
        return Mount(destination=target, type="tmpfs", source="tmpfs", options=["nosuid", "nodev", *size])
    if mount.type == "cache":
        if mount.from_:
            raise Unsupported("RUN --mount=type=cache,from=…: filling a cache mount from a stage is not supported yet")
        path = stack.enter_context(caches.use(mount))
        return Mount(destination=target, type="bind", source=str(path), options=["rbind", access])
    if mount.type in ("secret", "ssh"):
        if mount.required:
            raise InvalidArgument(f"{mount.type} {mount.id or mount.source or mount.target}: not found")
        return None
    with tree_of(mount.from_) as tree:
        caches.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=MOUNTS_PREFIX, dir=caches.directory))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        place.chmod(0o755)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            name = copy_out(tree, mount.source or "/", descriptor)
        finally:
            os.close(descriptor)
    return Mount(destination=target, type="bind", source=str(place / name), options=["rbind", access])
