"""Images as the Engine API knows them. Engine API, Image.

The image configuration in the registry's own form is `naru.oci.image`; this is Docker's view of it.
"""

from __future__ import annotations

import msgspec

from naru.api.wire import LowerWire, Wire, always, made, named


class Platform(LowerWire):
    """An OCI platform, keys as in the OCI image specification."""

    architecture: str = always("")
    os: str = always("")
    os_version: str = named("", "os.version")
    os_features: list[str] | None = named(None, "os.features")
    variant: str = ""


class Descriptor(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """An OCI descriptor, keys as in the OCI image specification."""

    media_type: str = always("", name="mediaType")
    digest: str = always("")
    size: int = always(0)
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    data: str | None = None
    platform: Platform | None = None
    artifact_type: str = ""


class DriverData(Wire):
    """The storage driver's own view. `data` null where there is nothing to say."""

    data: dict[str, str] | None = always(None)
    name: str = always("overlay2")


class HealthConfig(Wire):
    """A health check; times in nanoseconds, 0 for "inherit"."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ImageConfig(Wire):
    """The defaults an image gives its containers."""

    user: str = ""
    exposed_ports: dict[str, dict[str, str]] | None = None
    env: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    volumes: dict[str, dict[str, str]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | None = None
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    shell: list[str] | None = None


class ImageRootFS(Wire):
    """`layers` are diff IDs, lowest first."""

    type: str = always("layers")
    layers: list[str] | None = None


class ImageMetadata(Wire):
    last_tag_time: str = always("0001-01-01T00:00:00Z")


class ManifestSize(Wire):
    total: int = always(0)
    content: int = always(0)


class ImageDataSize(Wire):
    unpacked: int = always(0)


class ImageData(Wire):
    platform: Platform = made(Platform)
    containers: list[str] = always([])
    size: ImageDataSize = made(ImageDataSize)


class AttestationData(Wire):
    for_: str = always("", name="For")


class ImageManifestSummary(Wire):
    """One manifest of an image's index; `kind` is image, attestation or unknown."""

    id: str = always("", name="ID")
    descriptor: Descriptor = made(Descriptor)
    available: bool = always(False)
    size: ManifestSize = made(ManifestSize)
    kind: str = always("image")
    image_data: ImageData | None = None
    attestation_data: AttestationData | None = None


class ImageInspect(Wire):
    """`created` and the times in `metadata` are RFC 3339; `size` in bytes, unpacked."""

    id: str = always("")
    repo_tags: list[str] = always([])
    repo_digests: list[str] = always([])
    parent: str = ""
    comment: str = ""
    created: str = ""
    docker_version: str = ""
    author: str = ""
    config: ImageConfig | None = always(None)
    architecture: str = always("")
    variant: str = ""
    os: str = always("linux")
    os_version: str = ""
    size: int = always(0)
    graph_driver: DriverData = made(DriverData)
    root_fs: ImageRootFS = made(ImageRootFS)
    metadata: ImageMetadata = made(ImageMetadata)
    descriptor: Descriptor | None = None
    manifests: list[ImageManifestSummary] | None = None


class ImageSummary(Wire):
    """A line of `docker images`; `created` in seconds; -1 where a number was not worked out."""

    containers: int = always(-1)
    created: int = always(0)
    id: str = always("")
    labels: dict[str, str] | None = always(None)
    parent_id: str = always("")
    repo_digests: list[str] | None = always([])
    repo_tags: list[str] | None = always([])
    shared_size: int = always(-1)
    size: int = always(0)
    descriptor: Descriptor | None = None
    manifests: list[ImageManifestSummary] | None = None


class HistoryItem(Wire):
    """A line of `docker history`, newest first; `id` is "<missing>" where no image ends there."""

    comment: str = always("")
    created: int = always(0)
    created_by: str = always("")
    id: str = always("<missing>")
    size: int = always(0)
    tags: list[str] | None = always(None)


class DeleteItem(Wire):
    """One of both is set."""

    untagged: str = ""
    deleted: str = ""


class SearchResult(LowerWire):
    star_count: int = always(0)
    is_official: bool = always(False)
    name: str = always("")
    is_automated: bool = always(False)
    description: str = always("")


class ImagesPruneReport(Wire):
    images_deleted: list[DeleteItem] | None = always(None)
    space_reclaimed: int = always(0)


class DistributionInspect(Wire):
    descriptor: Descriptor = made(Descriptor)
    platforms: list[Platform] | None = always(None)


class CommitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The query of ImageCommit; `changes` are Dockerfile instructions, one per entry."""

    container: str = ""
    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: list[str] = []


class CommitResponse(Wire):
    id: str = always("")
