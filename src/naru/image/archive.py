"""Images in one tar: `docker save`, `docker load`, `docker import`.

    blobs/sha256/<hex>   configs, manifests, layers as uncompressed tars
    manifest.json        what `docker load` reads: config, layers and tags of each image
    repositories         the same for very old readers
    index.json           what readers of an OCI layout read, with
    oci-layout           its version

Written, an archive is all of this at once. Read, it may be the older form with a directory per layer (Docker before
25), an OCI layout, or ours; compressed or not; from a pipe, so the order of the files does not matter. A file is only
ever used by the name that the archive itself gives it: it becomes a blob, never a path.

OCI image-spec, image-layout.md; Engine API, ImageGet, ImageLoad
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeAlias, TypeVar

import msgspec

from naru.api.progress import ProgressDetail, ProgressMessage
from naru.content.store import DOCUMENT_LIMIT, ContentStore
from naru.errors import Corrupt, InvalidArgument, NotFound, Unsupported
from naru.image.ahead import Ahead
from naru.image.decompress import Source, decompressed
from naru.image.diff import store_tar
from naru.image.store import Image, Images
from naru.image.tar_reader import HARD_LINK, REGULAR, SYMLINK, Entry, TarReader
from naru.image.tar_writer import TarWriter
from naru.oci import digest as digests
from naru.oci import platform as platforms
from naru.oci.digest import DiffID, Digest
from naru.oci.image import (
    ANNOTATION_CONTAINERD_NAME,
    ANNOTATION_REF_NAME,
    INDEX_TYPES,
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_INDEX,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    ContainerConfig,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    RootFS,
    decode,
    encode,
)
from naru.oci.reference import Reference, parse, parse_familiar

Progress = Callable[[ProgressMessage], None]
_T = TypeVar("_T")

_DOCUMENTS = frozenset({"manifest.json", "index.json", "repositories", "oci-layout"})
_INDEX_DEPTH = 4
_LINK_DEPTH = 16


class Sink(Protocol):
    """Where an archive goes: a file, a pipe, a response."""

    def write(self, data: bytes, /) -> object: ...


class _Item(msgspec.Struct, rename="pascal", kw_only=True):
    """One image in manifest.json."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


class _LayoutVersion(msgspec.Struct, rename="camel"):
    image_layout_version: str


# Saving


def save(names: Sequence[str], sink: Sink, *, images: Images, content: ContentStore) -> None:
    """Write the images that `names` mean, with the tags they were asked for by; a bare name means all its tags.

    NotFound. Corrupt: a blob is not what its image says; the archive is then cut short.
    """
    selected: dict[str, tuple[Image, list[Reference]]] = {}
    for name in names:
        for image, tag in _select(name, images):
            _image, tags = selected.setdefault(image.id, (image, []))
            if tag is not None and tag not in tags:
                tags.append(tag)
    with content.lease() as lease:
        for image, _tags in selected.values():
            for digest in (Digest(image.id), *(layer.digest for layer in image.layers)):
                if not lease.hold(digest):
                    raise NotFound(f"blob {digest} not found")
        _Archive(sink, images, content).write(list(selected.values()))


def _select(name: str, images: Images) -> list[tuple[Image, Reference | None]]:
    with suppress(InvalidArgument):
        bare = parse(name)
        if bare.tag is None and bare.digest is None:
            tagged: list[tuple[Image, Reference | None]] = [
                (image, reference)
                for image in images.list()
                for reference in image.references
                if not reference.digest and reference.repository == bare.repository
            ]
            if tagged:
                return tagged
    image = images.get(name)
    try:
        reference = parse_familiar(name)
    except InvalidArgument:
        return [(image, None)]
    return [(image, reference if reference in image.references and not reference.digest else None)]


class _Archive:
    def __init__(self, sink: Sink, images: Images, content: ContentStore) -> None:
        self._tar = TarWriter(sink.write)
        self._images = images
        self._content = content
        self._written: dict[str, Descriptor] = {}

    def write(self, selected: Sequence[tuple[Image, Sequence[Reference]]]) -> None:
        items: list[_Item] = []
        manifests: list[Descriptor] = []
        repositories: dict[str, dict[str, str]] = {}
        self._tar.add_directory("blobs")
        self._tar.add_directory("blobs/sha256")
        for image, tags in selected:
            config = self._document(self._content.read(Digest(image.id)), MEDIA_TYPE_CONFIG)
            layers = [
                self._layer(layer, diff_id, size)
                for layer, diff_id, size in zip(
                    image.layers, image.config.rootfs.diff_ids, self._images.tar_sizes(image), strict=True
                )
            ]
            manifest = self._document(
                encode(Manifest(schema_version=2, media_type=MEDIA_TYPE_MANIFEST, config=config, layers=layers)),
                MEDIA_TYPE_MANIFEST,
            )
            items.append(
                _Item(
                    config=_blob_path(config.digest),
                    repo_tags=[tag.familiar() for tag in tags] or None,
                    layers=[_blob_path(layer.digest) for layer in layers],
                )
            )
            manifests += _named(manifest, image.config.platform, tags)
            for tag in tags:
                if layers and tag.tag:
                    top = digests.encoded(layers[-1].digest)
                    repositories.setdefault(tag.familiar_repository, {})[tag.tag] = top
        index = Index(schema_version=2, media_type=MEDIA_TYPE_INDEX, manifests=manifests)
        self._tar.add_bytes("index.json", encode(index))
        self._tar.add_bytes("manifest.json", msgspec.json.encode(items))
        self._tar.add_bytes("oci-layout", msgspec.json.encode(_LayoutVersion("1.0.0")))
        if repositories:
            self._tar.add_bytes("repositories", msgspec.json.encode(repositories))
        self._tar.finish()

    def _document(self, data: bytes, media_type: str) -> Descriptor:
        descriptor = Descriptor(media_type=media_type, digest=digests.of(data), size=len(data))
        if descriptor.digest not in self._written:
            self._written[descriptor.digest] = descriptor
            self._tar.add_bytes(_blob_path(descriptor.digest), data)
        return descriptor

    def _layer(self, layer: Descriptor, diff_id: DiffID, size: int) -> Descriptor:
        known = self._written.get(diff_id)
        if known is not None:
            return known
        size = size or self._count(layer)
        with self._content.open(layer.digest) as blob, Ahead(decompressed(blob)) as pieces:
            try:
                self._tar.add_stream(_blob_path(diff_id), size, pieces)
            except EOFError as error:
                raise Corrupt(f"layer {diff_id}: {error}") from error
            if str(pieces.digest) != diff_id:
                raise Corrupt(f"layer {diff_id}: the blob's diff ID is {pieces.digest}")
        descriptor = Descriptor(media_type=MEDIA_TYPE_LAYER, digest=Digest(diff_id), size=size)
        self._written[diff_id] = descriptor
        return descriptor

    def _count(self, layer: Descriptor) -> int:
        with self._content.open(layer.digest) as blob:
            return sum(map(len, decompressed(blob)))


def _named(manifest: Descriptor, platform: Platform, tags: Sequence[Reference]) -> list[Descriptor]:
    """Return the manifest's entries in index.json: one per tag, one without a name if there is none."""
    return [
        msgspec.structs.replace(
            manifest,
            platform=platform,
            annotations={ANNOTATION_CONTAINERD_NAME: tag.canonical(), ANNOTATION_REF_NAME: tag.tag or ""},
        )
        for tag in tags
    ] or [msgspec.structs.replace(manifest, platform=platform)]


def _blob_path(digest: str) -> str:
    return f"blobs/{digests.algorithm(digest)}/{digests.encoded(digest)}"


# Loading


@dataclass(slots=True)
class _Contents:
    """What an archive holds: documents by name, other files as blobs, links to those."""

    documents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, Descriptor] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def blob(self, path: str) -> Descriptor:
        """Return the blob that `path` names, through links inside the archive. Corrupt: there is none."""
        name = _clean(path)
        for _step in range(_LINK_DEPTH):
            if name in self.blobs:
                return self.blobs[name]
            if name not in self.links:
                break
            name = self.links[name]
        raise Corrupt(f"archive: {path} is missing")


def load(
    source: Source, *, images: Images, content: ContentStore, progress: Progress, quiet: bool = False
) -> list[Image]:
    """Load every image of an archive, tags included, and say so in Docker's words; return them.

    InvalidArgument: no image archive. Corrupt: damaged, or not what its documents say; images before that stay.
    """
    found = _Contents()
    loaded: list[Image] = []
    try:
        with content.lease():
            tar = TarReader(decompressed(source))
            for entry in tar:
                _take(entry, tar, found, content)
            tar.drain()
            load_all = _load_docker if "manifest.json" in found.documents else _load_layout
            for image, tags in load_all(found, images, content, None if quiet else progress):
                loaded.append(image)
                for tag in tags:
                    before = images.tag(image.id, tag)
                    if before is not None:
                        text = f"The image {tag.familiar()} already exists, renaming the old one with ID {before}"
                        progress(ProgressMessage(stream=f"{text} to empty string\n"))
                    progress(ProgressMessage(stream=f"Loaded image: {tag.familiar()}\n"))
                if not tags:
                    progress(ProgressMessage(stream=f"Loaded image ID: {image.id}\n"))
    finally:
        images.forget({blob.digest for blob in found.blobs.values()})
    return loaded


def _take(entry: Entry, tar: TarReader, found: _Contents, content: ContentStore) -> None:
    name = _clean(entry.name.decode("utf-8", "surrogateescape"))
    if entry.kind in (SYMLINK, HARD_LINK):
        target = entry.link.decode("utf-8", "surrogateescape")
        base = posixpath.dirname(name) if entry.kind == SYMLINK else ""
        found.links[name] = _clean(posixpath.join(base, target))
    elif entry.kind == REGULAR and entry.sparse is not None:
        raise Corrupt(f"archive: {name} is sparse")
    elif entry.kind == REGULAR and name in _DOCUMENTS:
        found.documents[name] = tar.read(DOCUMENT_LIMIT)
    elif entry.kind == REGULAR and posixpath.basename(name) not in ("VERSION", "json"):
        expected = None
        parts = name.split("/")
        if len(parts) == 3 and parts[0] == "blobs" and digests.is_digest(f"{parts[1]}:{parts[2]}"):
            expected = Descriptor(digest=Digest(f"{parts[1]}:{parts[2]}"), size=entry.size)
        with content.ingest(expected) as writer:
            for piece in tar.data():
                writer.write(piece)
            found.blobs[name] = writer.commit()


_Loaded: TypeAlias = list[tuple[Image, list[Reference]]]


def _load_docker(found: _Contents, images: Images, content: ContentStore, progress: Progress | None) -> _Loaded:
    loaded: _Loaded = []
    for item in _decode(found.documents["manifest.json"], list[_Item], "manifest.json"):
        config = content.read(found.blob(item.config).digest)
        layers = [msgspec.structs.replace(found.blob(path), media_type=MEDIA_TYPE_LAYER) for path in item.layers or []]
        tags = [parse_familiar(tag) for tag in item.repo_tags or []]
        loaded.append((images.create(config, layers, on_layer=_layer_progress(progress)), tags))
    return loaded


def _load_layout(found: _Contents, images: Images, content: ContentStore, progress: Progress | None) -> _Loaded:
    if "index.json" not in found.documents:
        if "repositories" in found.documents:
            raise Unsupported("archive: images saved by Docker before 1.10 are not supported")
        raise InvalidArgument("invalid archive: it has neither manifest.json nor index.json")
    loaded: dict[str, tuple[Image, list[Reference]]] = {}
    for top in decode(found.documents["index.json"], Index).manifests:
        manifest = _manifest_for_host(top, content)
        if manifest is None:
            continue
        document = decode(content.read(manifest.digest), Manifest)
        config = content.read(document.config.digest)
        image = images.create(config, document.layers, manifest=manifest, on_layer=_layer_progress(progress))
        _image, tags = loaded.setdefault(image.id, (image, []))
        name = _name_of(top) or _name_of(manifest)
        if name is not None and name not in tags:
            tags.append(name)
    if not loaded:
        raise InvalidArgument(f"invalid archive: it has no image for {platforms.host()}")
    return list(loaded.values())


def _manifest_for_host(descriptor: Descriptor, content: ContentStore) -> Descriptor | None:
    """Follow indexes to the manifest for this machine; a lone manifest is taken whatever it is for."""
    for _level in range(_INDEX_DEPTH):
        if descriptor.media_type not in INDEX_TYPES:
            platform = descriptor.platform
            is_attestation = platform is not None and platform.os == "unknown"
            return None if is_attestation else descriptor
        manifests = decode(content.read(descriptor.digest), Index).manifests
        chosen = platforms.choose(manifests, platforms.host())
        if chosen is None and len(manifests) == 1:
            chosen = manifests[0]
        if chosen is None:
            return None
        descriptor = chosen
    raise Corrupt("archive: indexes are nested too deeply")


def _name_of(descriptor: Descriptor) -> Reference | None:
    """Return the name in an index entry's annotations; a tag alone is none."""
    annotations = descriptor.annotations or {}
    name = annotations.get(ANNOTATION_CONTAINERD_NAME) or annotations.get(ANNOTATION_REF_NAME, "")
    if ":" not in name and "/" not in name:
        return None
    with suppress(InvalidArgument):
        reference = parse_familiar(name)
        return None if reference.digest else reference
    return None


def _layer_progress(progress: Progress | None) -> Callable[[Descriptor], None] | None:
    if progress is None:
        return None

    def tell(layer: Descriptor) -> None:
        detail = ProgressDetail(current=layer.size, total=layer.size)
        progress(ProgressMessage(status="Loading layer", id=digests.short(layer.digest), progress_detail=detail))

    return tell


def _decode(data: bytes, kind: type[_T], name: str) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"archive: {name}: {error}") from error


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path).lstrip("/")


# Importing


def import_rootfs(
    source: Source,
    reference: Reference | None,
    *,
    images: Images,
    content: ContentStore,
    message: str = "",
    config: ContainerConfig | None = None,
    platform: Platform | None = None,
) -> Image:
    """Make an image of one layer from a root file system's tar, compressed or not, and name it. Corrupt."""
    where = platform or platforms.host()
    now = datetime.now(UTC)
    with content.lease():
        layer = store_tar(decompressed(source), content)
        image = images.create(
            ImageConfig(
                created=now,
                architecture=where.architecture,
                os=where.os,
                variant=where.variant,
                config=config or ContainerConfig(),
                rootfs=RootFS(type="layers", diff_ids=[layer.diff_id]),
                history=[History(created=now, comment=message or "Imported from -")],
            ),
            [layer.blob],
        )
    if reference is not None:
        images.tag(image.id, reference)
    return images.get(image.id)
