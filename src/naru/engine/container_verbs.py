"""The Engine API's container operations. Each is a few lines over the room that does the work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import cache

import msgspec

from naru.api.container import (
    AttachOptions,
    ContainerCreateRequest,
    ContainerCreateResponse,
    ContainerInspect,
    ContainersPruneReport,
    ContainerSummary,
    ContainerTop,
    ContainerUpdateRequest,
    ContainerUpdateResponse,
    ContainerWaitResponse,
    FilesystemChange,
    LogsOptions,
)
from naru.api.exec import ExecCreateRequest, ExecCreateResponse, ExecInspect, ExecStartRequest
from naru.api.stats import ContainerStats
from naru.engine import inspect, names
from naru.engine.block_io import with_lifted_limits
from naru.engine.changes import without_mount_points
from naru.engine.container import Container, Status
from naru.engine.create import create_container
from naru.engine.devices import device_node
from naru.engine.execs import Execs
from naru.engine.health import HealthChecks
from naru.engine.lifecycle import Lifecycle
from naru.engine.limits import limits
from naru.engine.log_config import is_readable
from naru.engine.logs import LogStream
from naru.engine.parts import Parts
from naru.engine.processes import table
from naru.engine.prune import AGE_AND_LABELS, check_filters, is_pruned, parse_until
from naru.engine.resources import this_host
from naru.engine.stats import container_stats
from naru.engine.update import check_update, updated
from naru.errors import Conflict, InvalidArgument, NaruError, NotFound, Unsupported

Filters = Mapping[str, Sequence[str]]


class ContainerVerbs:
    """Container and exec operations over the engine's parts."""

    parts: Parts
    lifecycle: Lifecycle
    execs: Execs
    health: HealthChecks

    def container_create(
        self, name: str, request: ContainerCreateRequest, platform: str = ""
    ) -> ContainerCreateResponse:
        """Engine API, ContainerCreate."""
        return create_container(self.parts, name, request, platform, self.lifecycle.publish)

    def container_start(self, id: str, *, detach_keys: str = "") -> None:
        """Engine API, ContainerStart."""
        self.lifecycle.start(id)

    def container_stop(self, id: str, *, signal: str = "", t: int | None = None) -> None:
        """Engine API, ContainerStop."""
        self.lifecycle.stop(id, t, signal or None)

    def container_restart(self, id: str, *, signal: str = "", t: int | None = None) -> None:
        """Engine API, ContainerRestart."""
        self.lifecycle.restart(id, t, signal or None)

    def container_kill(self, id: str, *, signal: str = "") -> None:
        """Engine API, ContainerKill."""
        self.lifecycle.kill(id, signal)

    def container_pause(self, id: str) -> None:
        """Engine API, ContainerPause."""
        self.lifecycle.pause(id)

    def container_unpause(self, id: str) -> None:
        """Engine API, ContainerUnpause."""
        self.lifecycle.unpause(id)

    def container_wait(self, id: str, *, condition: str = "") -> Future[ContainerWaitResponse]:
        """Engine API, ContainerWait."""
        return self.lifecycle.wait(id, condition)

    def container_attach(self, id: str, options: AttachOptions, fd: int) -> None:
        """Engine API, ContainerAttach."""
        if options.logs:
            self._replay(id, options, fd)
        if options.stream:
            self.lifecycle.attach(id, options, fd)

    def _replay(self, id: str, options: AttachOptions, fd: int) -> None:
        """Write what was logged so far to a client that attaches with `logs=1`."""
        past = LogsOptions(stdout=options.stdout, stderr=options.stderr)
        with closing(self.container_logs(id, past)) as stream, open(fd, "wb", closefd=False) as client:
            while not stream.finished:
                client.write(stream.read())

    def container_delete(self, id: str, *, v: bool = False, force: bool = False, link: bool = False) -> None:
        """Engine API, ContainerDelete."""
        if link:
            raise InvalidArgument("links are entries of /etc/hosts here: remove the container that has them")
        self.lifecycle.remove(id, force=force, volumes=v)

    def container_rename(self, id: str, *, name: str) -> None:
        """Engine API, ContainerRename."""
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        with self.parts.containers.locked(id) as container:
            if container.name == name.removeprefix("/"):
                raise InvalidArgument("Renaming a container with the same name as its current name")
            try:
                renamed = self.parts.containers.rename(container, names.check("/" + name.removeprefix("/")))
            except (Conflict, InvalidArgument) as error:
                raise type(error)(f"Error when allocating new name: {error}") from None
            self.parts.networks.rename(container.id, renamed.name)
        self.lifecycle.publish(renamed, "rename", oldName=f"/{container.name}")

    def container_update(self, id: str, request: ContainerUpdateRequest) -> ContainerUpdateResponse:
        """Engine API, ContainerUpdate."""
        warnings = check_update(request, this_host())
        with self.parts.containers.locked(id) as container:
            try:
                host = updated(container, request)
                if container.is_running:
                    told = with_lifted_limits(container.host_config, host)
                    self.lifecycle.task(container).update(limits(told, device_node))
            except (InvalidArgument, Conflict, Unsupported) as error:
                raise type(error)(f"Cannot update container {container.id}: {error}", hint=error.hint) from error
            self.parts.containers.save(msgspec.structs.replace(container, host_config=host))
        self.lifecycle.publish(container, "update")
        return ContainerUpdateResponse(warnings=warnings)

    def container_resize(self, id: str, *, h: int, w: int) -> None:
        """Engine API, ContainerResize."""
        container = self.parts.containers.get(id)
        if not container.is_running:
            raise Conflict(f"Container {container.id} is not running")
        self.lifecycle.task(container).resize(w, h)
        self.lifecycle.publish(container, "resize", height=str(h), width=str(w))

    # --- looking ------------------------------------------------------------------------------------------------

    def container_list(
        self, *, all: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None
    ) -> list[ContainerSummary]:
        """Engine API, ContainerList."""
        found = inspect.select(
            self.parts.containers, show_all=all, limit=limit, filters=filters or {}, health=self.health.of
        )
        image_name = cache(self._image_name)  # many containers of few images, and each question is one to the database
        lines = [
            inspect.summary(container, image_name(container.image, container.image_id), self.health.of(container.id))
            for container in found
        ]
        if size:
            for container, line in zip(found, lines, strict=True):
                line.size_rw, line.size_root_fs = self._sizes(container)
        return lines

    def _image_name(self, name: str, image_id: str) -> str:
        """The name a container was made from, or the image's ID where that name now means another image."""
        try:
            is_same = self.parts.images.get(name).id == image_id
        except NaruError:
            is_same = False
        return name if is_same else image_id

    def _sizes(self, container: Container) -> tuple[int, int]:
        own = self.parts.snapshots.usage(container.id)
        try:
            image = self.parts.images.get(container.image_id).size
        except NotFound:
            image = 0
        return own, own + image

    def container_inspect(self, id: str, *, size: bool = False) -> ContainerInspect:
        """Engine API, ContainerInspect."""
        container = self.parts.containers.get(id)
        shown = inspect.inspected(
            container, self.parts.paths, self.execs.running(container.id), self.health.of(container.id)
        )
        if size:
            shown.size_rw, shown.size_root_fs = self._sizes(container)
        return shown

    def container_top(self, id: str, *, ps_args: str = "") -> ContainerTop:
        """Engine API, ContainerTop."""
        container = self.parts.containers.get(id)
        if not container.is_running:
            raise Conflict(f"container {container.id} is not running")
        titles, rows = table(self.lifecycle.task(container).processes(), ps_args or "-ef")
        self.lifecycle.publish(container, "top")
        return ContainerTop(titles=titles, processes=rows)

    def container_stats(self, id: str, *, one_shot: bool = False) -> ContainerStats:
        """Engine API, ContainerStats: one sample; `precpu_stats` is filled by whoever keeps the sample before."""
        container = self.parts.containers.get(id)
        if not container.is_running:
            return ContainerStats(name=f"/{container.name}", id=container.id)
        return container_stats(container, self.lifecycle.task(container).stats(), time.time_ns())

    def container_logs(self, id: str, options: LogsOptions) -> LogStream:
        """Engine API, ContainerLogs."""
        if not (options.stdout or options.stderr):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        container = self.parts.containers.get(id)
        if not is_readable(container.host_config.log_config):
            raise Unreadable("configured logging driver does not support reading")
        stream = LogStream(
            str(self.parts.paths.log(container.id)),
            options,
            has_tty=container.config.tty,
            is_running=lambda: self.lifecycle.goes_on(container.id),
            on_close=lambda closed: self.lifecycle.forget_log(container.id, closed),
        )
        if options.follow:
            self.lifecycle.follow_log(container, stream)
        return stream

    def container_changes(self, id: str) -> list[FilesystemChange]:
        """Engine API, ContainerChanges."""
        container = self.parts.containers.get(id)
        kinds = {"modified": 0, "added": 1, "deleted": 2}
        changes = without_mount_points(self.parts.snapshots.changes(container.id))
        return [FilesystemChange(kind=kinds[change.kind], path=change.path) for change in changes]

    def container_prune(self, *, filters: Filters | None = None) -> ContainersPruneReport:
        """Engine API, ContainerPrune."""
        check_filters(filters or {}, AGE_AND_LABELS)
        until = parse_until(filters or {})
        deleted, reclaimed = [], 0
        for container in self.parts.containers.all():
            stopped = container.status in (Status.CREATED, Status.EXITED, Status.DEAD)
            if not stopped or not is_pruned(container.config.labels or {}, container.created_at, filters or {}, until):
                continue
            size = self.parts.snapshots.usage(container.id)
            try:
                self.lifecycle.remove(container.id, force=False, volumes=False)
            except (NotFound, Conflict):
                continue
            deleted.append(container.id)
            reclaimed += size
        return ContainersPruneReport(containers_deleted=deleted or None, space_reclaimed=reclaimed)

    # --- exec ---------------------------------------------------------------------------------------------------

    def container_exec(self, id: str, request: ExecCreateRequest) -> ExecCreateResponse:
        """Engine API, ContainerExec."""
        return ExecCreateResponse(id=self.execs.create(id, request))

    def exec_start(self, id: str, request: ExecStartRequest, fd: int | None, prefix: bytes = b"") -> None:
        """Engine API, ExecStart."""
        self.execs.start(id, request, fd, prefix)

    def exec_inspect(self, id: str) -> ExecInspect:
        """Engine API, ExecInspect."""
        return self.execs.inspect(id)

    def exec_resize(self, id: str, *, h: int, w: int) -> None:
        """Engine API, ExecResize."""
        self.execs.resize(id, h, w)


class Unreadable(NaruError):
    """The container's log cannot be read back (HTTP 500, as Docker answers)."""
