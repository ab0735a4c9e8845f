"""Bring images from the content store to a registry: layers side by side, config, manifest last.

Blocking, for a worker thread: a private event loop lives as long as the call. The manifest is sent byte by byte as it
is stored, after everything that it names, so that what is broken off leaves the tag at the registry as it was. The
caller holds a lease. Lines of progress and texts of errors are Docker's.
OCI distribution-spec, Push
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from naru.api.progress import ProgressDetail, ProgressMessage
from naru.api.system import AuthConfig
from naru.content.store import ContentStore
from naru.distribution.challenge import Credentials
from naru.distribution.client import TRIES, RegistryClient, delay_s, passing
from naru.distribution.loop import run
from naru.distribution.manifest import media_type_of
from naru.distribution.refusal import RegistryError, kind_of
from naru.distribution.upload import Outcome, Placed, Upload
from naru.errors import Corrupt, Unavailable
from naru.oci import digest as digests
from naru.oci.digest import DiffID, Digest
from naru.oci.image import Descriptor, Manifest, decode
from naru.oci.reference import Reference

PARALLEL_LAYERS = 5
_PROGRESS_INTERVAL_S = 0.1

Progress = Callable[[ProgressMessage], None]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An image to push under one tag; progress calls its layers by `diff_ids`."""

    tag: str
    manifest: Digest
    diff_ids: Sequence[DiffID]


def push(
    repository: Reference,
    images: Sequence[Outgoing],
    *,
    content: ContentStore,
    auth: AuthConfig | None = None,
    progress: Progress,
    sources: Mapping[Digest, Sequence[str]] | None = None,
    on_pushed: Callable[[Outgoing], None] = lambda _image: None,
    insecure_registries: Collection[str] = (),
) -> None:
    """Push `images`, one after the other, to `repository`.

    `sources` says of blobs which other repositories of the same registry they are known to be in. `progress` and
    `on_pushed` are called in this thread. Unauthorized, Forbidden, NotFound, Unavailable; Corrupt: not what is stored.
    """
    known = {digest: [path for path in paths if path != repository.path] for digest, paths in (sources or {}).items()}
    task = _Push(repository, content, progress, known)
    run(task.run(images, on_pushed, Credentials.of(auth), insecure_registries))


@dataclass(slots=True)
class _Push:
    repository: Reference
    content: ContentStore
    progress: Progress
    sources: Mapping[Digest, Sequence[str]]
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARALLEL_LAYERS))
    client: RegistryClient = field(init=False)

    async def run(
        self,
        images: Sequence[Outgoing],
        on_pushed: Callable[[Outgoing], None],
        credentials: Credentials,
        insecure_registries: Collection[str],
    ) -> None:
        path = self.repository.path
        lenders = sorted({lender for paths in self.sources.values() for lender in paths})
        async with RegistryClient(
            self.repository.domain,
            path,
            credentials=credentials,
            insecure_registries=insecure_registries,
            scopes=[f"repository:{path}:pull,push", *(f"repository:{lender}:pull" for lender in lenders)],
        ) as self.client:
            for image in images:
                try:
                    await self._push(image)
                except RegistryError as error:
                    raise kind_of(error) from error
                on_pushed(image)

    async def _push(self, image: Outgoing) -> None:
        document = self.content.read(image.manifest)
        manifest = decode(document, Manifest)
        if len(manifest.layers) != len(image.diff_ids):
            raise Corrupt(f"manifest {image.manifest}: {len(manifest.layers)} layers, {len(image.diff_ids)} diff IDs")
        await self._layers(manifest, image.diff_ids)
        await Upload(self.client, self.content, manifest.config).run()
        await self._manifest(image, document)
        size = len(document)
        self.progress(ProgressMessage(status=f"{image.tag}: digest: {image.manifest} size: {size}"))
        aux: dict[str, str | int] = {"Tag": image.tag, "Digest": image.manifest, "Size": size}
        self.progress(ProgressMessage(progress_detail=ProgressDetail(), aux=aux))

    async def _layers(self, manifest: Manifest, diff_ids: Sequence[DiffID]) -> None:
        """Push each distinct layer once, a few at a time, the topmost first; the first failure stops the others."""
        named = {layer.digest: (layer, diff_id) for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)}
        layers = [_Layer(self, layer, diff_id) for layer, diff_id in reversed(named.values())]
        for layer in layers:
            layer.say("Preparing")
        for layer in layers[PARALLEL_LAYERS:]:
            layer.say("Waiting")
        tasks = [asyncio.ensure_future(layer.push()) for layer in layers]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _manifest(self, image: Outgoing, document: bytes) -> None:
        headers = {"Content-Type": media_type_of(document)}

        async def body() -> AsyncIterator[bytes]:
            yield document

        failure: Exception | None = None
        for attempt in range(TRIES):
            await asyncio.sleep(delay_s(attempt, failure))
            try:
                async with self.client.exchange(
                    "PUT",
                    f"manifests/{image.tag}",
                    headers=headers,
                    body=body,
                    size_bytes=len(document),
                    expected=(201, 202, 204),
                ) as response:
                    answered = response.headers.get("Docker-Content-Digest", image.manifest)
                    if answered != image.manifest:
                        raise Corrupt(f"manifest {image.manifest}: the registry has it as {answered}")
                    return
            except passing() as error:
                failure = error
        raise Unavailable(f"manifest {image.manifest}: {self.client.unreachable(failure)}") from failure


class _Layer:
    """One layer's line of progress, and its upload."""

    def __init__(self, push: _Push, layer: Descriptor, diff_id: DiffID) -> None:
        self._push = push
        self._layer = layer
        self._id = digests.short(diff_id)
        self._shown_at = 0.0

    async def push(self) -> None:
        if self._layer.urls:
            self.say("Skipped foreign layer")
            return
        async with self._push.slots:
            placed = await Upload(
                self._push.client,
                self._push.content,
                self._layer,
                sources=self._push.sources.get(self._layer.digest, ()),
                on_sent=self._sent,
                on_retry=self._retry,
            ).run()
        self.say(_outcome(placed))

    def say(self, status: str, detail: ProgressDetail | None = None) -> None:
        self._push.progress(ProgressMessage(status=status, id=self._id, progress_detail=detail or ProgressDetail()))

    def _sent(self, size_bytes: int) -> None:
        now = time.monotonic()
        if now - self._shown_at >= _PROGRESS_INTERVAL_S or size_bytes == self._layer.size:
            self._shown_at = now
            self.say("Pushing", ProgressDetail(current=size_bytes, total=self._layer.size))

    def _retry(self, wait_s: float) -> None:
        seconds = max(1, round(wait_s))
        self.say(f"Retrying in {seconds} second{'' if seconds == 1 else 's'}")


def _outcome(placed: Placed) -> str:
    match placed.outcome:
        case Outcome.EXISTED:
            return "Layer already exists"
        case Outcome.MOUNTED:
            return f"Mounted from {placed.source}"
        case Outcome.UPLOADED:
            return "Pushed"
