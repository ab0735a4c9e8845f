"""`RUN --mount` made real: what is bound into a step, and what of it the cache key holds.

    <data-root>/build/mounts-<random>/       copies for bind mounts of one step; what it writes there is thrown away
    <data-root>/build/cache/<hash of id>/    cache mounts; they outlive builds, are never in a layer or key

Secrets and ssh agents come with a build session, which the classic POST /build does not have.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from naru.build.cache import Value
from naru.build.config import working_directory
from naru.build.copying import copy_out
from naru.build.filetree import Tree, fingerprint, select
from naru.build.run_mount import RunMount
from naru.errors import InvalidArgument, Unsupported
from naru.oci.image import ContainerConfig
from naru.oci.runtime import Mount

TreeOf = Callable[[str], AbstractContextManager[Tree]]
_PREFIX = "mounts-"
_CACHE_DIRECTORY_MODE = 0o755


@dataclass
class CacheDirectories:
    """The cache mounts of one daemon. `locked` ones serve a step at a time."""

    directory: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)

    @contextmanager
    def use(self, mount: RunMount) -> Iterator[Path]:
        """Yield the directory of a cache mount, made on first use with the owner and mode it asks for."""
        name = hashlib.sha256((mount.id or mount.target).encode()).hexdigest()
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        path = self.directory / "cache" / name
        with ExitStack() as stack:
            if mount.sharing == "locked":
                stack.enter_context(lock)
            elif mount.sharing == "private":
                if not lock.acquire(blocking=False):
                    path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=self.directory)))
                else:
                    stack.callback(lock.release)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists() or not any(path.iterdir()):
                path.mkdir(exist_ok=True)
                os.chown(path, mount.uid or 0, mount.gid or 0)
                path.chmod(_CACHE_DIRECTORY_MODE if mount.mode is None else mount.mode)
            yield path


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


def sweep(directory: Path) -> None:
    """Remove what steps of a killed build left here; cache mounts stay."""
    for left in directory.glob(f"{_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


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
        place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=caches.directory))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        place.chmod(0o755)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            name = copy_out(tree, mount.source or "/", descriptor)
        finally:
            os.close(descriptor)
    return Mount(destination=target, type="bind", source=str(place / name), options=["rbind", access])
