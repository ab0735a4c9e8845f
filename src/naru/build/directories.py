"""The builder's directories: scratch ones that go with their build, and the cache mounts of RUN, which stay.

<data-root>/build/context-<random>/      an unpacked context
<data-root>/build/step-<id>/             a step's bundle, see `step`
<data-root>/build/mounts-<random>/       copies for bind mounts of one step
<data-root>/build/cache/<hash of id>/    cache mounts; they outlive builds, are never in a layer or key
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from naru.build.run_mount import RunMount

CONTEXT_PREFIX = "context-"
MOUNTS_PREFIX = "mounts-"
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
                    path = Path(
                        stack.enter_context(tempfile.TemporaryDirectory(prefix=MOUNTS_PREFIX, dir=self.directory))
                    )
                else:
                    stack.callback(lock.release)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists() or not any(path.iterdir()):
                path.mkdir(exist_ok=True)
                os.chown(path, mount.uid or 0, mount.gid or 0)
                path.chmod(_CACHE_DIRECTORY_MODE if mount.mode is None else mount.mode)
            yield path


def sweep(directory: Path) -> None:
    """Remove the contexts and copies that killed builds left in the builder's `directory`; cache mounts stay."""
    for prefix in (CONTEXT_PREFIX, MOUNTS_PREFIX):
        for left in directory.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
