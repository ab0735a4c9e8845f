"""From a spec to the steps that build a container's root and enter it.

The order is the plan. Each step says why it cannot come earlier or later where that is not plain:

    clone bind sources      while the host's tree is in view and its mounts are still peers
    cut the tree off        so that nothing below propagates back to the host
    root                    the overlay or the bundle's directory
    spec mounts             in the spec's order
    devices, console        need /dev and /dev/pts
    container hooks         the root is complete, the host is still in view
    sysctls                 through the host's own procfs, which no image can have replaced (CVE-2019-16884)
    read-only, masked paths after everything that writes there
    pivot                   the host's tree is gone
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from naru.errors import InvalidArgument
from naru.kernel import mount as m
from naru.kernel.loopback import bring_loopback_up
from naru.kernel.overlay import overlay
from naru.kernel.process import setdomainname, sethostname
from naru.oci.runtime import Hook, Spec, State
from naru.runtime import rooted
from naru.runtime.device import OpenConsole, plan_devices
from naru.runtime.hooks import run_hooks
from naru.runtime.masks import MaskPath, ReadOnlyPath
from naru.runtime.mount_options import propagation_flags
from naru.runtime.mount_sources import CloneLayers
from naru.runtime.mounts import plan_mounts
from naru.runtime.step import Refused, Step, Workspace

if TYPE_CHECKING:
    from naru.runtime.cgroup import Cgroup

# Sysctls that belong to a namespace, by the namespace that must not be the host's.
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


class Overlay(Struct, frozen=True):
    """An overlay that the container's own process mounts: directories relative to `base`, `lower` topmost first."""

    base: str
    lower: tuple[str, ...]
    upper: str
    work: str


class CutOff(Step, frozen=True):
    """Set the propagation of every mount in view: by default changes of the host come in and none go out."""

    flag: int = m.MS_SLAVE
    recursive: bool = True

    def __str__(self) -> str:
        return "cut the mounts off from the host's"

    def run(self, work: Workspace) -> None:
        m.mount(None, "/", None, self.flag | (m.MS_REC if self.recursive else 0))


class MountOverlay(Step, frozen=True):
    """Mount the overlay as the root, at a directory of the bundle."""

    layers: Overlay
    target: str

    def __str__(self) -> str:
        return f"mount overlay at {self.target}"

    def run(self, work: Workspace) -> None:
        layers = self.layers
        tree = overlay(layers.lower, layers.upper or None, layers.work or None, base=layers.base)
        _attach_root(work, tree, self.target)


class BindRoot(Step, frozen=True):
    """Make a directory, with what is mounted below it, the root."""

    path: str

    def __str__(self) -> str:
        return f"bind root {self.path}"

    def run(self, work: Workspace) -> None:
        tree = m.open_tree(m.AT_FDCWD, self.path, clone=True, recursive=True)
        if not rooted.is_directory(tree):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.path)
        m.mount_setattr(tree, propagation=m.MS_SLAVE, recursive=True)
        _attach_root(work, tree, self.path)


def _attach_root(work: Workspace, tree: int, path: str) -> None:
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    m.move_mount(tree, target)
    os.close(target)
    work.root_fd = tree


class DetachRoot(Step, frozen=True):
    """Make a copy of a directory, with what is mounted below it, the root, attached nowhere.

    For a container in the mount namespace of another, which is to see nothing of its mounts. They go when its last
    process ends. Linux before 6.15 cannot mount below such a tree: the first mount fails with EINVAL.
    """

    path: str

    def __str__(self) -> str:
        return f"copy root {self.path}"

    def run(self, work: Workspace) -> None:
        tree = m.open_tree(m.AT_FDCWD, self.path, clone=True, recursive=True)
        if not rooted.is_directory(tree):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.path)
        m.mount_setattr(tree, propagation=m.MS_PRIVATE, recursive=True)
        work.root_fd = tree


class MakeWorkingDirectory(Step, frozen=True):
    """Make the process's working directory if the image has none, before the root may turn read-only."""

    path: str

    def __str__(self) -> str:
        return f"make working directory {self.path}"

    def run(self, work: Workspace) -> None:
        try:
            os.close(rooted.make_directory(work.root_fd, self.path))
        except OSError:
            pass  # entering it will say what is wrong, in the words people know


class SetSysctl(Step, frozen=True):
    """Write one namespaced kernel parameter."""

    name: str
    value: str

    def __str__(self) -> str:
        return f'write sysctl "{self.name}"'

    def run(self, work: Workspace) -> None:
        write_procfs("sys/" + _sysctl_path(self.name), self.value)


class ReadOnlyRoot(Step, frozen=True):
    """Make the root's own mount read-only; mounts below keep their own say."""

    def __str__(self) -> str:
        return "make the root read-only"

    def run(self, work: Workspace) -> None:
        m.mount_setattr(work.root_fd, attr_set=m.MOUNT_ATTR_RDONLY)


class RootPropagation(Step, frozen=True):
    """Set the propagation of the finished root."""

    flag: int
    recursive: bool

    def __str__(self) -> str:
        return "set the root's propagation"

    def run(self, work: Workspace) -> None:
        m.mount_setattr(work.root_fd, propagation=self.flag, recursive=self.recursive)


class Pivot(Step, frozen=True):
    """Make the root the root, and let go of the host's tree."""

    def __str__(self) -> str:
        return "pivot_root"

    def run(self, work: Workspace) -> None:
        os.fchdir(work.root_fd)
        m.pivot_root(".", ".")
        m.umount2(".", m.MNT_DETACH)
        os.chdir("/")


class MoveRoot(Step, frozen=True):
    """For a host whose root is the initramfs, where pivot_root cannot work: move the root over "/" and chroot.

    Weaker: the host's root stays below, out of reach only as long as nobody can unmount what covers it.
    """

    def __str__(self) -> str:
        return "move the root over /"

    def run(self, work: Workspace) -> None:
        os.fchdir(work.root_fd)
        m.mount(".", "/", None, m.MS_MOVE)
        os.chroot(".")
        os.chdir("/")


class ChangeRoot(Step, frozen=True):
    """Make a detached root the root of this process only: CAP_SYS_CHROOT is enough to leave it again."""

    def __str__(self) -> str:
        return "chroot"

    def run(self, work: Workspace) -> None:
        os.fchdir(work.root_fd)
        os.chroot(".")
        os.chdir("/")


class SetHostName(Step, frozen=True):
    """Name the UTS namespace."""

    hostname: str
    domainname: str

    def __str__(self) -> str:
        return f"set host name {self.hostname}"

    def run(self, work: Workspace) -> None:
        if self.hostname:
            sethostname(self.hostname)
        if self.domainname:
            setdomainname(self.domainname)


class LoopbackUp(Step, frozen=True):
    """Bring `lo` up in a new network namespace."""

    def __str__(self) -> str:
        return "bring the loopback interface up"

    def run(self, work: Workspace) -> None:
        bring_loopback_up()


class RunHooks(Step, frozen=True):
    """Run hooks inside the container's namespaces, with the container's state on their standard input."""

    kind: str
    hooks: tuple[Hook, ...]
    state: State

    def __str__(self) -> str:
        return f"run {self.kind} hooks"

    def run(self, work: Workspace) -> None:
        run_hooks(self.kind, self.hooks, structs.replace(self.state, pid=work.host_pid))


def plan_root(
    spec: Spec,
    *,
    bundle: str,
    overlay: Overlay | None,
    cgroup: Cgroup | None,
    new_namespaces: frozenset[str],
    joined_namespaces: frozenset[str] = frozenset(),
    state: State,
    use_pivot: bool = True,
) -> tuple[list[Step], list[Step]]:
    """Return the steps that mount the container's root, and those that furnish and enter it.

    `new_namespaces` are the types made for this container, `joined_namespaces` those entered; what is in neither is
    the host's. Nothing is touched. InvalidArgument: what the spec asks for is wrong.
    """
    linux = spec.linux
    process = spec.process
    own_mounts = "mount" in new_namespaces
    if not own_mounts and overlay is not None:
        raise InvalidArgument("an overlay needs a mount namespace of its own")
    if overlay is None and (spec.root is None or not spec.root.path):
        raise InvalidArgument("root: no path and no overlay")
    sources, mounts = plan_mounts(
        spec.mounts, bundle, cgroup=cgroup, private_cgroup="cgroup" in new_namespaces | joined_namespaces
    )
    root_propagation = _propagation(linux.rootfs_propagation if linux else "")
    layers = [step for step in sources if isinstance(step, CloneLayers)]
    clones = [step for step in sources if step not in layers]
    if layers and not own_mounts:
        raise InvalidArgument("layers of a mount need a mount namespace of its own")
    root: list[Step] = [*clones, CutOff(), *layers] if own_mounts else clones
    if overlay is not None:
        root.append(MountOverlay(overlay, f"{bundle}/rootfs"))
    else:
        assert spec.root is not None
        path = os.path.join(bundle, spec.root.path)
        root.append(BindRoot(path) if own_mounts else DetachRoot(path))
    steps = [*mounts, *plan_devices(spec)]
    if process is not None and process.terminal:
        steps.append(OpenConsole(process.console_size))
    if process is not None and process.cwd != "/":
        steps.append(MakeWorkingDirectory(process.cwd))
    if spec.hooks is not None and spec.hooks.create_container:
        steps.append(RunHooks("createContainer", tuple(spec.hooks.create_container), state))
    if linux is not None:
        own = new_namespaces | joined_namespaces
        steps += [SetSysctl(name, value) for name, value in linux.sysctl.items() if check_sysctl(name, own)]
        steps += [ReadOnlyPath(path) for path in linux.readonly_paths]
        steps += [MaskPath(path) for path in linux.masked_paths]
    if spec.root is not None and spec.root.readonly:
        steps.append(ReadOnlyRoot())
    steps.append(ChangeRoot() if not own_mounts else Pivot() if use_pivot else MoveRoot())
    if root_propagation is not None:
        steps.append(RootPropagation(*root_propagation))
    if (spec.hostname or spec.domainname) and "uts" in new_namespaces | joined_namespaces:
        steps.append(SetHostName(spec.hostname, spec.domainname))
    if "network" in new_namespaces:
        steps.append(LoopbackUp())
    return root, steps


def _propagation(name: str) -> tuple[int, bool] | None:
    if not name:
        return None
    flags = propagation_flags(name)
    if flags is None:
        raise InvalidArgument(f"rootfsPropagation: unknown value {name!r}")
    return flags


def check_sysctl(name: str, own_namespaces: frozenset[str]) -> bool:
    """Say yes, or raise InvalidArgument for a parameter that would change the host."""
    dotted = _sysctl_path(name).replace("/", ".")
    if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
        needed = "ipc"
    elif dotted.startswith("net."):
        needed = "network"
    elif dotted in ("kernel.domainname", "kernel.hostname"):
        needed = "uts"
    elif dotted.startswith("user."):
        needed = "user"
    else:
        raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace')
    if needed not in own_namespaces:
        raise InvalidArgument(f'sysctl "{name}" is not allowed in the host {needed} namespace')
    return True


def _sysctl_path(name: str) -> str:
    """Either separator may be used; the first one seen is the separator, the other part of a name. sysctl(8)"""
    dot, slash = name.find("."), name.find("/")
    path = name if slash >= 0 and (dot < 0 or slash < dot) else name.translate(str.maketrans("./", "/."))
    if not path or ".." in path.split("/"):
        raise InvalidArgument(f"sysctl {name!r}: not a parameter's name")
    return path


def write_procfs(path: str, value: str) -> None:
    """Write to a file of the procfs in view, after making sure that it is one. Before the root is entered only."""
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if m.filesystem_magic(proc) != m.PROC_SUPER_MAGIC:
            raise Refused("/proc of this host is not a procfs")
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            if m.filesystem_magic(fd) != m.PROC_SUPER_MAGIC:
                raise Refused(f"/proc/{path} of this host is not on a procfs")
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    finally:
        os.close(proc)
