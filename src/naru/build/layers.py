"""Layers while they are made: an active snapshot to write into, then its diff as a blob and a committed snapshot.

The builder's only door to `content` and `image.snapshot`. What a killed build leaves is an active snapshot with a key
that nobody asks for any more: `Snapshots.recover` removes it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from naru.build.cache import Layer
from naru.content.store import ContentStore, Lease
from naru.image.diff import store_layer
from naru.image.snapshot import Snapshots
from naru.oci.digest import ChainID, chain_id
from naru.runtime.rootfs import Overlay

KEY_PREFIX = "build-"


@dataclass
class ActiveLayer:
    """A layer being made on top of `parent`. `root_fd` mounts it (detached) on first use; the layer closes it."""

    snapshots: Snapshots
    key: str
    parent: ChainID | None
    overlay: Overlay
    _root_fd: int = field(default=-1, repr=False)

    @property
    def root_fd(self) -> int:
        if self._root_fd < 0:
            self._root_fd = self.snapshots.mount_detached(self.key)
        return self._root_fd

    def unmount(self) -> None:
        """Close the root, so that the upper directory is at rest."""
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1


@dataclass
class Keeper:
    """Keeps the layers of one build from collection until the build is over."""

    _snapshots: Snapshots
    _lease: Lease
    _stack: ExitStack

    def hold(self, chain: ChainID) -> None:
        """Keep a chain, also one that is yet to come."""
        self._stack.enter_context(self._snapshots.hold([chain]))

    def keep(self, layer: Layer) -> bool:
        """Keep `layer` and say whether it is here, as a snapshot and as a blob."""
        self.hold(layer.chain_id)
        return self._lease.hold(layer.blob.digest) and self._snapshots.exists(layer.chain_id)


class LayerStore:
    """Makes layers and shows finished ones."""

    def __init__(self, content: ContentStore, snapshots: Snapshots) -> None:
        self._content = content
        self._snapshots = snapshots

    @contextmanager
    def keeping(self) -> Iterator[Keeper]:
        """Yield what keeps layers from collection during the block."""
        with ExitStack() as stack:
            yield Keeper(self._snapshots, stack.enter_context(self._content.lease()), stack)

    @contextmanager
    def active(self, parent: ChainID | None) -> Iterator[ActiveLayer]:
        """Yield a new layer on `parent`; it is thrown away unless `commit` took it."""
        key = f"{KEY_PREFIX}{secrets.token_hex(8)}"
        layer = ActiveLayer(self._snapshots, key, parent, self._snapshots.prepare(key, parent))
        try:
            yield layer
        finally:
            layer.unmount()
            self._snapshots.remove(key)

    def commit(self, layer: ActiveLayer, keeper: Keeper, *, time_ns: int | None = None) -> Layer | None:
        """Turn what was written into a blob and a committed snapshot, both kept by `keeper`; None if nothing was.

        `time_ns` is the latest modification time that any file may have in the blob (SOURCE_DATE_EPOCH).
        """
        layer.unmount()
        upper = self._snapshots.upper(layer.key)
        try:
            stored = store_layer(upper, self._content, latest_ns=time_ns)
        finally:
            os.close(upper)
        if stored is None:
            return None
        keeper.hold(chain_id(layer.parent, stored.diff_id))
        chain = self._snapshots.commit(layer.key, stored.diff_id, tar_size=stored.tar_size)
        return Layer(stored.diff_id, chain, stored.blob)

    @contextmanager
    def view(self, chain: ChainID | None) -> Iterator[int]:
        """Yield the open root of a finished stack, read-only; an empty directory for None."""
        root_fd = self._snapshots.mount_view(chain)
        try:
            yield root_fd
        finally:
            os.close(root_fd)
