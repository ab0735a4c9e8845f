"""What the new process does, from its first instruction to execve: the child's side of `sync`.

The process is a fork of a single-threaded one. It imports nothing, logs nothing, and never returns: it becomes the
program, or reports what failed and exits. Until execve it is not dumpable, so that nothing in a namespace it has
entered can read its memory or open its /proc/PID/exe or fds (docs/adr/0002-proc-self-exe.md).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence

from msgspec import Struct

from naru.kernel import prctl
from naru.kernel.cgroup import write as write_cgroup
from naru.kernel.process import CLONE_NEWCGROUP, close_range, setns, unshare
from naru.runtime import command, sync
from naru.runtime.cgroup import Cgroup
from naru.runtime.process import reset_signals
from naru.runtime.reaper import become_reaper
from naru.runtime.step import Refused, Step, StepFailed, Workspace, reason, run_steps

_FAILED_EXIT = 1


class EnterNamespaces(Step, frozen=True):
    """Join existing namespaces: (descriptor, CLONE_ flags) pairs, a user namespace first."""

    entries: tuple[tuple[int, int, str], ...]

    def __str__(self) -> str:
        return "join namespaces"

    def run(self, work: Workspace) -> None:
        for fd, flags, name in self.entries:
            try:
                setns(fd, flags)
            except OSError as error:
                raise OSError(error.errno, error.strerror, name) from None


class EnterCgroups(Step, frozen=True):
    """Move ourselves into our cgroups of version 1: what was done before is not limited, and need not be."""

    directories: tuple[str, ...]

    def __str__(self) -> str:
        return "enter the cgroups"

    def run(self, work: Workspace) -> None:
        for directory in self.directories:
            write_cgroup(directory, "tasks", "0")


class BecomeMappedRoot(Step, frozen=True):
    """Become root of the user namespace, as whom everything after is made and looked at.

    Not earlier than needed: until then files of the host's root can be reached, the bundle's among them. `new` are
    CLONE_ flags of namespaces whose files belong to who makes them, such as the queues of an IPC namespace.
    """

    new: int = 0

    def __str__(self) -> str:
        return "become root of the user namespace"

    def run(self, work: Workspace) -> None:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        if self.new:
            unshare(self.new)


class AwaitCgroup(Step, frozen=True):
    """Wait until the parent has seen to it that we are in our cgroups of version 2, and for our process ID there."""

    def __str__(self) -> str:
        return "wait for the cgroup"

    def run(self, work: Workspace) -> None:
        work.host_pid = int(sync.expect(work.channel, sync.JOINED))


class NewCgroupNamespace(Step, frozen=True):
    """Make a cgroup namespace; only now, because its root is the cgroup one is in."""

    def __str__(self) -> str:
        return "unshare cgroup namespace"

    def run(self, work: Workspace) -> None:
        unshare(CLONE_NEWCGROUP)


class Script(Struct, frozen=True):
    """The steps of one child in their order, with the points between them where it talks to the parent."""

    before_hooks: tuple[Step, ...]
    runtime_hooks: bool
    build: tuple[Step, ...]
    waits_for_start: bool
    start: tuple[Step, ...]
    reaper: bool = False

    def __str__(self) -> str:
        return "\n".join(line for line in map(str, (*self.before_hooks, *self.build, *self.start)) if line)


def enter_cgroups(cgroup: Cgroup | None) -> list[Step]:
    """Return the step that enters `cgroup`, if its version needs one."""
    directories = cgroup.entrances() if cgroup is not None else ()
    return [EnterCgroups(directories)] if directories else []


def run_child(script: Script, work: Workspace) -> None:
    """Be the child of `spawn`: never returns."""
    try:
        gc.disable()  # a collection would touch, and so copy, every page shared with the parent
        prctl.set_dumpable(False)
        os.umask(0)
        _close_others(work)
        _follow(script, work)
    except StepFailed as failed:
        error = failed.error
        exit_code = error.exit_code if isinstance(error, Refused) else 128
        sync.send_failure(work.channel, sync.Failure(str(failed.step), reason(error), exit_code))
    except EOFError:
        pass  # nobody is there to be told
    except Refused as refused:
        sync.send_failure(work.channel, sync.Failure("", str(refused), refused.exit_code))
    except BaseException as error:
        sync.send_failure(work.channel, sync.Failure("container init", f"{type(error).__name__}: {error}"))
    os._exit(_FAILED_EXIT)


def _close_others(work: Workspace) -> None:
    """Close what the caller has open and we do not need, before any namespace is entered."""
    needed = {0, 1, 2, work.channel.fileno(), *work.needed, *(work.stdio or ())}
    if work.listener is not None:
        needed.add(work.listener.fileno())
    before = 2
    for fd in sorted(needed):
        if fd > before + 1:
            close_range(before + 1, fd - 1)
        before = max(fd, before)
    close_range(before + 1)


def _follow(script: Script, work: Workspace) -> None:
    run_steps(script.before_hooks, work)
    if script.runtime_hooks:
        sync.send(work.channel, sync.HOOKS)
        sync.expect(work.channel, sync.PROCEED)
    run_steps(script.build, work)
    if script.waits_for_start:
        sync.send(work.channel, sync.READY)
        _wait_for_start(work)
    run_steps(script.start, work)
    if script.reaper:
        become_reaper(work)
    reset_signals()
    command.execute(work.command, work.arguments, work.environment)


def _wait_for_start(work: Workspace) -> None:
    if work.listener is None:
        sync.expect(work.channel, sync.START)
        return
    while True:  # the creator may exit; whoever starts us connects
        connection, _address = work.listener.accept()
        if sync.receive(connection)[0] == sync.START:
            work.channel.close()
            work.channel = connection
            work.listener.close()
            return
        connection.close()


def environment_of(entries: Sequence[str]) -> dict[str, str]:
    """Return a spec's `NAME=value` list as a mapping; the last one of a name counts."""
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
