"""One build: context → Dockerfile → stages → image, with its names last."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from naru.api.build import BuildOptions
from naru.build.builder import Progress, Stores
from naru.build.cache import Layer, cache_key
from naru.build.context import Context, open_context
from naru.build.dockerfile import parse
from naru.build.expand import GlobalScope, platform_arguments
from naru.build.instructions import Dockerfile, Stage
from naru.build.layers import Keeper
from naru.build.progress import BuildProgress
from naru.build.solver import Session, Solved
from naru.build.stages import needed_stages, target_stage
from naru.errors import Corrupt, InvalidArgument, NotFound, Unsupported
from naru.image.store import Image, Images
from naru.oci import platform as platforms
from naru.oci.digest import ImageID
from naru.oci.image import ContainerConfig, Platform, encode
from naru.oci.reference import Reference, parse_familiar


def build(
    stores: Stores,
    context: BinaryIO | Path,
    options: BuildOptions,
    progress: Progress,
    cancelled: threading.Event | None,
) -> ImageID:
    """Carry out `Builder.build`."""
    names = [_tag(text) for text in options.tags]
    _refuse_unsupported(options)
    report = BuildProgress(progress, quiet=options.quiet)
    with ExitStack() as stack:
        opened = stack.enter_context(open_context(context, dockerfile=options.dockerfile, directory=stores.directory))
        keeper = stack.enter_context(stores.layers.keeping())
        session = _session(stores, opened, options, report, keeper, cancelled)
        solved = _solve(session)
        image = _create(stores, session, solved)
        for name in names:
            stores.images.tag(image.id, name)
    report.done(image.id, [name.familiar() for name in names])
    return image.id


def _session(
    stores: Stores,
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
        layers=stores.layers,
        cache=stores.cache,
        caches=stores.caches,
        runner=stores.runner,
        base_image=lambda name, wanted: _base_image(stores, name, wanted, keeper, pull=options.pull),
        progress=report,
        keeper=keeper,
        epoch=_epoch(given.get("SOURCE_DATE_EPOCH", "")),
        cancelled=cancelled,
    )


def _solve(session: Session) -> Solved:
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


def _create(stores: Stores, session: Session, solved: Solved) -> Image:
    """Make the image; the same content gets the same creation time, and so the same ID, as the first time."""
    config = solved.config
    if session.options.labels:
        config = msgspec.structs.replace(config, labels={**(config.labels or {}), **session.options.labels})
    document = msgspec.structs.replace(solved.image_config(None), config=config)
    created = session.epoch
    if created is None:
        key = cache_key("image", solved.chain, {"config": encode(document).decode()})
        record = stores.cache.find(key) or stores.cache.put(key, solved.chain, None, "image config")
        created = record.created_at
    document = msgspec.structs.replace(document, created=created)
    return stores.images.create(document, [layer.blob for layer in solved.layers])


def _base_image(stores: Stores, name: str, platform: Platform, keeper: Keeper, *, pull: bool) -> Solved:
    image = None if pull else _local_image(stores.images, name, platform)
    if image is None:
        image = stores.resolve(parse_familiar(name), platform)
    solved = _solved(image)
    for layer in solved.layers:
        if not keeper.keep(layer):
            raise Corrupt(f"image {name}: layer {layer.diff_id} is missing")
    return solved


def _local_image(images: Images, name: str, platform: Platform) -> Image | None:
    try:
        image = images.get(name)
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
