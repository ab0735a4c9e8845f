"""Boot order, wiring and signals of narud. The only place that constructs and connects objects; it holds no logic."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from naru.api.host import LogConfig
from naru.build.builder import Builder, Resolve
from naru.build.step import StepRunner
from naru.content.store import ContentStore
from naru.daemon.housekeeping import keep_small
from naru.daemon.merging import keep_merged
from naru.daemon.settings import Settings, read
from naru.engine.container import Containers
from naru.engine.engine import Engine
from naru.engine.events import EventBus
from naru.engine.log_config import check_log_config
from naru.engine.parts import Parts, Paths, Progress
from naru.errors import Conflict, InvalidArgument, NaruError
from naru.image.snapshot import Snapshots
from naru.image.store import Image, Images
from naru.network.networks import Networks
from naru.oci.image import Platform
from naru.oci.reference import Reference
from naru.persist.database import Database
from naru.persist.files import lock_exclusively, write_atomically
from naru.server.app import make_app
from naru.server.listen import serve
from naru.server.tls import Tls
from naru.task.tasks import Tasks
from naru.volume.volumes import Volumes

if TYPE_CHECKING:
    from naru.library.library import Library

log = logging.getLogger("narud")


def run(arguments: Sequence[str], launcher: socket.socket) -> int:
    """Run the daemon until a signal ends it, and return its exit status."""
    try:
        settings = read(arguments)
        logging.basicConfig(
            level={"warn": "WARNING"}.get(settings.log_level, settings.log_level.upper()),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        return _run(settings, launcher)
    except NaruError as error:
        print(f"narud: {error}", file=sys.stderr)
        return 1


def _run(settings: Settings, launcher: socket.socket) -> int:
    _allow_descriptors()
    paths = _directories(settings)
    try:
        lock = lock_exclusively(paths.data / "lock")
    except Conflict as error:
        raise Conflict(
            f"another narud works on {paths.data} ({error})", hint="give this one a --data-root of its own"
        ) from None
    try:
        run_lock = lock_exclusively(paths.run / "lock")
    except Conflict as error:
        raise Conflict(f"another narud works in {paths.run} ({error})", hint="give this one an --exec-root") from None
    (paths.run / "narud.pid").write_text(f"{os.getpid()}\n")
    try:
        engine = _engine(settings, paths, launcher)
        asyncio.run(_serve(settings, engine))
        engine.close()
    finally:
        (paths.run / "narud.pid").unlink(missing_ok=True)
        os.close(run_lock)
        os.close(lock)
    return 0


def _allow_descriptors() -> None:
    """Let narud have all the descriptors that it may: each container, published port and DNS query needs some.

    Containers do not inherit it: they are the launcher's, which was forked before.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _directories(settings: Settings) -> Paths:
    paths = Paths(data=Path(settings.data_root), run=Path(settings.run_root))
    for directory in (paths.data, paths.data / "containers", paths.data / "volumes", paths.run, paths.run / "shims"):
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    return paths


def _engine(settings: Settings, paths: Paths, launcher: socket.socket) -> Engine:
    """Wire the engine. The builder asks the engine for base images, and the engine the library for images that no
    registry gives, which the library has built: the circle is closed here, by `pull_base`, and nowhere else."""
    environment = dict(os.environ)
    database = Database(paths.data / "naru.db")
    content = ContentStore(paths.data)
    content.recover()
    snapshots = Snapshots(database, paths.data / "snapshots")
    images = Images(database, content, snapshots)
    networks = Networks(database)
    networks.ensure_default()
    tasks = Tasks(launcher, str(paths.run / "shims"))
    runner = StepRunner(tasks, networks, paths.data / "build", environment)

    def make_builder(resolve: Resolve) -> Builder:
        return Builder(content, images, snapshots, runner, resolve, paths.data, database)

    def pull_base(reference: Reference, platform: Platform) -> Image:
        return engine.base_image(reference, platform)

    builder = make_builder(pull_base)

    @cache
    def library() -> Library:
        from naru.library.library import Library  # 5 MB that a daemon needs only where no registry answers
        from naru.library.recipes import Recipes, recipes_root

        return Library(
            Recipes(recipes_root(environment)),
            make_builder=make_builder,
            content=content,
            images=images,
            snapshots=snapshots,
            step_runner=runner,
            environ=environment,
        )

    def provide(reference: Reference, progress: Progress) -> Image | None:
        return library().provide(reference, progress)

    def recipes(term: str) -> list[str]:
        return library().names(term)

    engine = Engine(
        Parts(
            paths=paths,
            containers=Containers(database),
            events=EventBus(),
            content=content,
            images=images,
            snapshots=snapshots,
            volumes=Volumes(database, paths.data / "volumes"),
            networks=networks,
            tasks=tasks,
            builder=builder,
            provide=provide if settings.library else None,
            recipes=recipes if settings.library else None,
            insecure_registries=tuple(settings.insecure_registries),
            log_config=_log_config(settings),
        ),
        engine_id=_engine_id(paths),
    )
    builder.recover()  # first: what killed builds still run stands on snapshots that the engine clears away
    engine.recover()
    images.prune_content()
    return engine


def _log_config(settings: Settings) -> LogConfig:
    """Return what containers get that ask for nothing. InvalidArgument: no container could have that."""
    config = LogConfig(type=settings.log_driver, config=dict(settings.log_opts))
    try:
        check_log_config(config)
    except InvalidArgument as error:
        raise InvalidArgument(f"failed to set log opts: {error}") from error
    return config


def _engine_id(paths: Paths) -> str:
    file = paths.data / "engine-id"
    if not file.exists():
        write_atomically(file, secrets.token_hex(16).encode(), mode=0o644)
    return file.read_text().strip()


async def _serve(settings: Settings, engine: Engine) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    tls = None
    if settings.tls or settings.tlsverify:
        tls = Tls(settings.tlscert, settings.tlskey, settings.tlscacert if settings.tlsverify else None)
    runner = await serve(make_app(engine), settings.hosts, tls=tls)
    for host in settings.hosts:
        if tls is None and not host.startswith(("unix://", "fd://", "/")):
            log.warning("%s is served without TLS: whoever reaches it has root on this host", host)
    log.info("serving on %s", ", ".join(settings.hosts))
    _notify_ready()
    housekeeping = [asyncio.create_task(keep_small())]
    if settings.merge_memory:
        parts = engine.parts
        housekeeping.append(
            asyncio.create_task(
                keep_merged(lambda: parts.tasks.started, parts.containers.count_running, parts.paths.run)
            )
        )
    try:
        await ended.wait()
        log.info("ending; containers go on")
    finally:
        for task in housekeeping:
            task.cancel()
        await runner.cleanup()


def _notify_ready() -> None:
    """Tell systemd that we serve. sd_notify(3)"""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.send(b"READY=1")
