"""Building images: context → Dockerfile → stages → image, with its names last.

    <data-root>/build/    context-*, step-*, mounts-*: of running builds; cache/: RUN's cache mounts

`Builder` is what `server` and `library` call. A build that fails or is killed leaves no image, no name, and (after
`recover`) no directory; the steps it finished are found by the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from naru.api.build import BuildCache as BuildCacheItem
from naru.api.build import BuildOptions, BuildPruneReport
from naru.api.progress import ProgressMessage
from naru.build.cache import BuildCache, CacheRecord, Layer, cache_key
from naru.build.context import Context, open_context, sweep_contexts
from naru.build.dockerfile import parse
from naru.build.expand import GlobalScope, platform_arguments
from naru.build.instructions import Dockerfile, Stage
from naru.build.layers import Keeper, LayerStore
from naru.build.progress import BuildProgress
from naru.build.run_mounts import CacheDirectories, sweep
from naru.build.solver import Session, Solved
from naru.build.stages import needed_stages, target_stage
from naru.build.step import StepRunner
from naru.content.store import ContentStore
from naru.errors import Corrupt, InvalidArgument, NotFound, Unsupported
from naru.image.snapshot import Snapshots
from naru.image.store import Image, Images, Roots
from naru.oci import platform as platforms
from naru.oci.digest import ImageID
from naru.oci.image import ContainerConfig, Platform, encode
from naru.oci.reference import Reference, parse_familiar
from naru.persist.database import Database

Resolve = Callable[[Reference, Platform], Image]
Progress = Callable[[ProgressMessage], None]


class Builder:
    """The builder of one daemon. `resolve` finds an image that is not here (pull, library); safe between threads."""

    def __init__(
        self,
        content: ContentStore,
        images: Images,
        snapshots: Snapshots,
        step_runner: StepRunner,
        resolve: Resolve,
        data_root: Path,
        database: Database,
    ) -> None:
        self._content = content
        self._images = images
        self._layers = LayerStore(content, snapshots)
        self._runner = step_runner
        self._resolve = resolve
        self._directory = data_root / "build"
        self._caches = CacheDirectories(self._directory)
        self._cache = BuildCache(database)
        images.add_roots(self._roots)

    def build(
        self,
        context: BinaryIO | Path,
        options: BuildOptions,
        progress: Progress,
        cancelled: threading.Event | None = None,
    ) -> ImageID:
        """Build an image from `context` (a tar stream or a directory), tag it, and return its ID.

        DockerfileError, InvalidArgument, NotFound: the request is wrong. StepFailed: a RUN failed. Unsupported: an
        option or instruction that this builder does not know. Cancelled: `cancelled` was set.
        """
        names = [_tag(text) for text in options.tags]
        _refuse_unsupported(options)
        report = BuildProgress(progress, quiet=options.quiet)
        with ExitStack() as stack:
            opened = stack.enter_context(
                open_context(context, dockerfile=options.dockerfile, directory=self._directory)
            )
            keeper = stack.enter_context(self._layers.keeping())
            session = self._session(opened, options, report, keeper, cancelled)
            solved = self._solve(session)
            image = self._create(session, solved)
            for name in names:
                self._images.tag(image.id, name)
        report.done(image.id, [name.familiar() for name in names])
        return image.id

    def disk_usage(self) -> list[BuildCacheItem]:
        """Return the build cache's records, the longest unused first. Engine API, SystemDataUsage."""
        return [_cache_item(record) for record in self._cache.records() if record.layer is not None]

    def prune(self, *, unused_since: datetime | None = None) -> BuildPruneReport:
        """Forget the cache (what was last used before `unused_since`) and free what nothing else needs."""
        deleted = [
            record.key for record in self._cache.records() if unused_since is None or record.last_used_at < unused_since
        ]
        for key in deleted:
            self._cache.drop(key)
        return BuildPruneReport(caches_deleted=deleted or None, space_reclaimed=self._images.prune_content())

    def recover(self) -> None:
        """Remove what a killed daemon's builds left. Call once at start, after the tasks are reconciled."""
        self._runner.recover()
        sweep_contexts(self._directory)
        sweep(self._directory)

    def _roots(self) -> Roots:
        layers = [record.layer for record in self._cache.records() if record.layer is not None]
        return Roots(frozenset(layer.blob.digest for layer in layers), frozenset(layer.chain_id for layer in layers))

    def _session(
        self,
        context: Context,
        options: BuildOptions,
        report: BuildProgress,
        keeper: Keeper,
        cancelled: threading.Event | None,
    ) -> Session:
        dockerfile = parse(context.dockerfile, file=context.dockerfile_name)
        build_platform = platforms.host()
        platform = platforms.parse(options.platform) if options.platform else build_platform
        if platforms.rank(build_platform, platform) is None:
            raise Unsupported(f"building for {platform} on {build_platform} is not supported")
        given = {name: value for name, value in options.build_args.items() if value is not None}
        scope = GlobalScope(
            dockerfile.arguments,
            given,
            platform_arguments(platform, build_platform, options.target),
            dockerfile.directives.escape,
        )
        return Session(
            dockerfile=dockerfile,
            options=options,
            context=context,
            scope=scope,
            platform=platform,
            layers=self._layers,
            cache=self._cache,
            caches=self._caches,
            runner=self._runner,
            base_image=lambda name, wanted: self._base_image(name, wanted, keeper, pull=options.pull),
            progress=report,
            keeper=keeper,
            epoch=_epoch(given.get("SOURCE_DATE_EPOCH", "")),
            cancelled=cancelled,
        )

    def _solve(self, session: Session) -> Solved:
        dockerfile, report = session.dockerfile, session.progress
        target = target_stage(dockerfile, session.options.target)
        bases = {
            stage.index: session.scope.expand(stage.base.image, stage.base, file=dockerfile.file)
            for stage in dockerfile.stages
        }
        needed = needed_stages(dockerfile, target, bases)
        report.total = len(dockerfile.arguments) + sum(_steps(dockerfile.stages[index]) for index in needed)
        for warning in dockerfile.warnings:
            report.warning(warning)
        _announce_arguments(dockerfile, report)
        for index in needed:
            session.stage(index)
        if session.scope.unused:
            report.warning(f"One or more build-args [{' '.join(session.scope.unused)}] were not consumed")
        return session.stage(target.index)

    def _create(self, session: Session, solved: Solved) -> Image:
        """Make the image; the same content gets the same creation time, and so the same ID, as the first time."""
        config = solved.config
        if session.options.labels:
            config = msgspec.structs.replace(config, labels={**(config.labels or {}), **session.options.labels})
        document = msgspec.structs.replace(solved.image_config(None), config=config)
        created = session.epoch
        if created is None:
            key = cache_key("image", solved.chain, {"config": encode(document).decode()})
            record = self._cache.find(key) or self._cache.put(key, solved.chain, None, "image config")
            created = record.created_at
        document = msgspec.structs.replace(document, created=created)
        return self._images.create(document, [layer.blob for layer in solved.layers])

    def _base_image(self, name: str, platform: Platform, keeper: Keeper, *, pull: bool) -> Solved:
        image = None if pull else self._local_image(name, platform)
        if image is None:
            image = self._resolve(parse_familiar(name), platform)
        solved = _solved(image)
        for layer in solved.layers:
            if not keeper.keep(layer):
                raise Corrupt(f"image {name}: layer {layer.diff_id} is missing")
        return solved

    def _local_image(self, name: str, platform: Platform) -> Image | None:
        try:
            image = self._images.get(name)
        except NotFound:
            return None
        return image if platforms.rank(platform, image.config.platform) is not None else None


def _solved(image: Image) -> Solved:
    config = image.config
    parts = zip(config.rootfs.diff_ids, image.chain_ids, image.layers, strict=True)
    return Solved(
        config=config.config or ContainerConfig(),
        platform=config.platform,
        layers=tuple(Layer(diff_id, chain, blob) for diff_id, chain, blob in parts),
        history=tuple(config.history or ()),
        author=config.author,
        created=config.created,
    )


def _tag(text: str) -> Reference:
    reference = parse_familiar(text)
    if reference.digest:
        raise InvalidArgument("invalid reference format: a tag cannot have a digest")
    return reference


def _refuse_unsupported(options: BuildOptions) -> None:
    asked = {
        "squash": options.squash,
        "remote contexts": bool(options.remote),
        "outputs": bool(options.outputs),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise Unsupported(f"build: {name} is not supported yet")


def _epoch(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidArgument(f"invalid SOURCE_DATE_EPOCH: {text}") from None


def _steps(stage: Stage) -> int:
    return 1 + len(stage.instructions)


def _announce_arguments(dockerfile: Dockerfile, report: BuildProgress) -> None:
    for argument in dockerfile.arguments:
        report.step(argument.source.text)


def _cache_item(record: CacheRecord) -> BuildCacheItem:
    return BuildCacheItem(
        id=record.key,
        description=record.description,
        shared=False,
        size=record.layer.blob.size if record.layer else 0,
        created_at=record.created_at.isoformat(),
        last_used_at=record.last_used_at.isoformat(),
        usage_count=record.used,
    )
