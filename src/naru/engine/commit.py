"""An image of what a container has become: one layer of its changes on the image it was made from, and its config.

The container is frozen meanwhile unless the caller does not want it. Names come last, and nothing is left of a commit
that fails but a blob that the next collection takes. Engine API, ImageCommit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import msgspec

from naru.api.container import ContainerConfig
from naru.api.image import CommitOptions, CommitResponse
from naru.engine.changes import MADE_BY_START
from naru.engine.clock import now
from naru.engine.container import Container, Status
from naru.engine.image_verbs import named
from naru.engine.lifecycle import Lifecycle
from naru.engine.merge import merge
from naru.engine.parts import Parts
from naru.errors import Conflict, NotFound
from naru.image.diff import LayerBlob, store_layer
from naru.image.store import Image
from naru.oci import image as oci

_MADE_BY_START = frozenset(path.lstrip("/").encode() for path in MADE_BY_START)


class CommitVerb:
    """The commit of a container, over the engine's parts."""

    parts: Parts
    lifecycle: Lifecycle

    def image_commit(self, options: CommitOptions, config: ContainerConfig | None) -> CommitResponse:
        """Engine API, ImageCommit. `config`, where given, counts before the container's own."""
        reference = named(options.repo, options.tag)
        container = self.parts.containers.get(options.container)
        if container.status is Status.DEAD:
            raise Conflict(f"You cannot commit container {container.id} which is Dead")
        if container.status is Status.REMOVING:
            raise Conflict(f"You cannot commit container {container.id} which is being removed")
        asked = self.parts.builder.changed(_to_image(config or container.config), options.changes)
        merged = _to_image(merge(_to_container(asked), _to_image(container.config)))
        with self._frozen(container) if options.pause else nullcontext():
            image = self._create(container, merged, options)
        name = ""
        if reference is not None:
            self.parts.images.tag(image.id, reference)
            name = reference.with_default_tag().familiar()
            self.parts.events.publish("image", "tag", image.id, {"name": name})
        self.lifecycle.publish(container, "commit", comment=options.comment, imageID=image.id, imageRef=name)
        return CommitResponse(id=image.id)

    @contextmanager
    def _frozen(self, container: Container) -> Iterator[None]:
        """Pause a running container during the block. One that is paused stays so, one that ends has ended."""
        try:
            self.lifecycle.pause(container.id, for_commit=True)
        except Conflict:
            yield
            return
        try:
            yield
        finally:
            with suppress(Conflict, NotFound):
                self.lifecycle.unpause(container.id)

    def _create(self, container: Container, config: oci.ContainerConfig, options: CommitOptions) -> Image:
        """Record the image, without a name; a layer of which no image came is collected."""
        parts = self.parts
        parent = parts.images.get(container.image_id)
        layer: LayerBlob | None = None
        try:
            with parts.content.lease():
                upper = parts.snapshots.upper(container.id)
                try:
                    layer = store_layer(upper, parts.content, leave_out=_MADE_BY_START)
                finally:
                    os.close(upper)
                if parts.containers.get(container.id).status is Status.REMOVING:
                    raise NotFound(f"No such container: {container.id}")  # what was read is not all of it
                document = _document(parent, container, config, layer, options)
                return parts.images.create(document, [*parent.layers, *([layer.blob] if layer else [])])
        finally:
            if layer is not None:
                parts.images.forget({layer.blob.digest})


def _document(
    parent: Image, container: Container, config: oci.ContainerConfig, layer: LayerBlob | None, options: CommitOptions
) -> oci.ImageConfig:
    created = now()
    step = oci.History(
        created=created,
        created_by=" ".join(container.config.cmd or []),
        author=options.author,
        comment=options.comment,
        empty_layer=layer is None,
    )
    return msgspec.structs.replace(
        parent.config,
        created=created,
        author=options.author,
        comment=options.comment,
        config=config,
        rootfs=oci.RootFS(
            type="layers", diff_ids=[*parent.config.rootfs.diff_ids, *([layer.diff_id] if layer else [])]
        ),
        history=[*(parent.config.history or []), step],
    )


def _to_image(config: ContainerConfig) -> oci.ContainerConfig:
    return msgspec.convert(msgspec.to_builtins(config), oci.ContainerConfig)


def _to_container(config: oci.ContainerConfig) -> ContainerConfig:
    return msgspec.convert(msgspec.to_builtins(config), ContainerConfig)
