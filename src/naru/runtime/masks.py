"""Hiding and protecting paths of the container: masked paths and read-only paths.

What gets mounted is made by us (an empty read-only tmpfs) or checked to be what it must be (the host's /dev/null),
and is attached to a descriptor of the path; afterwards the path is opened again to see that the mask is what a
process would find there (CVE-2025-31133, CVE-2025-52881). OCI runtime-spec, config-linux.md.
"""

from __future__ import annotations

import errno
import os
import stat

from naru.kernel import mount as m
from naru.runtime import rooted
from naru.runtime.step import Refused, Step, Workspace

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_LOCKED_DOWN = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
_NULL_DEVICE = os.makedev(1, 3)


class MaskPath(Step, frozen=True):
    """Make a file read as empty and a directory as empty; a path that does not exist is left alone."""

    path: str

    def __str__(self) -> str:
        return f"mask {self.path}"

    def run(self, work: Workspace) -> None:
        target = _open_if_present(work, self.path)
        if target is None:
            return
        directory = rooted.is_directory(target)
        tree = _empty_directory(work) if directory else _null_file()
        try:
            m.move_mount(tree, target)
        finally:
            os.close(target)
            if tree != work.mask_fd:
                os.close(tree)
        self._verify(work, directory)

    def _verify(self, work: Workspace, directory: bool) -> None:
        seen = rooted.open_in_root(work.root_fd, self.path)
        try:
            status = os.fstat(seen)
            if directory:
                hidden = status.st_dev == os.fstat(work.mask_fd).st_dev
            else:
                hidden = stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE
        finally:
            os.close(seen)
        if not hidden:
            raise Refused("something else is mounted there")


class ReadOnlyPath(Step, frozen=True):
    """Make a path and what is below it unwritable through this path; one that does not exist is left alone."""

    path: str

    def __str__(self) -> str:
        return f"make {self.path} read-only"

    def run(self, work: Workspace) -> None:
        target = _open_if_present(work, self.path)
        if target is None:
            return
        tree = m.open_tree(target, "", clone=True, recursive=True)
        try:
            m.mount_setattr(tree, attr_set=m.MOUNT_ATTR_RDONLY, propagation=m.MS_PRIVATE, recursive=True)
            m.move_mount(tree, target)
        finally:
            os.close(tree)
            os.close(target)
        seen = rooted.open_in_root(work.root_fd, self.path)
        try:
            if not os.fstatvfs(seen).f_flag & os.ST_RDONLY:
                raise Refused("it is still writable")
        finally:
            os.close(seen)


def _open_if_present(work: Workspace, path: str) -> int | None:
    try:
        return rooted.open_in_root(work.root_fd, path)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _empty_directory(work: Workspace) -> int:
    """One read-only tmpfs serves every masked directory: the first mount of it, then copies of that."""
    if work.mask_fd < 0:
        work.mask_fd = m.new_mount("tmpfs", [("source", "tmpfs"), ("size", "4k"), ("nr_inodes", "1")], _LOCKED_DOWN)
        return work.mask_fd
    return m.open_tree(work.mask_fd, "", clone=True)


def _null_file() -> int:
    """The host's null device on a read-only mount: its mode and owner cannot be changed through the mask."""
    tree = m.open_tree(m.AT_FDCWD, "/dev/null", clone=True)
    status = os.fstat(tree)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _NULL_DEVICE:
        os.close(tree)
        raise Refused("/dev/null of this host is not the null device")
    m.mount_setattr(
        tree, attr_set=m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOEXEC, propagation=m.MS_PRIVATE
    )
    return tree
