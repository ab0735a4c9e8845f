"""The builder's door: what `engine` and `library` call, and what must be known of past builds before the first one.

What a build itself needs (`build`, and all that stands on it) is loaded with the first one: 3 MB that a daemon which
only runs containers does without. A build that fails or is killed leaves no image, no name, and (after `recover`) no
directory; the steps it finished are found by the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from naru.api.build import BuildCache as BuildCacheItem
from naru.api.build import BuildOptions, BuildPruneReport
from naru.api.progress import ProgressMessage
from naru.build.cache import BuildCache, CacheRecord
from naru.build.directories import CacheDirectories, sweep
from naru.build.layers import LayerStore
from naru.build.step import StepRunner
from naru.content.store import ContentStore
from naru.image.snapshot import Snapshots
from naru.image.store import Image, Images, Roots
from naru.oci.digest import ImageID
from naru.oci.image import ContainerConfig, Platform
from naru.oci.reference import Reference
from naru.persist.database import Database

Resolve = Callable[[Reference, Platform], Image]
Progress = Callable[[ProgressMessage], None]


@dataclass(frozen=True, slots=True)
class Stores:
    """What builds stand on. `resolve` finds an image that is not here (pull, library)."""

    images: Images
    layers: LayerStore
    cache: BuildCache
    caches: CacheDirectories
    runner: StepRunner
    resolve: Resolve
    directory: Path


class Builder:
    """The builder of one daemon; safe between threads."""

    def __init__(
        self,
        content: ContentStore,
        images: Images,
        snapshots: Snapshots,
        step_runner: StepRunner,
        resolve: Resolve,
        data_root: Path,
        database: Database,
    ) -> None:
        directory = data_root / "build"
        self._stores = Stores(
            images=images,
            layers=LayerStore(content, snapshots),
            cache=BuildCache(database),
            caches=CacheDirectories(directory),
            runner=step_runner,
            resolve=resolve,
            directory=directory,
        )
        images.add_roots(self._roots)

    def build(
        self,
        context: BinaryIO | Path,
        options: BuildOptions,
        progress: Progress,
        cancelled: threading.Event | None = None,
    ) -> ImageID:
        """Build an image from `context` (a tar stream or a directory), tag it, and return its ID.

        DockerfileError, InvalidArgument, NotFound: the request is wrong. StepFailed: a RUN failed. Unsupported: an
        option or instruction that this builder does not know. Cancelled: `cancelled` was set.
        """
        from naru.build.build import build

        return build(self._stores, context, options, progress, cancelled)

    def changed(self, config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
        """Return an image's config after the instructions of a `--change`; without any, as it is. InvalidArgument."""
        if not changes:
            return config
        from naru.build.changes import changed

        return changed(config, changes)

    def disk_usage(self) -> list[BuildCacheItem]:
        """Return the build cache's records, the longest unused first. Engine API, SystemDataUsage."""
        return [_cache_item(record) for record in self._stores.cache.records() if record.layer is not None]

    def prune(self, *, unused_since: datetime | None = None) -> BuildPruneReport:
        """Forget the cache (what was last used before `unused_since`) and free what nothing else needs."""
        deleted = [
            record.key
            for record in self._stores.cache.records()
            if unused_since is None or record.last_used_at < unused_since
        ]
        for key in deleted:
            self._stores.cache.drop(key)
        return BuildPruneReport(caches_deleted=deleted or None, space_reclaimed=self._stores.images.prune_content())

    def recover(self) -> None:
        """Remove what a killed daemon's builds left. Call once at start, after the tasks are reconciled."""
        self._stores.runner.recover()
        sweep(self._stores.directory)

    def _roots(self) -> Roots:
        layers = [record.layer for record in self._stores.cache.records() if record.layer is not None]
        return Roots(frozenset(layer.blob.digest for layer in layers), frozenset(layer.chain_id for layer in layers))


def _cache_item(record: CacheRecord) -> BuildCacheItem:
    return BuildCacheItem(
        id=record.key,
        description=record.description,
        shared=False,
        size=record.layer.blob.size if record.layer else 0,
        created_at=record.created_at.isoformat(),
        last_used_at=record.last_used_at.isoformat(),
        usage_count=record.used,
    )
