"""The image specification's JSON documents as types: descriptor, manifest, index, image config.

Docker's own media types and extra config fields (Healthcheck, Shell, OnBuild …) are included. Documents are named by
the digest of their exact bytes, so whoever stores one keeps the bytes; a decoded value is for reading, and encoding
it again need not give the same digest. Unknown fields are ignored.

OCI image-spec, manifest.md, image-index.md, config.md.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from naru.errors import Corrupt
from naru.oci.digest import DiffID, Digest

MEDIA_TYPE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_TYPE_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_TYPE_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_TYPE_LAYER = "application/vnd.oci.image.layer.v1.tar"
MEDIA_TYPE_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
MEDIA_TYPE_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
MEDIA_TYPE_LAYER_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
MEDIA_TYPE_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEDIA_TYPE_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MEDIA_TYPE_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MEDIA_TYPE_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
MEDIA_TYPE_DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MEDIA_TYPE_DOCKER_LAYER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

MANIFEST_TYPES = frozenset({MEDIA_TYPE_MANIFEST, MEDIA_TYPE_DOCKER_MANIFEST})
INDEX_TYPES = frozenset({MEDIA_TYPE_INDEX, MEDIA_TYPE_DOCKER_LIST})
LAYER_TYPES = frozenset(
    {
        MEDIA_TYPE_LAYER,
        MEDIA_TYPE_LAYER_GZIP,
        MEDIA_TYPE_LAYER_ZSTD,
        MEDIA_TYPE_DOCKER_LAYER,
        MEDIA_TYPE_DOCKER_LAYER_GZIP,
        MEDIA_TYPE_DOCKER_LAYER_FOREIGN,
    }
)
_OCI_LAYER_TYPES = {
    MEDIA_TYPE_DOCKER_LAYER: MEDIA_TYPE_LAYER,
    MEDIA_TYPE_DOCKER_LAYER_GZIP: MEDIA_TYPE_LAYER_GZIP,
    MEDIA_TYPE_DOCKER_LAYER_FOREIGN: MEDIA_TYPE_LAYER_FOREIGN,
}

ANNOTATION_REF_NAME = "org.opencontainers.image.ref.name"
ANNOTATION_CONTAINERD_NAME = "io.containerd.image.name"


class Platform(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an image runs on, in Go's words: `linux`, `amd64`, `v8`."""

    architecture: str = ""
    os: str = ""
    os_version: str = field(name="os.version", default="")
    os_features: list[str] = field(name="os.features", default_factory=list)
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """How anything refers to a blob."""

    media_type: str = ""
    digest: Digest
    size: int
    urls: list[str] = []
    annotations: dict[str, str] | None = None
    data: str = ""
    platform: Platform | None = None
    artifact_type: str = ""


class Manifest(Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """One platform's config and layers, bottom layer first."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: list[Descriptor]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Manifests by platform; Docker calls it a manifest list."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    manifests: list[Descriptor]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Healthcheck(Struct, rename="pascal", omit_defaults=True, kw_only=True):
    """How Docker finds out whether a container is well. Durations are nanoseconds; 0 means inherited."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(Struct, rename="pascal", omit_defaults=True, kw_only=True):
    """The `config` object of an image: what a container of it runs unless told otherwise."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    on_build: list[str] | None = None
    shell: list[str] | None = None


def as_oci(layer: Descriptor) -> Descriptor:
    """Return `layer` under OCI's media type: a manifest has either all of OCI's or all of Docker's."""
    media_type = _OCI_LAYER_TYPES.get(layer.media_type, layer.media_type)
    return msgspec.structs.replace(layer, media_type=media_type)


class RootFS(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The layers by diff ID, bottom first."""

    type: str
    diff_ids: list[DiffID] = []


class History(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One build step; `empty_layer` if it changed nothing in the file system."""

    created: datetime | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(Struct, omit_defaults=True, kw_only=True):
    """The image config; its digest is the image ID."""

    created: datetime | None = None
    author: str = ""
    architecture: str = ""
    os: str = ""
    os_version: str = field(name="os.version", default="")
    os_features: list[str] = field(name="os.features", default_factory=list)
    variant: str = ""
    config: ContainerConfig | None = None
    rootfs: RootFS
    history: list[History] | None = None
    comment: str = ""
    docker_version: str = ""

    @property
    def platform(self) -> Platform:
        """The platform this image was made for."""
        return Platform(
            architecture=self.architecture,
            os=self.os,
            os_version=self.os_version,
            os_features=self.os_features,
            variant=self.variant,
        )


_Document = TypeVar("_Document", Manifest, Index, ImageConfig)


def decode(data: bytes, kind: type[_Document]) -> _Document:
    """Decode a document of the given kind. Corrupt: not JSON, or a field of the wrong type."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt(f"image document {kind.__name__}: {error}") from error


def encode(document: Manifest | Index | ImageConfig) -> bytes:
    """Return the bytes to store for a document that we made ourselves; key order is the specification's."""
    return msgspec.json.encode(document)
