"""What a registry has under a name, without fetching the image. Engine API, DistributionInspect"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from naru.api.system import AuthConfig
from naru.content.store import DOCUMENT_LIMIT
from naru.distribution.challenge import Credentials
from naru.distribution.client import RegistryClient
from naru.distribution.loop import run
from naru.distribution.manifest import ACCEPT, media_type_of
from naru.distribution.refusal import RegistryError, kind_of
from naru.errors import Corrupt
from naru.oci import digest as digests
from naru.oci.image import INDEX_TYPES, Descriptor, ImageConfig, Index, Manifest, Platform, decode
from naru.oci.reference import Reference


@dataclass(frozen=True, slots=True)
class Found:
    """What the reference names, an index or a manifest, and what it runs on."""

    descriptor: Descriptor
    platforms: list[Platform]


def inspect(
    reference: Reference, *, auth: AuthConfig | None = None, insecure_registries: Collection[str] = ()
) -> Found:
    """Return what `reference` names at its registry. Unauthorized, Forbidden, NotFound, Unavailable, Corrupt."""
    return run(_inspect(reference.with_default_tag(), Credentials.of(auth), insecure_registries))


async def _inspect(reference: Reference, credentials: Credentials, insecure_registries: Collection[str]) -> Found:
    async with RegistryClient(
        reference.domain, reference.path, credentials=credentials, insecure_registries=insecure_registries
    ) as client:
        try:
            return await _ask(client, reference)
        except RegistryError as error:
            raise kind_of(error) from error


async def _ask(client: RegistryClient, reference: Reference) -> Found:
    name = reference.digest or reference.tag or ""
    body, headers = await client.document(f"manifests/{name}", accept=ACCEPT, limit_bytes=DOCUMENT_LIMIT)
    digest = digests.of(body)
    if reference.digest and reference.digest.startswith("sha256:") and reference.digest != digest:
        raise Corrupt(f"{reference.familiar()}: the content's digest is {digest}")
    media_type = media_type_of(body, headers.get("Content-Type", ""))
    descriptor = Descriptor(media_type=media_type, digest=reference.digest or digest, size=len(body))
    if media_type in INDEX_TYPES:
        return Found(descriptor, [entry.platform for entry in decode(body, Index).manifests if entry.platform])
    config = decode(body, Manifest).config
    document, _headers = await client.document(f"blobs/{config.digest}", accept=(), limit_bytes=DOCUMENT_LIMIT)
    if digests.of(document) != config.digest:
        raise Corrupt(f"image config {config.digest}: the content's digest is {digests.of(document)}")
    platform = decode(document, ImageConfig).platform
    return Found(descriptor, [platform] if platform.os or platform.architecture else [])
