"""A builder with everything real below it, but networks that lead nowhere: what the build tests stand on."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from naru.api.build import BuildOptions
from naru.api.progress import ProgressMessage
from naru.build.builder import Builder
from naru.build.step import StepRunner
from naru.content.store import ContentStore
from naru.errors import NotFound
from naru.image.snapshot import Snapshots
from naru.image.store import Image, Images
from naru.kernel import netns
from naru.kernel.loopback import bring_loopback_up
from naru.network.networks import Networks
from naru.network.record import Sandbox
from naru.oci.image import Platform
from naru.oci.reference import Reference
from naru.persist.database import Database
from naru.task.tasks import Tasks

BUSYBOX = "/bin/busybox"


class NoNetworks:
    """Sandboxes with nothing but loopback: builds under test must not touch the host's links or firewall."""

    def __init__(self) -> None:
        self.joined: dict[str, int] = {}

    def private_netns(self) -> int:
        return netns.create(bring_loopback_up)[0]

    def join(self, sandbox_id: str, endpoints: object, ports: object = ()) -> Sandbox:
        self.joined[sandbox_id] = self.private_netns()
        return Sandbox(sandbox_id, self.joined[sandbox_id])

    def leave(self, sandbox_id: str) -> None:
        if sandbox_id in self.joined:
            os.close(self.joined.pop(sandbox_id))


def not_there(reference: Reference, platform: Platform) -> Image:
    raise NotFound(f"pull access denied for {reference.familiar()}")


@dataclass
class Site:
    """One data root with its builder. `messages` is the stream of the last build."""

    root: Path
    launcher: socket.socket
    environ: Mapping[str, str] = field(default_factory=dict)
    messages: list[ProgressMessage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = Database(self.root / "naru.db")
        self.content = ContentStore(self.root)
        self.snapshots = Snapshots(self.database, self.root / "snapshots")
        self.images = Images(self.database, self.content, self.snapshots)
        self.tasks = Tasks(self.launcher, str(self.root / "run"))
        self.networks = NoNetworks()
        runner = StepRunner(self.tasks, cast(Networks, self.networks), self.root / "build", self.environ)
        self.builder = Builder(self.content, self.images, self.snapshots, runner, not_there, self.root, self.database)

    def build(self, dockerfile: str, files: Mapping[str, str] | None = None, **options: object) -> Image:
        """Build `dockerfile` with `files` beside it and return the image."""
        self.messages = []
        context = self.context(dockerfile, files or {})
        wanted = BuildOptions(**options)  # type: ignore[arg-type]
        return self.images.get(self.builder.build(context, wanted, self.messages.append))

    def context(self, dockerfile: str, files: Mapping[str, str]) -> Path:
        """Return a directory with the Dockerfile, busybox and `files`, in place of the last one."""
        context = self.root / "context"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir()
        shutil.copy(BUSYBOX, context / "busybox")
        for name, text in files.items():
            path = context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (context / "Dockerfile").write_text(dockerfile)
        return context

    @property
    def output(self) -> str:
        """The text of the last build's stream."""
        return "".join(message.stream for message in self.messages)

    @contextmanager
    def view(self, image: Image) -> Iterator[Path]:
        """Yield the image's files, by a path that only this process can use."""
        root_fd = self.snapshots.mount_view(image.chain_id)
        try:
            yield Path(f"/proc/self/fd/{root_fd}")
        finally:
            os.close(root_fd)

    def leftovers(self) -> list[str]:
        """Return what a finished build must not leave: directories, active snapshots, shims."""
        rows = self.database.query("SELECT key FROM snapshots WHERE state != 'committed'")
        directories = [path.name for path in (self.root / "build").glob("*") if path.name != "cache"]
        return [*directories, *(str(row["key"]) for row in rows), *self.tasks.found(), *self.networks.joined]
