"""/dev: the nodes and links every container has, the devices a spec adds, and the console.

OCI runtime-spec, config-linux.md, Default Devices and Dev symbolic links.
"""

from __future__ import annotations

import errno
import os
import stat

from naru.errors import InvalidArgument
from naru.kernel import mount as m
from naru.kernel.terminal import open_pty, set_window_size
from naru.oci.runtime import Box, Device, Spec
from naru.runtime import rooted, sync
from naru.runtime.step import Refused, Step, Workspace

_DEFAULT_DEVICES = (
    Device(type="c", path="/dev/null", major=1, minor=3, file_mode=0o666),
    Device(type="c", path="/dev/zero", major=1, minor=5, file_mode=0o666),
    Device(type="c", path="/dev/full", major=1, minor=7, file_mode=0o666),
    Device(type="c", path="/dev/random", major=1, minor=8, file_mode=0o666),
    Device(type="c", path="/dev/urandom", major=1, minor=9, file_mode=0o666),
    Device(type="c", path="/dev/tty", major=5, minor=0, file_mode=0o666),
)
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class MakeDevices(Step, frozen=True):
    """Make device nodes; where the kernel forbids it (a user namespace), bind the host's node of the same path."""

    devices: tuple[Device, ...]

    def __str__(self) -> str:
        return "make devices"

    def run(self, work: Workspace) -> None:
        parents: dict[str, int] = {}
        try:
            for device in self.devices:
                directory, name = os.path.split(device.path)
                if directory not in parents:
                    parents[directory] = rooted.make_directory(work.root_fd, directory)
                try:
                    self._make(device, name, parents[directory], work)
                except OSError as error:
                    raise OSError(error.errno, error.strerror, device.path) from error
        finally:
            for fd in parents.values():
                os.close(fd)

    def _make(self, device: Device, name: str, parent: int, work: Workspace) -> None:
        kind, number = _KINDS[device.type], os.makedev(device.major, device.minor)
        mode = device.file_mode if device.file_mode is not None else 0o666
        try:
            os.mknod(name, kind | stat.S_IMODE(mode), number, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(found.st_mode) != kind or (kind != stat.S_IFIFO and found.st_rdev != number):
                raise Refused(f"{device.path} exists and is something else") from None
            return
        except PermissionError:
            self._bind(device.path, work)
            return
        if device.uid or device.gid:
            os.chown(name, device.uid or 0, device.gid or 0, dir_fd=parent, follow_symlinks=False)

    def _bind(self, path: str, work: Workspace) -> None:
        tree = m.open_tree(m.AT_FDCWD, path, clone=True)
        target = rooted.make_file(work.root_fd, path)
        try:
            m.mount_setattr(tree, propagation=m.MS_PRIVATE)
            m.move_mount(tree, target)
        finally:
            os.close(tree)
            os.close(target)


class LinkDevices(Step, frozen=True):
    """Make the symbolic links of /dev."""

    def __str__(self) -> str:
        return "make links in /dev"

    def run(self, work: Workspace) -> None:
        directory = rooted.make_directory(work.root_fd, "/dev")
        try:
            for name, target in _LINKS:
                if name == "core" and not os.path.exists(target):  # a kernel without it; the host's procfs is in view
                    continue
                try:
                    os.symlink(target, name, dir_fd=directory)
                except FileExistsError:
                    if name == "ptmx" and not stat.S_ISLNK(
                        os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
                    ):
                        os.unlink(name, dir_fd=directory)
                        os.symlink(target, name, dir_fd=directory)
        finally:
            os.close(directory)


class OpenConsole(Step, frozen=True):
    """Open a terminal in the container's own devpts, put it at /dev/console, and send its master to the parent."""

    size: Box | None
    at_console: bool = True

    def __str__(self) -> str:
        return "open console"

    def run(self, work: Workspace) -> None:
        if work.devpts_fd < 0:
            work.devpts_fd = rooted.open_in_root(work.root_fd, "/dev/pts", os.O_PATH | os.O_DIRECTORY)
        if m.filesystem_magic(work.devpts_fd) != m.DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENODEV, "no devpts is mounted", "/dev/pts")
        master, slave = open_pty(work.devpts_fd)
        if self.size is not None and (self.size.width or self.size.height):
            set_window_size(master, columns=self.size.width, rows=self.size.height)
        if self.at_console:
            self._bind(slave, work)
        sync.send(work.channel, sync.CONSOLE, master)
        os.close(master)
        work.console = slave

    def _bind(self, slave: int, work: Workspace) -> None:
        """The target is a file that was just made with O_EXCL in a directory held open (CVE-2025-52565)."""
        directory = rooted.make_directory(work.root_fd, "/dev")
        try:
            try:
                os.unlink("console", dir_fd=directory)
            except FileNotFoundError:
                pass
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open("console", flags, 0o600, dir_fd=directory)
            tree = m.open_tree(slave, "", clone=True)
            try:
                m.move_mount(tree, target)
            finally:
                os.close(tree)
                os.close(target)
        finally:
            os.close(directory)


def plan_devices(spec: Spec) -> list[Step]:
    """Return the steps that fill /dev; none if the spec binds a /dev of its own. InvalidArgument: a bad device."""
    linux = spec.linux
    own_dev = any(
        mount.destination.rstrip("/") == "/dev" and (mount.type == "bind" or {"bind", "rbind"} & set(mount.options))
        for mount in spec.mounts
    )
    devices = {} if own_dev else {device.path: device for device in _DEFAULT_DEVICES}
    for device in linux.devices if linux else []:
        if device.type not in _KINDS or not device.path.startswith("/"):
            raise InvalidArgument(f"device {device.path}: invalid type {device.type!r} or path")
        devices[os.path.normpath(device.path)] = device
    steps: list[Step] = []
    if devices:
        steps.append(MakeDevices(tuple(devices.values())))
    if not own_dev:
        steps.append(LinkDevices())
    return steps
