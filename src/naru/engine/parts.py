"""What the engine is made of: its stores and its ways to the world, handed in by `daemon`, and the paths they share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from naru.api.build import BuildCache, BuildOptions, BuildPruneReport
from naru.api.host import LogConfig
from naru.api.progress import ProgressMessage
from naru.content.store import ContentStore
from naru.engine.container import Containers
from naru.engine.events import EventBus
from naru.image.snapshot import Snapshots
from naru.image.store import Image, Images
from naru.network.networks import Networks
from naru.oci.image import ContainerConfig
from naru.oci.reference import Reference
from naru.task.tasks import Tasks
from naru.volume.volumes import Volumes

Progress = Callable[[ProgressMessage], None]
Provider = Callable[[Reference, Progress], Image | None]


class ImageBuilder(Protocol):
    """The builder's door: the engine does not know what a Dockerfile is."""

    def build(
        self, context: BinaryIO, options: BuildOptions, progress: Progress, cancelled: threading.Event | None = None
    ) -> object: ...
    def changed(self, config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig: ...
    def disk_usage(self) -> list[BuildCache]: ...
    def prune(self, *, unused_since: datetime | None = None) -> BuildPruneReport: ...


@dataclass(frozen=True, slots=True)
class Paths:
    """The directories of one engine. `data` survives a reboot, `run` need not."""

    data: Path
    run: Path

    def container(self, container_id: str) -> Path:
        """Return a container's directory: bundle, /etc files, log."""
        return self.data / "containers" / container_id

    def log(self, container_id: str) -> Path:
        """Return a container's json-file log."""
        return self.container(container_id) / f"{container_id}-json.log"


@dataclass(frozen=True, slots=True)
class Parts:
    """The engine's collaborators. `provide` makes an image from the built-in library when no registry has it; `recipes`
    returns the names that it can make and a word is part of. `log_config` is what containers get that ask for no log
    driver.
    """

    paths: Paths
    containers: Containers
    events: EventBus
    content: ContentStore
    images: Images
    snapshots: Snapshots
    volumes: Volumes
    networks: Networks
    tasks: Tasks
    builder: ImageBuilder
    provide: Provider | None = None
    recipes: Callable[[str], list[str]] | None = None
    insecure_registries: tuple[str, ...] = ()
    log_config: LogConfig = field(default_factory=lambda: LogConfig(type="json-file"))
