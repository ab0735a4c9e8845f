"""What kind of document a registry gave or is to be given. OCI image-spec, manifest.md, image-index.md"""

from __future__ import annotations

from typing import Any

import msgspec

from naru.errors import Corrupt, Unsupported
from naru.oci.image import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MEDIA_TYPE_DOCKER_CONFIG,
    MEDIA_TYPE_DOCKER_MANIFEST,
    MEDIA_TYPE_INDEX,
    MEDIA_TYPE_MANIFEST,
)

ACCEPT = sorted(MANIFEST_TYPES | INDEX_TYPES)
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


class _Config(msgspec.Struct, rename="camel"):
    media_type: str = ""


class _Kind(msgspec.Struct, rename="camel"):
    """Enough of a document to know which one it is."""

    schema_version: int = 0
    media_type: str = ""
    manifests: list[Any] | None = None
    config: _Config | None = None


def media_type_of(body: bytes, content_type: str = "") -> str:
    """Return what a document is by its own words first, then by its header, then by its shape. Corrupt, Unsupported."""
    try:
        kind = msgspec.json.decode(body, type=_Kind)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"manifest: {error}") from None
    said = kind.media_type or content_type.partition(";")[0].strip()
    if kind.schema_version == 1 or said.startswith(_SCHEMA_1):
        raise Unsupported("this image has a manifest of schema version 1, which registries gave up in 2019")
    if said in MANIFEST_TYPES | INDEX_TYPES:
        return said
    if kind.schema_version == 2 and not said.startswith("application/vnd."):
        if kind.manifests is not None:
            return MEDIA_TYPE_INDEX
        is_dockers = kind.config is not None and kind.config.media_type == MEDIA_TYPE_DOCKER_CONFIG
        return MEDIA_TYPE_DOCKER_MANIFEST if is_dockers else MEDIA_TYPE_MANIFEST
    raise Unsupported(f"unsupported manifest media type {said!r}")
