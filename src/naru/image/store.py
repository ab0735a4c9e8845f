"""Images by ID, and the names they go by.

    table images         one row per image: config, manifest, layers; blobs are in `content`, the chain in `snapshots`
    table image_names    canonical reference → image, a tag or a digest each

An image is recorded after its blobs are durable and its layers unpacked and synced, and its names come last: what can
be found by name is whole. A name moves when it is given to another image; the old one stays, without it. What no
image needs any more is collected: `remove` takes what was the removed image's alone, `prune_content` everything.

Texts of errors are Docker's. Lock order: this store, then snapshots and content; no callback is called under the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from naru.api.image import DeleteItem, HistoryItem
from naru.api.progress import ProgressMessage
from naru.content.store import ContentStore
from naru.errors import InvalidArgument, NotFound
from naru.image import removal
from naru.image.apply import Applier
from naru.image.snapshot import Snapshots
from naru.oci import digest as digests
from naru.oci.digest import ChainID, Digest, ImageID, chain_ids
from naru.oci.image import MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST, Descriptor, ImageConfig, Manifest, as_oci
from naru.oci.image import decode as decode_document
from naru.oci.image import encode as encode_document
from naru.oci.reference import Reference, parse
from naru.persist.database import Database, Row

SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY,
    config BLOB NOT NULL,
    manifest_digest TEXT NOT NULL,
    layers BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS image_names (
    name TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    tagged_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS image_names_image ON image_names (image_id);
"""
_HEX = frozenset("0123456789abcdef")

Progress = Callable[[ProgressMessage], None]
# `Images.list` hides the built-in from the class's own annotations.
ImageList: TypeAlias = list["Image"]
HistoryItems: TypeAlias = list[HistoryItem]
DeleteItems: TypeAlias = list[DeleteItem]
ChainIDs: TypeAlias = list[ChainID]
InUse = Callable[[str], Iterable[tuple[str, bool]]]
"""Given an image ID, the containers made from it: their ID, and whether they run."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image as it is now. `references` are its names; `size` is what its layers' files hold."""

    id: ImageID
    config: ImageConfig
    manifest_digest: Digest
    layers: tuple[Descriptor, ...]
    chain_ids: tuple[ChainID, ...]
    references: tuple[Reference, ...]
    size: int
    tagged_at: datetime

    @property
    def tags(self) -> tuple[str, ...]:
        """The names with a tag, in familiar form."""
        return tuple(reference.familiar() for reference in self.references if not reference.digest)

    @property
    def digests(self) -> tuple[str, ...]:
        """The names with a digest, in familiar form: `redis@sha256:…`."""
        return tuple(reference.familiar() for reference in self.references if reference.digest)

    @property
    def chain_id(self) -> ChainID | None:
        """The snapshot to stand on; None for an image without layers."""
        return self.chain_ids[-1] if self.chain_ids else None

    @property
    def created(self) -> datetime | None:
        """When it was built, as its config says."""
        return self.config.created


@dataclass(frozen=True, slots=True)
class Roots:
    """What somebody else needs kept: the builder's cache, for example."""

    blobs: frozenset[Digest] = frozenset()
    chains: frozenset[ChainID] = frozenset()


class Images:
    """The images of one engine."""

    def __init__(self, database: Database, content: ContentStore, snapshots: Snapshots) -> None:
        self._database = database
        self._content = content
        self._snapshots = snapshots
        self._applier = Applier(content, snapshots)
        self._lock = threading.RLock()
        self._roots: list[Callable[[], Roots]] = []
        database.ensure(SCHEMA)

    # Finding

    def get(self, name: str) -> Image:
        """Return the image that a person means: a reference, an ID, or the beginning of one.

        NotFound: `No such image: redis:latest`. InvalidArgument: not a reference, or several IDs begin like that.
        """
        return self._images(self._find(name))[0]

    def list(self) -> ImageList:
        """Return every image, in no particular order."""
        return self._images(None)

    def by_reference(self, reference: Reference) -> Image | None:
        """Return the image that has exactly this name."""
        rows = self._database.query("SELECT image_id FROM image_names WHERE name = ?", (_stored(reference),))
        return self._images(ImageID(rows[0]["image_id"]))[0] if rows else None

    def history(self, name: str) -> HistoryItems:
        """Return the build steps of an image, newest first, each with the size of the layer it made."""
        image = self.get(name)
        sizes = [self._snapshots.get(chain).size_bytes for chain in image.chain_ids]
        items = []
        for step in image.config.history or []:
            created = int(step.created.timestamp()) if step.created else 0
            size = 0 if step.empty_layer or not sizes else sizes.pop(0)
            items.append(HistoryItem(created=created, created_by=step.created_by, comment=step.comment, size=size))
        items.reverse()
        if items:
            items[0].id = image.id
            items[0].tags = list(image.tags)
        return items

    def tar_sizes(self, image: Image) -> tuple[int, ...]:
        """Return the length of each layer's uncompressed tar, bottom first; 0 where nobody counted."""
        return tuple(self._snapshots.get(chain).tar_size for chain in image.chain_ids)

    def _find(self, name: str) -> ImageID:
        if digests.is_digest(name):
            if self._database.query("SELECT 1 FROM images WHERE id = ?", (name,)):
                return ImageID(name)
            raise NotFound(f"No such image: {name}")
        is_whole_id = len(name) == 64 and set(name) <= _HEX
        reference = None if is_whole_id else _reference_or_id(name)
        if reference is not None:
            rows = self._database.query("SELECT image_id FROM image_names WHERE name = ?", (_stored(reference),))
            if rows:
                return ImageID(rows[0]["image_id"])
        prefix = name.removeprefix("sha256:")
        if prefix and set(prefix) <= _HEX:
            rows = self._database.query("SELECT id FROM images WHERE id LIKE ? LIMIT 2", (f"sha256:{prefix}%",))
            if len(rows) > 1:
                raise InvalidArgument(f"multiple IDs found with provided prefix: {prefix}")
            if rows:
                return ImageID(rows[0]["id"])
        raise NotFound(f"No such image: {reference.familiar() if reference else name}")

    def _images(self, only: ImageID | None) -> ImageList:
        condition, parameters = ("", ()) if only is None else (" WHERE id = ?", (only,))
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT * FROM images" + condition, parameters).fetchall()
            condition = condition.replace("id =", "image_id =")
            names = connection.execute(
                "SELECT * FROM image_names" + condition + " ORDER BY name", parameters
            ).fetchall()
        if only is not None and not rows:
            raise NotFound(f"No such image: {only}")
        by_image: dict[str, list[Row]] = {}
        for name in names:
            by_image.setdefault(name["image_id"], []).append(name)
        return [_image(row, by_image.get(row["id"], [])) for row in rows]

    # Making

    def create(
        self,
        config: ImageConfig | bytes,
        layers: Sequence[Descriptor],
        *,
        manifest: Descriptor | None = None,
        on_layer: Callable[[Descriptor], None] | None = None,
    ) -> Image:
        """Record an image of `config` and of `layers`, which are in the content store; return it, without a name yet.

        Missing snapshots are unpacked. `manifest` describes the blob that it came with; otherwise one is made. The
        caller holds a lease on the layers. Corrupt: a layer is not what the config says; then nothing is recorded.
        """
        document = config if isinstance(config, bytes) else encode_document(config)
        decoded = decode_document(document, ImageConfig)
        diff_ids = decoded.rootfs.diff_ids
        for diff_id in diff_ids:
            digests.validate(diff_id)
        with self._content.lease() as lease, self._snapshots.hold(chain_ids(diff_ids)):
            for layer in layers:
                if not lease.hold(layer.digest):
                    raise NotFound(f"blob {layer.digest} not found")
            chains = self._applier.apply(layers, diff_ids, on_layer=on_layer)
            blob = self._content.put(document, MEDIA_TYPE_CONFIG)
            if manifest is None:
                manifest = self._content.put(_manifest(blob, layers), MEDIA_TYPE_MANIFEST)
            self._snapshots.sync()
            size = sum(self._snapshots.get(chain).size_bytes for chain in chains)
            image_id = ImageID(blob.digest)
            with self._lock, self._database.transaction() as connection:
                connection.execute(
                    "INSERT INTO images (id, config, manifest_digest, layers, size_bytes, created_at)"
                    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                    " manifest_digest = excluded.manifest_digest, layers = excluded.layers",
                    (image_id, document, manifest.digest, msgspec.json.encode(list(layers)), size, _now()),
                )
        return self._images(image_id)[0]

    def create_from_manifest(
        self,
        manifest: Descriptor,
        reference: Reference | None,
        *,
        digest: Digest | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Record the image of a manifest that was pulled, all of whose blobs are in the store, and name it.

        `digest` is what the reference named at the registry: the index's, where there was one. `progress` is told of
        each unpacked layer, and of the outcome in Docker's words. Corrupt.
        """
        pulled = decode_document(self._content.read(manifest.digest), Manifest)
        before = self.by_reference(reference) if reference is not None else None

        def tell(layer: Descriptor) -> None:
            if progress is not None:
                progress(ProgressMessage(status="Pull complete", id=digests.short(layer.digest)))

        with self._content.lease() as lease:
            lease.hold(manifest.digest)
            config = self._content.read(pulled.config.digest)
            image = self.create(config, pulled.layers, manifest=manifest, on_layer=tell)
            if reference is not None:
                if reference.tag:
                    self.tag(image.id, reference.with_tag(reference.tag))
                self._name(image.id, reference.with_digest(digest or manifest.digest))
        if progress is not None and reference is not None:
            progress(ProgressMessage(status=f"Digest: {digest or manifest.digest}"))
            is_same = before is not None and before.id == image.id
            news = "Image is up to date for" if is_same else "Downloaded newer image for"
            progress(ProgressMessage(status=f"Status: {news} {reference.familiar()}"))
        return self._images(image.id)[0]

    # Naming

    def tag(self, image_id: str, reference: Reference) -> ImageID | None:
        """Give an image the name `reference`, taking it from the image that had it, whose ID is returned.

        InvalidArgument: the name carries a digest, or looks like one. NotFound.
        """
        if reference.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        if reference.familiar_repository in ("sha256", "sha384", "sha512"):
            raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
        return self._name(ImageID(image_id), reference.with_default_tag())

    def name_digest(self, image_id: ImageID, repository: Reference, digest: Digest) -> None:
        """Note that `repository` has the image under `digest`: the name `redis@sha256:…`. NotFound."""
        self._name(image_id, repository.with_digest(digest))

    def _name(self, image_id: ImageID, reference: Reference) -> ImageID | None:
        with self._lock, self._database.transaction() as connection:
            if not connection.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)).fetchone():
                raise NotFound(f"No such image: {image_id}")
            name = _stored(reference)
            before = connection.execute("SELECT image_id FROM image_names WHERE name = ?", (name,)).fetchone()
            connection.execute(
                "INSERT INTO image_names (name, image_id, tagged_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                " image_id = excluded.image_id, tagged_at = excluded.tagged_at",
                (name, image_id, _now()),
            )
        return ImageID(before["image_id"]) if before and before["image_id"] != image_id else None

    # Removing

    def remove(self, name: str, *, force: bool = False, in_use: InUse | None = None) -> DeleteItems:
        """Take a name away, or all of an image once no name is left; return what went, as Docker lists it.

        Conflict, in Docker's words: containers use it, or it has names in several repositories and an ID was given.
        """
        image = self.get(name)
        users = list(in_use(image.id)) if in_use is not None else []
        with self._lock:
            plan = removal.plan(self._images(image.id)[0], name, users=users, force=force)
            items = [DeleteItem(untagged=reference.familiar()) for reference in plan.untag]
            with self._database.transaction() as connection:
                for reference in plan.untag:
                    connection.execute("DELETE FROM image_names WHERE name = ?", (_stored(reference),))
                if plan.deletes:
                    connection.execute("DELETE FROM images WHERE id = ?", (image.id,))
            if plan.deletes:
                items.append(DeleteItem(deleted=image.id))
                items += [DeleteItem(deleted=chain) for chain in self._collect_of(image)]
        return items

    def add_roots(self, roots: Callable[[], Roots]) -> None:
        """Have collections keep what `roots` says at that time. It must not call back into this store."""
        self._roots.append(roots)

    def prune_content(self) -> int:
        """Remove every blob and committed snapshot that no image, root, lease or hold needs; return the bytes freed."""
        with self._lock:
            roots = self._keep()
            before = self._snapshots.total_usage()
            self._snapshots.collect(roots.chains)
            freed = before - self._snapshots.total_usage()
            return freed + sum(blob.size for blob in self._content.collect(roots.blobs))

    def forget(self, blobs: Collection[Digest]) -> None:
        """Remove those of `blobs` that nobody needs: the rest of an archive that was loaded."""
        with self._lock:
            self._content.collect(self._keep().blobs, only=blobs)

    def _collect_of(self, image: Image) -> ChainIDs:
        """Remove what was `image`'s alone; return the chain IDs that went, topmost first."""
        roots = self._keep()
        blobs = {image.manifest_digest, Digest(image.id), *(layer.digest for layer in image.layers)}
        self._content.collect(roots.blobs, only=blobs)
        return self._snapshots.collect(roots.chains, only=set(image.chain_ids))

    def _keep(self) -> Roots:
        blobs: set[Digest] = set()
        chains: set[ChainID] = set()
        for image in self._images(None):
            blobs.update({image.manifest_digest, Digest(image.id), *(layer.digest for layer in image.layers)})
            chains.update(image.chain_ids)
        for source in self._roots:
            roots = source()
            blobs |= roots.blobs
            chains |= roots.chains
        return Roots(frozenset(blobs), frozenset(chains))


def _reference_or_id(name: str) -> Reference:
    try:
        return parse(name).with_default_tag()
    except InvalidArgument as error:
        if set(name.removeprefix("sha256:")) <= _HEX and name:
            raise NotFound(f"No such image: {name}") from error
        raise


def _stored(reference: Reference) -> str:
    """Return the key of a name: where there is a digest, a tag beside it says nothing."""
    return (reference.with_digest(reference.digest) if reference.digest else reference).canonical()


def _image(row: Row, names: Sequence[Row]) -> Image:
    config = decode_document(row["config"], ImageConfig)
    tagged = max((name["tagged_at"] for name in names), default=row["created_at"])
    return Image(
        id=ImageID(row["id"]),
        config=config,
        manifest_digest=Digest(row["manifest_digest"]),
        layers=tuple(msgspec.json.decode(row["layers"], type=list[Descriptor])),
        chain_ids=tuple(chain_ids(config.rootfs.diff_ids)),
        references=tuple(parse(name["name"]) for name in names),
        size=row["size_bytes"],
        tagged_at=datetime.fromisoformat(tagged),
    )


def _manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    return encode_document(
        Manifest(
            schema_version=2,
            media_type=MEDIA_TYPE_MANIFEST,
            config=config,
            layers=[as_oci(layer) for layer in layers],
        )
    )


def _now() -> str:
    return datetime.now(UTC).isoformat()
