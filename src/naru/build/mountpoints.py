"""Places for mounts that leave nothing behind in the layer a step makes.

A step gets mounts (/proc, /etc/resolv.conf, cache directories …) at places that the image may not have. They are made
in a throwaway layer between the image and the step's own upper directory, so that what the step's upper directory
holds afterwards is only what the step did. Directories copied up into the throwaway layer keep the image's metadata.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable
from pathlib import Path

from naru.build.filetree import clean_path
from naru.build.place import Attributes, make_directories
from naru.kernel.openat2 import openat2
from naru.kernel.overlay import overlay as mount_overlay
from naru.oci.runtime import Mount
from naru.runtime.rootfs import Overlay


def with_mountpoints(layers: Overlay, mounts: Iterable[Mount], directory: Path) -> Overlay:
    """Return `layers` with a lower layer in `directory` on top that has a place for each of `mounts`.

    `directory` belongs to the caller, lies on the file system of the snapshots, and goes after the step.
    """
    upper, work = directory / "mountpoints", directory / "mountpoints-work"
    upper.mkdir(mode=0o755)
    work.mkdir(mode=0o700)
    relative = os.path.relpath(upper, layers.base)
    below = (layers.upper, *layers.lower)
    root_fd = mount_overlay(below, relative, os.path.relpath(work, layers.base), base=layers.base)
    try:
        for mount in _outermost(mounts):
            _make_place(root_fd, mount)
    finally:
        os.close(root_fd)
    return Overlay(base=layers.base, lower=(relative, *layers.lower), upper=layers.upper, work=layers.work)


def _outermost(mounts: Iterable[Mount]) -> list[Mount]:
    """Leave out what lies inside another mount: its place is made there, by the runtime."""
    sorted_ = sorted(mounts, key=lambda mount: mount.destination.count("/"))
    kept: list[Mount] = []
    for mount in sorted_:
        inside = any((mount.destination + "/").startswith(outer.destination.rstrip("/") + "/") for outer in kept)
        if not inside:
            kept.append(mount)
    return kept


def _make_place(root_fd: int, mount: Mount) -> None:
    path = clean_path(mount.destination)
    try:
        os.close(openat2(root_fd, path or ".", os.O_PATH))
        return
    except FileNotFoundError:
        pass
    if mount.type == "bind" and not _is_directory(mount.source):
        directory, name = posixpath.split(path)
        parent = make_directories(root_fd, directory, Attributes())
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=parent))
        except FileExistsError:
            pass  # a symlink that points nowhere: the runtime follows it inside the root
        finally:
            os.close(parent)
        return
    os.close(make_directories(root_fd, path, Attributes()))


def _is_directory(source: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(source).st_mode)
    except OSError:
        return False
