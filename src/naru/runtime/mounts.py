"""The mounts of a spec as steps: sources cloned while the host's tree is in view, then attached inside the root.

Every mount is made detached, gets its attributes, and only then appears at a target that was resolved inside the
root and is used by descriptor. Sources are cloned before the tree is cut off from the host's, so that `shared` and
`slave` binds are still peers of what they came from. OCI runtime-spec, config.md, Mounts.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from naru.errors import InvalidArgument, Unsupported
from naru.kernel import mount as m
from naru.kernel.openat2 import RESOLVE_NO_SYMLINKS
from naru.oci.runtime import Mount
from naru.runtime import rooted
from naru.runtime.mount_options import Options, parse_options
from naru.runtime.mount_sources import plan_source
from naru.runtime.step import Refused, Step, Workspace

if TYPE_CHECKING:
    from naru.runtime.cgroup import Cgroup
    from naru.runtime.cgroup_stats import CgroupMount

# What may be bound over a file of procfs: programs such as lxcfs give containers their own view of these.
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev"),
        *("sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
)
_WRONG_KIND = (
    "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


class Bind(Step, frozen=True):
    """Attach a cloned source inside the root."""

    index: int
    source: str
    destination: str
    options: Options

    def __str__(self) -> str:
        return f"mount {self.source} at {self.destination}"

    def run(self, work: Workspace) -> None:
        tree = _clone_again(work.sources.pop(self.index), recursive=self.options.recursive_bind)
        try:
            if rooted.is_directory(tree):
                target = rooted.make_directory(work.root_fd, self.destination)
            else:
                target = rooted.make_file(work.root_fd, self.destination)
            try:
                self._refuse_procfs(target, tree)
                apply_options(tree, self.options, default_propagation=(m.MS_PRIVATE, True))
                m.move_mount(tree, target)
            finally:
                os.close(target)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.EISDIR):
                raise Refused(_WRONG_KIND) from None
            raise
        finally:
            os.close(tree)

    def _refuse_procfs(self, target: int, tree: int) -> None:
        """A bind inside /proc could hide what later steps write to or mask."""
        if m.filesystem_magic(target) != m.PROC_SUPER_MAGIC or self.destination in _PROC_FILES:
            return
        if self.destination == "/proc" and m.filesystem_magic(tree) == m.PROC_SUPER_MAGIC:
            return
        raise Refused(f'"{self.destination}" cannot be mounted because it is inside /proc')


def _clone_again(tree: int, *, recursive: bool) -> int:
    """Return a copy of a detached tree in its place, made now: Linux lists a namespace's mounts by age (since 6.8).

    Programs expect a mount below the one it is on; and the specification's order can be read off nothing else.
    Linux before 6.15 cannot copy a detached tree.
    """
    try:
        copy = m.open_tree(tree, "", clone=True, recursive=recursive)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return tree
    os.close(tree)
    return copy


class NewFilesystem(Step, frozen=True):
    """Mount a new filesystem (proc, sysfs, tmpfs, devpts, mqueue …) inside the root."""

    kind: str
    source: str
    destination: str
    options: Options

    def __str__(self) -> str:
        return f"mount {self.kind} at {self.destination}"

    def run(self, work: Workspace) -> None:
        existed = self._exists(work)
        target = self._target(work)
        tree = -1
        try:
            parameters = list(self.options.data)
            has_mode = any(key == "mode" for key, _value in parameters)
            if self.kind == "tmpfs" and existed and not has_mode:  # one that is new here has tmpfs's own, 1777
                parameters.append(("mode", f"{stat.S_IMODE(os.fstat(target).st_mode):o}"))
            tree = m.new_mount(self.kind, [("source", self.source or self.kind), *parameters])
            if self.options.copy_up:
                _copy_up(target, tree, with_mode=not has_mode)
            apply_options(tree, self.options)
            m.move_mount(tree, target)
            if self.kind == "devpts":
                work.devpts_fd, tree = tree, -1
        finally:
            os.close(target)
            if tree >= 0:
                os.close(tree)

    def _exists(self, work: Workspace) -> bool:
        try:
            os.close(rooted.open_in_root(work.root_fd, self.destination))
        except OSError:
            return False
        return True

    def _target(self, work: Workspace) -> int:
        """procfs and sysfs go on a real directory only: a link could put masks elsewhere (CVE-2019-19921)."""
        target = rooted.make_directory(work.root_fd, self.destination)
        if self.kind in ("proc", "sysfs"):
            os.close(target)
            flags = os.O_PATH | os.O_DIRECTORY
            try:
                return rooted.open_in_root(work.root_fd, self.destination, flags, resolve=RESOLVE_NO_SYMLINKS)
            except OSError:
                raise Refused(f'filesystem "{self.kind}" must be mounted on an ordinary directory') from None
        return target


class MountCgroups(Step, frozen=True):
    """Show the container its own cgroups."""

    destination: str
    options: Options
    cgroup: Cgroup
    private: bool

    def __str__(self) -> str:
        return f"mount cgroup at {self.destination}"

    def run(self, work: Workspace) -> None:
        view = self.cgroup.view(private=self.private)
        target = rooted.make_directory(work.root_fd, self.destination)
        try:
            if not view.tmpfs:
                for entry in view.mounts:
                    self._attach(entry, target)
                return
            top = m.new_mount("tmpfs", [("source", "tmpfs"), ("mode", "755")])
            try:
                for entry in view.mounts:
                    os.mkdir(entry.destination, 0o755, dir_fd=top)
                for name, link in view.links:
                    os.symlink(link, name, dir_fd=top)
                apply_options(top, self.options)
                m.move_mount(top, target)
                for entry in view.mounts:
                    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                    place = os.open(entry.destination, flags, dir_fd=top)
                    self._attach(entry, place)
                    os.close(place)
            finally:
                os.close(top)
        finally:
            os.close(target)

    def _attach(self, entry: CgroupMount, place: int) -> None:
        if entry.source:
            tree = m.open_tree(m.AT_FDCWD, entry.source, clone=True)
            m.mount_setattr(tree, propagation=m.MS_PRIVATE)
        else:
            words = [word.partition("=") for word in entry.data.split(",") if word]
            parameters = [(key, value if equals else None) for key, equals, value in words]
            tree = m.new_mount(entry.type, [("source", "cgroup"), *parameters])
        try:
            apply_options(tree, self.options)
            m.move_mount(tree, place)
        finally:
            os.close(tree)


def plan_mounts(
    mounts: list[Mount], bundle: str, *, cgroup: Cgroup | None, private_cgroup: bool
) -> tuple[list[Step], list[Step]]:
    """Return (steps that clone sources, steps that attach) for the spec's mounts, in the spec's order.

    InvalidArgument: a destination that is not absolute, or no filesystem type.
    """
    sources: list[Step] = []
    attach: list[Step] = []
    for index, mount in enumerate(mounts):
        destination = os.path.normpath("/" + mount.destination.lstrip("/"))
        options = parse_options(mount.options)
        if options.idmap or mount.uid_mappings or mount.gid_mappings:
            raise Unsupported(f"mount {destination}: ID-mapped mounts are not supported")
        if options.bind or mount.type == "bind":
            source = plan_source(index, mount, bundle, recursive=options.recursive_bind)
            sources.append(source)
            attach.append(Bind(index, source.name, destination, options))
        elif mount.type in ("cgroup", "cgroup2"):
            if cgroup is not None:
                attach.append(MountCgroups(destination, options, cgroup, private_cgroup))
        elif mount.type:
            attach.append(NewFilesystem(mount.type, mount.source, destination, options))
        else:
            raise InvalidArgument(f"mount {destination}: no type")
    return sources, attach


def apply_options(tree: int, options: Options, default_propagation: tuple[int, bool] | None = None) -> None:
    """Give a detached mount its attributes and propagation."""
    if options.attr_set or options.attr_clr:
        m.mount_setattr(tree, attr_set=options.attr_set, attr_clr=_clear_bits(options.attr_set, options.attr_clr))
    if options.recursive_set or options.recursive_clr:
        clear = _clear_bits(options.recursive_set, options.recursive_clr)
        m.mount_setattr(tree, attr_set=options.recursive_set, attr_clr=clear, recursive=True)
    propagation = options.propagation or ((default_propagation,) if default_propagation else ())
    for flag, recursive in propagation:
        m.mount_setattr(tree, propagation=flag, recursive=recursive)


def _clear_bits(attr_set: int, attr_clr: int) -> int:
    """The access-time modes are one field: the kernel wants all of it cleared or none. mount_setattr(2)"""
    if (attr_set | attr_clr) & m.MOUNT_ATTR__ATIME:
        return attr_clr | m.MOUNT_ATTR__ATIME
    return attr_clr


def _copy_up(target: int, tree: int, *, with_mode: bool) -> None:
    """Copy the directory `target` to the new tmpfs `tree`, with owners, modes and links."""
    source = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
    copy = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        mode = stat.S_IMODE(os.fstat(copy).st_mode)
        _copy_entries(source, copy)
        _copy_attributes(source, copy)
        if not with_mode:
            os.fchmod(copy, mode)
    finally:
        os.close(source)
        os.close(copy)


def _copy_entries(source: int, copy: int) -> None:
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=copy)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=copy, follow_symlinks=False)
        elif stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=copy)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below, made = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=copy)
            try:
                _copy_entries(below, made)
                _copy_attributes(below, made)
            finally:
                os.close(below)
                os.close(made)
        elif stat.S_ISREG(status.st_mode):
            read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            write = os.open(name, flags, 0o600, dir_fd=copy)
            try:
                while os.sendfile(write, read, None, 1 << 30):
                    pass
                _copy_attributes(read, write)
            finally:
                os.close(read)
                os.close(write)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=copy)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=copy, follow_symlinks=False)


def _copy_attributes(source: int, copy: int) -> None:
    status = os.fstat(source)
    os.fchown(copy, status.st_uid, status.st_gid)
    os.fchmod(copy, stat.S_IMODE(status.st_mode))
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
