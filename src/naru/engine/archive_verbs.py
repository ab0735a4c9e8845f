"""The Engine API's operations on a container's files: archive out and in, export.

Nothing holds a container's lock while a client is waited for, but for writing into a container that does not run: it
cannot start before that is over, because two mounts of one upper directory would be at work.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from typing import BinaryIO

from naru.api.container import PathStat
from naru.engine import archive
from naru.engine.container import Container, Status
from naru.engine.filesystem import Filesystems
from naru.engine.lifecycle import Lifecycle
from naru.engine.parts import Parts
from naru.errors import Conflict, InvalidArgument, NaruError, NotFound
from naru.image.tar_writer import TarWriter
from naru.image.unpack import extract
from naru.kernel.openat2 import openat2
from naru.oci.runtime import User


class ArchiveVerbs:
    """Archive operations over the engine's parts."""

    parts: Parts
    lifecycle: Lifecycle
    filesystems: Filesystems

    def container_archive_info(self, id: str, path: str) -> PathStat:
        """Engine API, ContainerArchiveInfo."""
        container = self._with_files(id, "copy from")
        with self.filesystems.reading(container) as root, archive.placed(root, path, id) as place:
            return archive.path_stat(root, path, place)

    def container_archive(self, id: str, path: str) -> tuple[PathStat, Callable[[BinaryIO], None]]:
        """Engine API, ContainerArchive: the stat, and what writes the tar. Nothing is held between the two."""
        container = self._with_files(id, "copy from")
        found = self.container_archive_info(id, path)

        def write(sink: BinaryIO) -> None:
            with self.filesystems.reading(container) as root, archive.placed(root, path, id) as place:
                self.lifecycle.publish(container, "archive-path")
                tar = TarWriter(sink.write)
                archive.pack(place, tar)
                self._still_there(container)
                tar.finish()

        return found, write

    def put_container_archive(
        self, id: str, path: str, source: BinaryIO, *, no_overwrite_dir_non_dir: bool = False, copy_uidgid: bool = False
    ) -> None:
        """Engine API, PutContainerArchive."""
        container = self._with_files(id, "copy to")
        with self.filesystems.writing(container) as root, archive.extraction_point(root, path, id) as directory:
            _refuse_read_only(container, root, directory)
            owner = _owner(root, container.config.user) if copy_uidgid and container.config.user else None
            try:
                extract(
                    source,
                    root,
                    os.fsencode(archive.clean(path).lstrip("/")),
                    keep_directories=no_overwrite_dir_non_dir,
                    owner=owner,
                )
            except ConnectionError:
                raise
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise NaruError(f"Error processing tar file: {error.strerror or error}") from error
        self.lifecycle.publish(container, "extract-to-dir")

    def container_export(self, id: str, sink: BinaryIO) -> None:
        """Engine API, ContainerExport: the layers as one tar, nothing that is mounted on them."""
        container = self._with_files(id, "export")
        with self.filesystems.layers(container) as root:
            tar = TarWriter(sink.write)
            directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
            try:
                archive.pack_below(directory, tar)
            finally:
                os.close(directory)
            self._still_there(container)
            tar.finish()
        self.lifecycle.publish(container, "export")

    def _with_files(self, id: str, verb: str) -> Container:
        container = self.parts.containers.get(id)
        if container.status is Status.DEAD:
            raise Conflict(f"You cannot {verb} container {container.id} which is Dead")
        if container.status is Status.REMOVING:
            raise Conflict(f"You cannot {verb} container {container.id} which is being removed")
        return container

    def _still_there(self, container: Container) -> None:
        """NotFound if the container was removed while it was read: what was read is not all of it."""
        if self.parts.containers.get(container.id).status is Status.REMOVING:
            raise NotFound(f"No such container: {container.id}")


def _refuse_read_only(container: Container, root: int, directory: int) -> None:
    """InvalidArgument, in Docker's words: what is to be written to is read-only, to the container or altogether."""
    is_on_root = os.stat(directory).st_dev == os.stat(root).st_dev
    if is_on_root and container.host_config.readonly_rootfs:
        raise InvalidArgument("container rootfs is marked read-only")
    if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
        raise InvalidArgument("mounted volume is marked read-only")


def _owner(root: int, user: str) -> tuple[int, int]:
    """Return the numbers of `user[:group]` by the container's own files. InvalidArgument: no such name."""
    from naru.runtime.identity import look_up  # needed with `cp -a` alone
    from naru.runtime.step import Refused

    with ExitStack() as close:
        passwd, group = (_plain_file(root, path, close) for path in ("/etc/passwd", "/etc/group"))
        try:
            identity = look_up(User(username=user), passwd, group)
        except Refused as error:
            raise InvalidArgument(str(error)) from error
    return identity.uid, identity.gid


def _plain_file(root: int, path: str, close: ExitStack) -> str:
    """Return a path to a regular file of the container's; to nothing if it is none."""
    try:
        descriptor = openat2(root, path, os.O_PATH)
    except OSError:
        return os.devnull
    close.callback(os.close, descriptor)
    return f"/proc/self/fd/{descriptor}" if stat.S_ISREG(os.fstat(descriptor).st_mode) else os.devnull
