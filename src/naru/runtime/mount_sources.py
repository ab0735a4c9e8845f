"""Where a bind's tree comes from: a directory of the host, a part of it, a stack of layers, another container's mount.

Each source is a detached copy in `Workspace.sources`, taken before the root is built, and attached by `mounts.Bind`.
"""

from __future__ import annotations

import errno
import os
import re

from naru.errors import InvalidArgument
from naru.kernel import mount as m
from naru.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from naru.kernel.overlay import overlay
from naru.kernel.process import CLONE_NEWNS, setns
from naru.oci.runtime import Mount
from naru.runtime.step import Refused, Step, Workspace

_OTHERS_ROOT = re.compile(r"/proc/(\d+)/root/(.+)\Z")


class Source(Step, frozen=True):
    """What takes the source `index`; `name` is what people know it by."""

    index: int

    @property
    def name(self) -> str:
        raise NotImplementedError

    def __str__(self) -> str:
        return f"mount source {self.name}"


class CloneSource(Source, frozen=True):
    """Take a detached copy of a bind's source, as the host sees it."""

    path: str
    recursive: bool
    subpath: str = ""

    @property
    def name(self) -> str:
        return f"{self.path}/{self.subpath}" if self.subpath else self.path

    def run(self, work: Workspace) -> None:
        if not self.subpath:
            work.sources[self.index] = m.open_tree(m.AT_FDCWD, self.path, clone=True, recursive=self.recursive)
            return
        top = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            work.sources[self.index] = clone_beneath(top, self.subpath, recursive=self.recursive)
        finally:
            os.close(top)


def clone_beneath(top: int, subpath: str, *, recursive: bool) -> int:
    """Return a detached copy of `subpath` below the directory `top`.

    Whoever can write there may turn any part of it into a symbolic link at any time: one that leads out is refused by
    the kernel while it resolves, and what was opened is what is copied (CVE-2017-1002101, CVE-2021-25741 elsewhere).
    """
    try:
        found = openat2(top, subpath, os.O_PATH, resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise Refused("subpath leads outside of it") from None
        raise OSError(
            error.errno, f"cannot access subpath {subpath}: {os.strerror(error.errno or 0).lower()}"
        ) from None
    try:
        return m.open_tree(found, "", clone=True, recursive=recursive)
    finally:
        os.close(found)


class CloneLayers(Source, frozen=True):
    """Take a read-only overlay of layers, or a part of it. Comes after the tree was cut off from the host's.

    Linux before 6.15 copies no part of a detached tree, so it is attached for a moment where the root will be.
    """

    layers: tuple[str, ...]
    subpath: str
    place: str

    @property
    def name(self) -> str:
        return f"image/{self.subpath}" if self.subpath else "image"

    def run(self, work: Workspace) -> None:
        base = os.path.commonpath([os.path.dirname(layer) for layer in self.layers])
        if base == "/":
            raise Refused("layers have no directory in common")  # on which older kernels mount, out of everybody's view
        tree = overlay([os.path.relpath(layer, base) for layer in self.layers], None, None, base=base)
        if not self.subpath:
            work.sources[self.index] = tree
            return
        try:
            place = os.open(self.place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                m.move_mount(tree, place)
            finally:
                os.close(place)
            try:
                work.sources[self.index] = clone_beneath(tree, self.subpath, recursive=False)
            finally:
                m.umount2(self.place, m.MNT_DETACH)
        finally:
            os.close(tree)


class CloneElsewhere(Source, frozen=True):
    """Take a copy of what another container has mounted, from inside its mount namespace: only there it may be.

    The place was opened before, without following a link of that container's.
    """

    pid: int
    path: str

    @property
    def name(self) -> str:
        return f"/{self.path} of process {self.pid}"

    def run(self, work: Workspace) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC
        here = os.open("/proc/self/ns/mnt", flags)
        there = root = found = -1
        try:
            there = os.open(f"/proc/{self.pid}/ns/mnt", flags)
            root = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            found = openat2(root, self.path, os.O_PATH, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            setns(there, CLONE_NEWNS)
            try:
                tree = m.open_tree(found, "", clone=True)
            finally:
                setns(here, CLONE_NEWNS)
            m.mount_setattr(tree, propagation=m.MS_PRIVATE)
            work.sources[self.index] = tree
        finally:
            for fd in (here, there, root, found):
                if fd >= 0:
                    os.close(fd)


def plan_source(index: int, mount: Mount, bundle: str, *, recursive: bool) -> Source:
    """Return the step that takes the source of the bind `mount`. InvalidArgument: it has none that can be."""
    if mount.layers:
        return CloneLayers(index, tuple(mount.layers), mount.subpath, f"{bundle}/rootfs")
    elsewhere = _OTHERS_ROOT.match(mount.source)
    if elsewhere is not None:
        if mount.subpath:
            raise InvalidArgument(f"mount {mount.destination}: no subpath of another container's mount")
        return CloneElsewhere(index, int(elsewhere[1]), elsewhere[2])
    return CloneSource(index, os.path.join(bundle, mount.source), recursive, mount.subpath)
