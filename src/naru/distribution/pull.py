"""Fetch an image from a registry into the content store: reference → index → manifest → config and layers.

Blocking, for a worker thread: a private event loop lives as long as the call. Everything is verified against the
digest that named it while it is written; what the store has is not fetched again. The caller holds a lease, unpacks,
and records the reference last. Lines of progress and texts of errors are Docker's.
OCI distribution-spec, Pull; OCI image-spec, image-index.md, manifest.md
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from naru.api.progress import ProgressDetail, ProgressMessage
from naru.api.system import AuthConfig
from naru.content.store import DOCUMENT_LIMIT, ContentStore, ContentWriter, Lease
from naru.distribution.challenge import Credentials
from naru.distribution.client import RegistryClient
from naru.distribution.loop import run
from naru.distribution.manifest import ACCEPT, media_type_of
from naru.distribution.refusal import RegistryError
from naru.errors import Corrupt, NotFound, Unavailable, Unsupported
from naru.oci import digest as digests
from naru.oci import platform as platforms
from naru.oci.digest import Digest
from naru.oci.image import (
    INDEX_TYPES,
    LAYER_TYPES,
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_DOCKER_CONFIG,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    decode,
)
from naru.oci.reference import Reference

PARALLEL_LAYERS = 3
_PROGRESS_INTERVAL_S = 0.1
# A piece handed to a thread to be hashed and written; smaller ones cost more in hand-over than in hashing.
_WRITE_BYTES = 1 << 20
_MAX_INDEX_DEPTH = 3

Progress = Callable[[ProgressMessage], None]


@dataclass(frozen=True, slots=True)
class PulledImage:
    """What is now in the content store; `digest` is what the reference named: the index's where there is one."""

    reference: Reference
    digest: Digest
    manifest_descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig

    @property
    def layers(self) -> list[Descriptor]:
        """The layer blobs, bottom first."""
        return self.manifest.layers


def pull(
    reference: Reference,
    *,
    platform: Platform | None,
    content: ContentStore,
    auth: AuthConfig | None = None,
    progress: Progress,
    lease: Lease | None = None,
    on_layer: Callable[[int, Descriptor], None] | None = None,
    insecure_registries: Collection[str] = (),
    cancelled: threading.Event | None = None,
) -> PulledImage:
    """Bring the image `reference` names for `platform` (None: this machine's, or the only one there is) here.

    `progress` and `on_layer` (a layer, by position from the bottom, is in the store) are called in this thread; they
    must not wait for the pull. "Pull complete", "Digest:" and "Status:" are the caller's to say, once it unpacked.
    NotFound, Unauthorized, Unavailable (not reachable: fall back), Unsupported, Corrupt; Unavailable when `cancelled`.
    """
    task = _Pull(reference, platform, content, progress, lease, on_layer)
    return run(task.run(Credentials.of(auth), insecure_registries), cancelled)


class _Pull:
    def __init__(
        self,
        reference: Reference,
        platform: Platform | None,
        content: ContentStore,
        progress: Progress,
        lease: Lease | None,
        on_layer: Callable[[int, Descriptor], None] | None,
    ) -> None:
        self._reference = reference.with_default_tag()
        self._platform = platform
        self._content = content
        self._progress = progress
        self._lease = lease
        self._on_layer = on_layer
        self._slots = asyncio.Semaphore(PARALLEL_LAYERS)

    async def run(self, auth: Credentials, insecure_registries: Collection[str]) -> PulledImage:
        reference = self._reference
        async with RegistryClient(
            reference.domain, reference.path, credentials=auth, insecure_registries=insecure_registries
        ) as self._client:
            try:
                return await self._fetch()
            except RegistryError as error:
                raise _in_dockers_words(error, reference) from error

    async def _fetch(self) -> PulledImage:
        reference = self._reference
        name = reference.digest or reference.tag or ""
        top, body = await self._document(name, reference.digest)
        self._progress(ProgressMessage(status=f"Pulling from {reference.path}", id=name))
        descriptor, body = await self._for_platform(top, body)
        manifest = decode(body, Manifest)
        _check_manifest(manifest)
        config_bytes = await self._config(manifest.config)
        config = decode(config_bytes, ImageConfig)
        if self._platform is not None and platforms.rank(self._platform, config.platform) is None:
            raise NotFound(
                f"image with reference {reference.familiar()} was found but does not provide the specified platform "
                f"({self._platform})"
            )
        await self._layers(manifest.layers)
        return PulledImage(reference, top.digest, descriptor, manifest, config)

    async def _document(self, name: str, expected: Digest | None) -> tuple[Descriptor, bytes]:
        """Fetch an index or manifest by tag or digest, verify and store it; its media type is what it says it is."""
        body, headers = await self._client.document(f"manifests/{name}", accept=ACCEPT, limit_bytes=DOCUMENT_LIMIT)
        media_type = media_type_of(body, headers.get("Content-Type", ""))
        announced = expected or headers.get("Docker-Content-Digest", "")
        digest = digests.of(body)
        if announced.startswith("sha256:") and announced != digest:
            raise Corrupt(f"{self._reference.familiar()}: manifest {announced}: the content's digest is {digest}")
        descriptor = Descriptor(media_type=media_type, digest=expected or digest, size=len(body))
        await asyncio.to_thread(self._store, descriptor, body)
        return descriptor, body

    async def _for_platform(self, descriptor: Descriptor, body: bytes) -> tuple[Descriptor, bytes]:
        wanted = self._platform or platforms.host()
        for _depth in range(_MAX_INDEX_DEPTH):
            if descriptor.media_type not in INDEX_TYPES:
                return descriptor, body
            chosen = platforms.choose(decode(body, Index).manifests, wanted)
            if chosen is None:
                raise NotFound(f"no matching manifest for {wanted} in the manifest list entries")
            descriptor, body = await self._document(chosen.digest, chosen.digest)
        raise Corrupt(f"{self._reference.familiar()}: an index within an index within an index")

    async def _config(self, descriptor: Descriptor) -> bytes:
        if self._has(descriptor):
            return self._content.read(descriptor.digest)
        if descriptor.size > DOCUMENT_LIMIT:
            raise Corrupt(f"image config {descriptor.digest}: {descriptor.size} bytes is too large")
        body, _headers = await self._client.document(
            f"blobs/{descriptor.digest}", accept=(), limit_bytes=descriptor.size
        )
        await asyncio.to_thread(self._store, descriptor, body)
        return body

    def _store(self, descriptor: Descriptor, body: bytes) -> None:
        with self._content.ingest(descriptor) as writer:
            writer.write(body)
            writer.commit()

    def _has(self, descriptor: Descriptor) -> bool:
        if self._lease is not None:
            return self._lease.hold(descriptor.digest)
        return self._content.exists(descriptor.digest)

    async def _layers(self, layers: list[Descriptor]) -> None:
        """Fetch each distinct layer once, a few at a time; the first failure stops the others."""
        positions: dict[Digest, list[int]] = {}
        for position, layer in enumerate(layers):
            positions.setdefault(layer.digest, []).append(position)
            if len(positions[layer.digest]) == 1 and not self._has(layer):
                self._say("Pulling fs layer", layer)
        tasks = [
            asyncio.ensure_future(self._layer(layers[places[0]], places, is_waiting=number >= PARALLEL_LAYERS))
            for number, places in enumerate(positions.values())
        ]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _layer(self, layer: Descriptor, positions: list[int], *, is_waiting: bool) -> None:
        if self._has(layer):
            self._say("Already exists", layer)
        else:
            if is_waiting:
                self._say("Waiting", layer)
            async with self._slots:
                await self._download(layer)
        for position in positions:
            if self._on_layer is not None:
                self._on_layer(position, layer)

    async def _download(self, layer: Descriptor) -> None:
        with self._content.ingest(layer) as writer:
            gathered = bytearray()
            shown_at = 0.0
            async for piece in self._client.stream(f"blobs/{layer.digest}", layer.size):
                gathered += piece
                if len(gathered) >= _WRITE_BYTES:
                    await _write(writer, gathered)
                    gathered = bytearray()
                if (now := time.monotonic()) - shown_at >= _PROGRESS_INTERVAL_S:
                    shown_at = now
                    detail = ProgressDetail(current=writer.size + len(gathered), total=layer.size)
                    self._say("Downloading", layer, detail)
            await _write(writer, gathered)
            self._say("Verifying Checksum", layer)
            await asyncio.to_thread(writer.commit)
        self._say("Download complete", layer)

    def _say(self, status: str, layer: Descriptor, detail: ProgressDetail | None = None) -> None:
        self._progress(
            ProgressMessage(status=status, id=digests.short(layer.digest), progress_detail=detail or ProgressDetail())
        )


async def _write(writer: ContentWriter, data: bytearray) -> None:
    """Hash and write in a thread; a cancelled pull waits for the piece, because the writer is closed next."""
    if data:
        working = asyncio.ensure_future(asyncio.to_thread(writer.write, data))
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            raise


def _check_manifest(manifest: Manifest) -> None:
    if manifest.config.media_type not in (MEDIA_TYPE_CONFIG, MEDIA_TYPE_DOCKER_CONFIG):
        raise Unsupported(f"not a container image: its config is {manifest.config.media_type or 'of no type'}")
    for layer in manifest.layers:
        if layer.media_type not in LAYER_TYPES and "nondistributable" not in layer.media_type:
            raise Unsupported(f"unsupported layer media type {layer.media_type!r}")


def _in_dockers_words(error: RegistryError, reference: Reference) -> Exception:
    if error.status in (401, 403) or error.code in ("NAME_UNKNOWN", "DENIED"):
        return NotFound(
            f"pull access denied for {reference.familiar_repository}, repository does not exist or may require "
            f"'docker login': {error}"
        )
    if error.status == 404:
        return NotFound(f"manifest for {reference.familiar()} not found: {error}")
    return Unavailable(f"{reference.familiar()}: {error}")
