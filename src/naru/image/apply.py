"""An image's layers become snapshots: unpacked side by side, put on each other from the bottom.

Whoever needs a layer that somebody else is unpacking waits for it instead of unpacking it twice. Nothing here keeps
the result: take a hold on the chain IDs first, and record the image before letting go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from naru.content.store import ContentStore
from naru.errors import Corrupt
from naru.image.snapshot import Layer, Snapshots
from naru.oci.digest import ChainID, DiffID, chain_ids
from naru.oci.image import Descriptor

# Creating files holds the interpreter lock half of the time; decompression and hashing have a thread per layer anyway.
_WORKERS = 2


class Applier:
    """Unpacks layers for all images of one engine. Safe between threads."""

    def __init__(self, content: ContentStore, snapshots: Snapshots) -> None:
        self._content = content
        self._snapshots = snapshots
        self._lock = threading.Lock()
        self._busy: dict[ChainID, tuple[threading.Lock, int]] = {}

    def apply(
        self,
        layers: Sequence[Descriptor],
        diff_ids: Sequence[DiffID],
        *,
        on_layer: Callable[[Descriptor], None] | None = None,
    ) -> list[ChainID]:
        """Have a committed snapshot of every layer, bottom first, and return their chain IDs.

        `on_layer` is told of each one in order, in this thread, when it is there. Corrupt: a layer is not what its
        diff ID says; the layers below it stay, nothing of it does.
        """
        if len(layers) != len(diff_ids):
            raise Corrupt(f"image has {len(layers)} layers but {len(diff_ids)} diff IDs")
        chains = chain_ids(diff_ids)
        there = 0
        while there < len(chains) and self._snapshots.exists(chains[there]):
            there += 1
        if on_layer is not None:
            for layer in layers[:there]:
                on_layer(layer)
        if there == len(chains):
            return chains
        with ExitStack() as stack:
            for chain in chains[there:]:
                stack.enter_context(self._alone(chain))
            # From the bottom again: others may have finished meanwhile.
            self._apply_from(there, layers, diff_ids, chains, on_layer)
        return chains

    def _apply_from(
        self,
        start: int,
        layers: Sequence[Descriptor],
        diff_ids: Sequence[DiffID],
        chains: Sequence[ChainID],
        on_layer: Callable[[Descriptor], None] | None,
    ) -> None:
        missing = [number for number in range(start, len(chains)) if not self._snapshots.exists(chains[number])]
        is_stopped = threading.Event()

        def unpack(number: int) -> Layer:
            if is_stopped.is_set():
                raise Corrupt("a layer below could not be unpacked")
            with self._content.open(layers[number].digest) as blob:
                return self._snapshots.unpack(blob, diff_ids[number])

        with ThreadPoolExecutor(_WORKERS, "unpack") as pool:
            unpacking = {number: pool.submit(unpack, number) for number in missing}
            try:
                for number in range(start, len(chains)):
                    if number in unpacking:
                        layer = unpacking[number].result()
                        del unpacking[number]
                        self._snapshots.commit_layer(layer, chains[number - 1] if number else None)
                    if on_layer is not None:
                        on_layer(layers[number])
            except BaseException:
                is_stopped.set()
                for future in unpacking.values():
                    if not future.cancel() and future.exception() is None:
                        self._snapshots.discard(future.result())
                raise

    @contextmanager
    def _alone(self, chain: ChainID) -> Iterator[None]:
        """Be the only one who makes `chain`. Chains are taken from the bottom up, so nobody waits in a circle."""
        with self._lock:
            lock, users = self._busy.get(chain, (threading.Lock(), 0))
            self._busy[chain] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._busy[chain]
                if users == 1:
                    del self._busy[chain]
                else:
                    self._busy[chain] = (lock, users - 1)
