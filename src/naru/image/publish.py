"""An image made ready for a registry: every layer compressed, one family of media types throughout.

What came from a registry is so, and goes out byte by byte as it came. What was loaded from an archive has plain tars
for layers: the compressed blob takes the plain one's place in the image, so nothing is kept twice and the next push
finds the layer by its digest. What builds before this module recorded may have OCI's and Docker's types side by side.
"""

from __future__ import annotations

import msgspec

from naru.content.store import ContentStore
from naru.errors import Corrupt, NotFound
from naru.image.decompress import decompressed
from naru.image.diff import store_tar
from naru.image.store import Image, Images
from naru.oci.digest import DiffID, Digest
from naru.oci.image import (
    MEDIA_TYPE_DOCKER_LAYER,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_LAYER_GZIP,
    MEDIA_TYPE_LAYER_ZSTD,
    Descriptor,
    Manifest,
    decode,
)

_PLAIN_TYPES = (MEDIA_TYPE_LAYER, MEDIA_TYPE_DOCKER_LAYER)
_MAGICS = {b"\x1f\x8b\x08": MEDIA_TYPE_LAYER_GZIP, b"\x28\xb5\x2f\xfd": MEDIA_TYPE_LAYER_ZSTD}
_MAGIC_BYTES = 4


def publishable(image: Image, *, images: Images, content: ContentStore) -> Image:
    """Return `image` with a manifest to push. NotFound; Corrupt: a layer is not what its config says."""
    with content.lease() as lease:
        image = images.get(image.id)  # as it is now: another push may just have made it ready
        for layer in image.layers:
            if not lease.hold(layer.digest):
                raise NotFound(f"blob {layer.digest} not found")
        manifest = decode(content.read(image.manifest_digest), Manifest)
        if not _is_mixed(manifest) and not any(layer.media_type in _PLAIN_TYPES for layer in manifest.layers):
            return image
        if any(name.digest == image.manifest_digest for name in image.references):
            return image
        layers = [
            _compressed(layer, diff_id, content) if layer.media_type in _PLAIN_TYPES else layer
            for layer, diff_id in zip(image.layers, image.config.rootfs.diff_ids, strict=True)
        ]
        remade = images.create(content.read(Digest(image.id)), layers)
    images.forget({image.manifest_digest, *(layer.digest for layer in image.layers)})
    return remade


def _is_mixed(manifest: Manifest) -> bool:
    types = [manifest.config.media_type, *(layer.media_type for layer in manifest.layers)]
    return len({media_type.startswith("application/vnd.docker.") for media_type in types}) > 1


def _compressed(layer: Descriptor, diff_id: DiffID, content: ContentStore) -> Descriptor:
    """Return the layer compressed; an archive's may already be, whatever it is called there."""
    with content.open(layer.digest) as blob:
        first = blob.read(_MAGIC_BYTES)
        for magic, media_type in _MAGICS.items():
            if first.startswith(magic):
                return msgspec.structs.replace(layer, media_type=media_type)
        blob.seek(0)
        stored = store_tar(decompressed(blob), content)
    if stored.diff_id != diff_id:
        raise Corrupt(f"layer {diff_id}: the blob's diff ID is {stored.diff_id}")
    return stored.blob
