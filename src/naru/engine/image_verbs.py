"""The Engine API's image operations."""

from __future__ import annotations

import errno
import fnmatch
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import msgspec

from naru.api.build import BuildOptions, BuildPruneReport
from naru.api.image import (
    DeleteItem,
    HistoryItem,
    ImageConfig,
    ImageInspect,
    ImageMetadata,
    ImageRootFS,
    ImagesPruneReport,
    ImageSummary,
)
from naru.api.progress import ProgressMessage
from naru.api.system import AuthConfig
from naru.distribution import pull as registry
from naru.engine.clock import now, rfc3339
from naru.engine.parts import Parts, Progress
from naru.engine.prune import AGE_AND_LABELS, check_filters, is_pruned, parse_until, truth
from naru.errors import InvalidArgument, NaruError, Unavailable
from naru.image import archive
from naru.image.store import Image
from naru.oci import platform as platforms
from naru.oci.image import ContainerConfig, Platform
from naru.oci.reference import DEFAULT_DOMAIN, Reference, parse_familiar

log = logging.getLogger(__name__)

Filters = Mapping[str, Sequence[str]]
_building = threading.local()
_LIST_FILTERS = {"before", "since", "dangling", "label", "reference", "until"}


class ImageVerbs:
    """Image operations over the engine's parts."""

    parts: Parts

    def image_list(
        self,
        *,
        all: bool = False,
        filters: Filters | None = None,
        shared_size: bool = False,
        digests: bool = False,
        manifests: bool = False,
    ) -> list[ImageSummary]:
        """Engine API, ImageList."""
        filters = filters or {}
        for key in filters:
            if key not in _LIST_FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        users: dict[str, int] = {}
        for container in self.parts.containers.all():
            users[container.image_id] = users.get(container.image_id, 0) + 1
        images = sorted(self.parts.images.list(), key=lambda image: image.created or now(), reverse=True)
        return [
            _summary(image, tags, users.get(image.id, 0))
            for image in images
            for tags in [self._matching_tags(image, filters)]
            if tags is not None
        ]

    def _matching_tags(self, image: Image, filters: Filters) -> list[str] | None:
        """The tags to show, or None where the filters leave the image out."""
        tags = list(image.tags)
        labels = (image.config.config.labels if image.config.config else None) or {}
        created = image.created or now()
        if not is_pruned(labels, created, {"label": filters.get("label", ())}, None):
            return None
        if truth(filters, "dangling") is bool(tags):
            return None
        for key, sign in (("before", -1), ("since", 1)):
            for reference in filters.get(key, ()):
                bound = self.parts.images.get(reference).created or now()
                if (created - bound).total_seconds() * sign <= 0:
                    return None
        patterns = filters.get("reference")
        if patterns:
            tags = [tag for tag in tags if any(_matches_reference(tag, pattern) for pattern in patterns)]
            if not tags:
                return None
        return tags

    def image_inspect(self, name: str, *, manifests: bool = False, platform: str = "") -> ImageInspect:
        """Engine API, ImageInspect."""
        image = self.parts.images.get(name)
        config = image.config
        shown = None
        if config.config is not None:
            shown = msgspec.convert(msgspec.to_builtins(config.config), ImageConfig)
        return ImageInspect(
            id=image.id,
            repo_tags=list(image.tags),
            repo_digests=list(image.digests),
            comment=config.history[-1].comment if config.history else "",
            created=rfc3339(image.created) if image.created else "",
            author=config.author,
            config=shown,
            architecture=config.architecture,
            variant=config.variant,
            os=config.os,
            size=image.size,
            root_fs=ImageRootFS(layers=list(config.rootfs.diff_ids)),
            metadata=ImageMetadata(last_tag_time=rfc3339(image.tagged_at)),
        )

    def image_history(self, name: str, *, platform: str = "") -> list[HistoryItem]:
        """Engine API, ImageHistory."""
        return self.parts.images.history(name)

    def image_tag(self, name: str, *, repo: str, tag: str = "") -> None:
        """Engine API, ImageTag."""
        image = self.parts.images.get(name)
        target = parse_familiar(f"{repo}:{tag}" if tag else repo)
        if target.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        self.parts.images.tag(image.id, target)
        self._publish("tag", image.id, target.familiar())

    def image_delete(self, name: str, *, force: bool = False, noprune: bool = False) -> list[DeleteItem]:
        """Engine API, ImageDelete."""
        image_id = self.parts.images.get(name).id
        items = self.parts.images.remove(name, force=force, in_use=self._users)
        for item in items:
            self._publish("untag" if item.untagged else "delete", image_id if item.untagged else item.deleted)
        return items

    def _users(self, image_id: str) -> list[tuple[str, bool]]:
        """The containers of an image: short ID, and whether it runs."""
        return [
            (container.id[:12], container.is_running)
            for container in self.parts.containers.all()
            if image_id in container.image_ids
        ]

    def image_prune(self, *, filters: Filters | None = None) -> ImagesPruneReport:
        """Engine API, ImagePrune."""
        filters = filters or {}
        check_filters(filters, AGE_AND_LABELS | {"dangling"})
        until = parse_until(filters)
        dangling_only = all(value in ("true", "1") for value in filters.get("dangling", ()))
        used = {image_id for container in self.parts.containers.all() for image_id in container.image_ids}
        deleted: list[DeleteItem] = []
        before = self.parts.snapshots.total_usage()
        for image in self.parts.images.list():
            labels = (image.config.config.labels if image.config.config else None) or {}
            if image.id in used or (dangling_only and image.tags):
                continue
            if not is_pruned(labels, image.created or now(), filters, until):
                continue
            deleted += self.image_delete(image.id, force=True)
        return ImagesPruneReport(
            images_deleted=deleted or None, space_reclaimed=max(0, before - self.parts.snapshots.total_usage())
        )

    # --- where images come from and go ----------------------------------------------------------------------------

    def image_create(
        self, from_image: str, tag: str, platform: str, auth: AuthConfig | None, progress: Progress
    ) -> None:
        """Engine API, ImageCreate: pull, or build from the library where the registry cannot be reached."""
        reference = parse_familiar(_join(from_image, tag))
        wanted = platforms.parse(platform) if platform else platforms.host()
        try:
            image = self._pull(reference, wanted, auth, progress)
        except Unavailable as error:
            image = self._provide(reference, platform, error, progress)
        self._publish("pull", reference.familiar(), reference.familiar())
        log.info("image %s is %s", reference.familiar(), image.id)

    def _provide(self, reference: Reference, platform: str, error: Unavailable, progress: Progress) -> Image:
        """Make the image from the library, saying first why. Unavailable: the library does not do that either."""
        if not is_official(reference):
            raise error
        if self.parts.provide is None:
            raise Unavailable(f"{error}, and naru's library is turned off") from error
        notices = [ProgressMessage(status=f"{reference.domain} cannot be reached ({error})")]

        def told(message: ProgressMessage) -> None:
            while notices:
                progress(notices.pop())
            progress(message)

        image = None if platform_differs(platform) else self.parts.provide(reference, told)
        if image is None:
            made = f"{reference.familiar()} for {platform}" if platform_differs(platform) else reference.familiar()
            raise Unavailable(f"{error}, and naru's library has no recipe for {made}") from error
        return image

    def _pull(self, reference: Reference, wanted: Platform, auth: AuthConfig | None, progress: Progress) -> Image:
        with self.parts.content.lease() as lease:
            pulled = registry.pull(
                reference,
                platform=wanted,
                content=self.parts.content,
                auth=auth,
                progress=progress,
                lease=lease,
                insecure_registries=self.parts.insecure_registries,
            )
            return self.parts.images.create_from_manifest(
                pulled.manifest_descriptor, reference, digest=pulled.digest, progress=progress
            )

    def image_load(self, source: BinaryIO, quiet: bool, progress: Progress) -> None:
        """Engine API, ImageLoad."""
        try:
            archive.load(source, images=self.parts.images, content=self.parts.content, progress=progress, quiet=quiet)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise NoSpace(f"write {error.filename or self.parts.paths.data}: no space left on device") from error
            raise

    def image_get(self, names: Sequence[str], sink: BinaryIO) -> None:
        """Engine API, ImageGet and ImageGetAll."""
        archive.save(names, sink, images=self.parts.images, content=self.parts.content)

    def image_import(
        self,
        source: BinaryIO,
        *,
        repo: str,
        tag: str,
        message: str,
        changes: list[str],
        platform: str,
        progress: Progress,
    ) -> None:
        """Engine API, ImageCreate with `fromSrc`: a root file system becomes an image."""
        reference = named(repo, tag)
        config = self.parts.builder.changed(ContainerConfig(), changes)
        image = archive.import_rootfs(
            source, reference, images=self.parts.images, content=self.parts.content, message=message, config=config
        )
        if reference is not None:
            self._publish("tag", image.id, reference.with_default_tag().familiar())
        self._publish("import", image.id)
        progress(ProgressMessage(status=image.id))

    def image_build(
        self, context: BinaryIO, options: BuildOptions, progress: Progress, cancelled: threading.Event | None = None
    ) -> None:
        """Engine API, ImageBuild."""
        _building.progress = progress
        try:
            self.parts.builder.build(context, options, progress, cancelled)
        finally:
            del _building.progress

    def base_image(self, reference: Reference, platform: Platform) -> Image:
        """Pull what a build's FROM names and is not here, telling whom the build of this thread tells."""
        progress: Progress = getattr(_building, "progress", lambda message: None)
        self.image_create(reference.canonical(), "", str(platform), None, progress)
        return self.parts.images.get(reference.canonical())

    def build_prune(self, *, all: bool = False, filters: Filters | None = None) -> BuildPruneReport:
        """Engine API, BuildPrune."""
        check_filters(filters or {}, ("until",))
        return self.parts.builder.prune(unused_since=parse_until(filters or {}))

    def _publish(self, action: str, actor: str, name: str = "") -> None:
        self.parts.events.publish("image", action, actor, {"name": name or actor})


class NoSpace(NaruError):
    """The data root is full (HTTP 500, as Docker answers)."""


def platform_differs(platform: str) -> bool:
    """True if `platform` names another architecture than this host's: the library only builds for the host."""
    return bool(platform) and platforms.parse(platform).architecture != platforms.host().architecture


def is_official(reference: Reference) -> bool:
    """True for Docker's official images, the only names the library speaks for."""
    return reference.domain == DEFAULT_DOMAIN and reference.path.startswith("library/")


def named(repo: str, tag: str) -> Reference | None:
    """Return the name that an image being made shall get; None without one. InvalidArgument: it cannot be a tag."""
    if not repo:
        return None
    reference = parse_familiar(f"{repo}:{tag}" if tag else repo)
    if reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    return reference


def _join(name: str, tag: str) -> str:
    if not tag:
        return name
    return f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"


def _summary(image: Image, tags: list[str], containers: int) -> ImageSummary:
    return ImageSummary(
        containers=containers,
        created=int(image.created.timestamp()) if image.created else 0,
        id=image.id,
        labels=(image.config.config.labels if image.config.config else None) or None,
        repo_digests=list(image.digests),
        repo_tags=tags,
        size=image.size,
    )


def _matches_reference(tag: str, pattern: str) -> bool:
    repository = tag.rpartition(":")[0]
    return fnmatch.fnmatchcase(tag, pattern) or fnmatch.fnmatchcase(repository, pattern)
