"""The engine: every operation of the Engine API under its operation ID, over the parts that `daemon` wires."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence

from naru.api.disk import DiskUsage
from naru.api.volume import UsageData
from naru.api.volume import Volume as WireVolume
from naru.engine.archive_verbs import ArchiveVerbs
from naru.engine.commit import CommitVerb
from naru.engine.container import Container, Status
from naru.engine.container_verbs import ContainerVerbs
from naru.engine.disk_usage import build_cache_usage, containers_usage, images_usage, volumes_usage
from naru.engine.execs import Execs
from naru.engine.filesystem import Filesystems
from naru.engine.health import HealthChecks
from naru.engine.image_verbs import ImageVerbs
from naru.engine.lifecycle import Lifecycle
from naru.engine.network_verbs import NetworkVerbs
from naru.engine.parts import Parts
from naru.engine.registry_verbs import RegistryVerbs
from naru.engine.system_verbs import SystemVerbs
from naru.engine.volume_verbs import VolumeVerbs
from naru.engine.volume_verbs import wire as wire_volume
from naru.errors import InvalidArgument, NaruError
from naru.volume.volumes import Volume

log = logging.getLogger(__name__)

_KINDS = ("container", "image", "volume", "build-cache")


class Engine(
    ContainerVerbs, ArchiveVerbs, CommitVerb, ImageVerbs, RegistryVerbs, NetworkVerbs, VolumeVerbs, SystemVerbs
):
    """One machine's containers, images, networks and volumes. Every method blocks; any thread may call."""

    def __init__(self, parts: Parts, *, engine_id: str) -> None:
        self.parts = parts
        self.engine_id = engine_id
        self.lifecycle = Lifecycle(parts)
        self.filesystems = Filesystems(parts, self.lifecycle)
        self.execs = Execs(parts.containers, self.lifecycle)
        self.health = HealthChecks(parts.containers, self.lifecycle)

    def system_data_usage(self, *, type: Sequence[str] = ()) -> DiskUsage:
        """Engine API, SystemDataUsage."""
        for kind in type:
            if kind not in _KINDS:
                raise InvalidArgument(f"unknown object type: {kind}")
        asked = type or _KINDS
        usage = DiskUsage()
        if "container" in asked:
            usage.container_usage = containers_usage(self.container_list(all=True, size=True))
        if "image" in asked:
            usage.image_usage = images_usage(self.image_list(all=True), self.parts.snapshots.total_usage())
        if "volume" in asked:
            usage.volume_usage = volumes_usage([self._measured(volume) for volume in self.parts.volumes.list()])
        if "build-cache" in asked:
            usage.build_cache_usage = build_cache_usage(self.parts.builder.disk_usage())
        return usage

    def _measured(self, volume: Volume) -> WireVolume:
        shown = wire_volume(volume)
        shown.usage_data = UsageData(
            size=self.parts.volumes.usage(volume.name), ref_count=len(self.parts.volumes.users(volume.name))
        )
        return shown

    def recover(self) -> None:
        """Bring records and machine together after a start of the daemon: adopt what runs, finish what was begun.

        records × shims × snapshots × networks × directories; what no record owns is removed.
        """
        parts = self.parts
        for container in parts.containers.all():
            self._recover_one(container)
        known = {container.id for container in parts.containers.all()}
        running = {container.id for container in parts.containers.all() if container.is_running}
        for task_id in parts.tasks.found():
            if task_id not in known:
                self.lifecycle.discard_task(task_id)
        parts.networks.reconcile(running)
        parts.snapshots.recover(known)
        parts.volumes.recover(known)
        directory = parts.paths.data / "containers"
        for entry in directory.iterdir():
            if entry.name not in known:
                shutil.rmtree(entry)
        self._restart_by_policy()

    def _recover_one(self, container: Container) -> None:
        try:
            if container.status is Status.REMOVING:
                self.lifecycle.remove(container.id, force=True, volumes=container.host_config.auto_remove)
            else:
                runs = self.lifecycle.adopt(container)
                if runs and container.status is Status.PAUSED and container.is_paused_for_commit:
                    self.lifecycle.unpause(container.id)
        except (NaruError, OSError):
            log.exception("container %s could not be recovered", container.id)

    def _restart_by_policy(self) -> None:
        """Start what should always run: after a reboot nothing does."""
        for container in self.parts.containers.all():
            policy = container.host_config.restart_policy.name
            wanted = policy == "always" or (policy == "unless-stopped" and not container.is_stopped_by_user)
            was_restarting = container.status is Status.RESTARTING
            if not (wanted or was_restarting) or container.is_running or container.status is Status.CREATED:
                continue
            try:
                self.lifecycle.start(container.id)
            except NaruError as error:
                log.warning("container %s: not restarted: %s", container.name, error)

    def close(self) -> None:
        """End the daemon's part; containers go on."""
        self.lifecycle.close()
