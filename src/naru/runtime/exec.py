"""Run another process in a container: in its namespaces, cgroup and root, with limits of its own.

All namespaces are entered with one setns on a pidfd of the container's process. Into the PID namespace only children
go, so the child then forks a sibling that takes its place. It could be born there at once; but then the container's
processes, if they have CAP_SYS_PTRACE, would find the host's root and our descriptors at its /proc/PID (CVE-2016-9962).
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from msgspec import Struct

from naru.errors import Conflict, InvalidArgument
from naru.kernel import process as kernel
from naru.oci.runtime import Process, Spec
from naru.runtime import sync
from naru.runtime.cgroup import Cgroup
from naru.runtime.child import attend, reap, spawn_child
from naru.runtime.device import OpenConsole
from naru.runtime.init import AwaitCgroup, BecomeMappedRoot, EnterNamespaces, Script, enter_cgroups, environment_of
from naru.runtime.process import plan_before_root, plan_process
from naru.runtime.stdio import Stdio
from naru.runtime.step import Step, Workspace

_ENTERED = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWCGROUP
    | kernel.CLONE_NEWPID
)


class Executed(Struct, frozen=True):
    """A process that has executed its program; a child of the caller, who reaps it and closes the descriptors."""

    pid: int
    pidfd: int
    console: int | None


class EnterRoot(Step, frozen=True):
    """Change the root: for a container that lives in a mount namespace with another root."""

    root: int

    def __str__(self) -> str:
        return "enter the container's root"

    def run(self, work: Workspace) -> None:
        os.fchdir(self.root)
        os.chroot(".")


class EnterPidNamespace(Step, frozen=True):
    """Go on as a new process in the PID namespace that was entered for children. `done` is closed: nobody is to see it.

    From here on the container can look at us, and all it may find is what it has already.
    """

    done: tuple[int, ...]

    def __str__(self) -> str:
        return "enter the PID namespace"

    def run(self, work: Workspace) -> None:
        for fd in self.done:
            os.close(fd)
        pid, pidfd = kernel.spawn_sibling()
        if pid:
            sync.send(work.channel, sync.MOVED + str(pid).encode(), pidfd)
            os._exit(0)
        sync.expect(work.channel, sync.PROCEED)


class OpenRoot(Step, frozen=True):
    """Hold the root that was entered with the mount namespace."""

    def __str__(self) -> str:
        return "open the container's root"

    def run(self, work: Workspace) -> None:
        work.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def exec_process(
    process: Process,
    *,
    target_pid: int,
    spec: Spec,
    cgroup: Cgroup | None,
    stdio: Stdio | None,
    pidfd: int | None = None,
    preserve_fds: int = 0,
) -> Executed:
    """Run `process` beside the container's process `target_pid`; return when its execve has succeeded.

    `spec` is the container's: its seccomp profile confines the newcomer too. `pidfd` is of `target_pid`, for a
    caller who holds one. CannotStart: it could not be run, in Docker's words. Conflict: the container has ended.
    """
    with ExitStack() as undo:
        try:
            target = os.pidfd_open(target_pid) if pidfd is None else pidfd
            if pidfd is None:
                undo.callback(os.close, target)
            own_user = os.stat("/proc/self/ns/user").st_ino
            flags = _ENTERED
            if os.stat(f"/proc/{target_pid}/ns/user").st_ino != own_user:
                flags |= kernel.CLONE_NEWUSER
        except (ProcessLookupError, FileNotFoundError):
            raise Conflict("container is not running") from None
        root = None
        if not _has_own_mounts(spec):
            root = os.open(f"/proc/{target_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, root)
        script = plan_exec(process, spec, target, flags, root=root, cgroup=cgroup, preserve_fds=preserve_fds)
        ours, theirs = sync.pair()
        undo.callback(ours.close)
        work = Workspace(
            channel=theirs,
            needed=(target, *(() if root is None else (root,)), *range(3, 3 + preserve_fds)),
            arguments=list(process.args),
            environment=environment_of(process.env),
            stdio=None if stdio is None else (stdio.stdin, stdio.stdout, stdio.stderr),
        )
        with ExitStack() as made:
            pid, child, born = spawn_child(script, work, 0, cgroup, None, beside=target_pid)
            newest = [(pid, child)]
            made.callback(lambda: reap(*newest[0]))
            theirs.close()

            def moved(new_pid: int, new_pidfd: int) -> None:
                newest[0] = new_pid, new_pidfd
                os.waitpid(pid, 0)
                os.close(child)

            if not born and cgroup is not None:
                with suppress(ProcessLookupError):  # it has failed already, and said why
                    cgroup.join(pid, beside=target_pid)
            console = attend(ours, pid, None, has_ready=False, on_moved=moved)
            made.pop_all()
        return Executed(*newest[0], console)


def _has_own_mounts(spec: Spec) -> bool:
    return spec.linux is not None and any(one.type == "mount" and not one.path for one in spec.linux.namespaces)


def plan_exec(
    process: Process,
    spec: Spec,
    target: int,
    flags: int,
    *,
    root: int | None = None,
    cgroup: Cgroup | None = None,
    preserve_fds: int = 0,
) -> Script:
    """Return what the new process will do, in order; nothing is touched. `target` is a pidfd or what stands for it.

    `root` is the container's root, if its mount namespace has another one.
    """
    if spec.linux is None:
        raise InvalidArgument("config.json: no linux section")
    steps: list[Step] = [
        *plan_before_root(process, keyring=""),
        *enter_cgroups(cgroup),  # while the host's /sys/fs/cgroup is in view
        EnterNamespaces(((target, flags, "of the container"),)),
        AwaitCgroup(),
    ]
    if root is not None:
        steps.append(EnterRoot(root))
    steps.append(EnterPidNamespace((target,) if root is None else (target, root)))
    if flags & kernel.CLONE_NEWUSER:
        steps.append(BecomeMappedRoot())
    if process.terminal:
        steps += [OpenRoot(), OpenConsole(process.console_size, at_console=False)]
    ready, start = plan_process(process, spec.linux, preserve_fds=preserve_fds)
    return Script(
        before_hooks=(), runtime_hooks=False, build=(*steps, *ready), waits_for_start=False, start=tuple(start)
    )
