"""Create a container: from a spec to a process that has everything but its program.

`create` makes the cgroup, clones the process, and waits until it is ready; `Created.start` lets it execve. Whatever
fails, everything made so far is undone before the error leaves. Call it in a single-threaded process where speed
matters (`naru.kernel.process.spawn`). OCI runtime-spec, runtime.md, Lifecycle.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress

from msgspec import structs

from naru.errors import CannotStart, InvalidArgument, Unsupported
from naru.kernel import mount as m
from naru.kernel import process as kernel
from naru.oci.runtime import Linux, Namespace, Process, Resources, Spec, State
from naru.runtime import sync
from naru.runtime.cgroup import Cgroup, create_cgroup
from naru.runtime.child import attend, await_exec, reap, spawn_child
from naru.runtime.hooks import run_all_hooks, run_hooks
from naru.runtime.init import (
    AwaitCgroup,
    BecomeMappedRoot,
    EnterNamespaces,
    NewCgroupNamespace,
    Script,
    enter_cgroups,
    environment_of,
)
from naru.runtime.mount_sources import CloneSource
from naru.runtime.process import plan_before_root, plan_process
from naru.runtime.rootfs import Overlay, RunHooks, plan_root
from naru.runtime.stdio import Stdio
from naru.runtime.step import Refused, Step, StepFailed, Workspace, reason, run_steps

__all__ = ["Created", "Overlay", "Stdio", "create", "plan"]

CLONE_FLAGS = {
    "mount": kernel.CLONE_NEWNS,
    "pid": kernel.CLONE_NEWPID,
    "ipc": kernel.CLONE_NEWIPC,
    "uts": kernel.CLONE_NEWUTS,
    "network": kernel.CLONE_NEWNET,
    "cgroup": kernel.CLONE_NEWCGROUP,
    "user": kernel.CLONE_NEWUSER,
    "time": kernel.CLONE_NEWTIME,
}


class Created:
    """A container's process before its program: ready, waiting for `start` (or, with a listener, for a connection)."""

    def __init__(
        self,
        pid: int,
        pidfd: int,
        console: int | None,
        cgroup: Cgroup,
        channel: socket.socket,
        state: State,
        spec: Spec,
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.console = console
        self.cgroup = cgroup
        self._channel = channel
        self._state = state
        self._spec = spec

    def start(self) -> None:
        """Let the process execute its program; return when execve has succeeded.

        CannotStart: it has not, in Docker's words; the process is reaped and the cgroup removed.
        """
        try:
            sync.send(self._channel, sync.START)
        except BrokenPipeError:
            pass  # it died meanwhile, which is no failure of its program
        try:
            await_exec(self._channel)
        except CannotStart:
            self.discard()
            raise
        self._channel.close()
        hooks = self._spec.hooks
        if hooks is not None and hooks.poststart:
            self._state.status = "running"
            run_all_hooks("poststart", hooks.poststart, self._state)  # none stops a process that runs

    def discard(self) -> None:
        """Kill and reap the process, and remove its cgroup; for a container that is not to be started."""
        self._channel.close()
        reap(self.pid, self.pidfd)
        if self.console is not None:
            os.close(self.console)
            self.console = None
        self.cgroup.remove(kill=True)


def create(
    spec: Spec,
    *,
    container_id: str,
    bundle: str,
    stdio: Stdio | None,
    overlay: Overlay | None = None,
    inherited: Mapping[str, int] | None = None,
    init: bool = False,
    listener: socket.socket | None = None,
    preserve_fds: int = 0,
    use_pivot: bool = True,
    new_keyring: bool = True,
) -> Created:
    """Make the container `container_id` as `spec` says; its process is a child of the caller, who reaps it.

    `stdio` are its standard streams (None: the caller's own), ignored with a terminal. `overlay` is the root
    instead of the spec's; `inherited` maps a namespace type to an open descriptor of the one to join. With `init`,
    PID 1 is a small reaper and the program its child. With `listener`, a listening socket, `naru.runtime.state`
    starts the container over it after the caller has exited. Descriptors remain the caller's.
    InvalidArgument, Unsupported: the spec. CannotStart: a step failed, which its message names.
    """
    inherited = inherited or {}
    state = State(id=container_id, status="creating", bundle=bundle, annotations=spec.annotations)
    with ExitStack() as undo:
        joins = _open_namespaces(spec, inherited, undo)
        new = frozenset(entry.type for entry in _namespaces(spec)) - joins.keys()
        linux = spec.linux
        cgroups_path = (linux.cgroups_path if linux else "") or f"/naru/{container_id}"
        with ExitStack() as made:
            cgroup = create_cgroup(cgroups_path, (linux.resources if linux else None) or Resources())
            made.callback(cgroup.remove)
            script = plan(
                spec,
                bundle=bundle,
                overlay=overlay,
                cgroup=cgroup,
                state=state,
                new=new,
                joins=joins,
                init=init,
                preserve_fds=preserve_fds,
                use_pivot=use_pivot,
                keyring=f"_ses.{container_id}" if new_keyring else "",
            )
            process = _process(spec)
            ours, theirs = sync.pair()
            made.callback(ours.close)
            work = Workspace(
                channel=theirs,
                listener=listener,
                needed=(*joins.values(), *range(3, 3 + preserve_fds)),
                arguments=list(process.args),
                environment=environment_of(process.env),
                stdio=None if stdio is None else (stdio.stdin, stdio.stdout, stdio.stderr),
            )
            if "user" in new:
                script = _take_sources(script, work, undo)
            pid, pidfd, born_in_cgroup = spawn_child(script, work, _clone_flags(new), cgroup, joins.get("pid"))
            made.callback(reap, pid, pidfd)
            theirs.close()
            if "user" in new and linux is not None:
                _map_ids(pid, linux)
            if not born_in_cgroup:
                with suppress(ProcessLookupError):  # it has failed already, and said why
                    cgroup.join(pid)
            state.pid = pid
            console = attend(ours, pid, lambda: _runtime_hooks(spec, state), has_ready=True)
            made.pop_all()
    state.status = "created"
    return Created(pid, pidfd, console, cgroup, ours, state, spec)


def plan(
    spec: Spec,
    *,
    bundle: str,
    overlay: Overlay | None,
    cgroup: Cgroup | None,
    state: State,
    new: frozenset[str],
    joins: Mapping[str, int],
    init: bool = False,
    preserve_fds: int = 0,
    use_pivot: bool = True,
    keyring: str = "",
) -> Script:
    """Return what the container's process will do, in order; nothing is touched. `str()` of it is readable."""
    process = _process(spec)
    _refuse_unsupported(spec, new, joins)
    before: list[Step] = list(plan_before_root(process, keyring=keyring))
    entries = [(fd, CLONE_FLAGS[kind], kind) for kind, fd in joins.items() if kind != "pid"]
    if entries:
        entries.sort(key=lambda entry: entry[2] != "user")
        before.append(EnterNamespaces(tuple(entries)))
    cgroup_steps: list[Step] = [AwaitCgroup(), *enter_cgroups(cgroup)]
    if "cgroup" in new:
        cgroup_steps.append(NewCgroupNamespace())
    root, inside = plan_root(
        spec,
        bundle=bundle,
        overlay=overlay,
        cgroup=cgroup,
        new_namespaces=new,
        joined_namespaces=frozenset(joins),
        state=state,
        use_pivot=use_pivot,
    )
    ready, start = plan_process(process, spec.linux, preserve_fds=preserve_fds)
    hooks = spec.hooks
    if hooks is not None and hooks.start_container:
        start = [RunHooks("startContainer", tuple(hooks.start_container), state), *start]
    has_hooks = hooks is not None and bool(hooks.prestart or hooks.create_runtime)
    if has_hooks:
        before += cgroup_steps
    else:
        root += cgroup_steps
    if "user" in new:
        root.append(BecomeMappedRoot(_late_flags(new)))
    return Script(
        before_hooks=tuple(before),
        runtime_hooks=has_hooks,
        build=(*root, *inside, *ready),
        waits_for_start=True,
        start=tuple(start),
        reaper=init,
    )


def _runtime_hooks(spec: Spec, state: State) -> None:
    assert spec.hooks is not None
    try:
        run_hooks("prestart", spec.hooks.prestart, state)
        run_hooks("createRuntime", spec.hooks.create_runtime, state)
    except Refused as refused:
        raise CannotStart(str(refused)) from None


def _process(spec: Spec) -> Process:
    if spec.process is None:
        raise InvalidArgument("config.json: no process")
    return spec.process


def _take_sources(script: Script, work: Workspace, undo: ExitStack) -> Script:
    """Take the binds' sources here and return the script without: root of a user namespace may not reach them.

    They leave the host's peer groups, as all mounts do that a new user namespace gets to see.
    """
    sources = [step for step in script.build if isinstance(step, CloneSource)]
    try:
        run_steps(sources, work)
        for tree in work.sources.values():
            m.mount_setattr(tree, propagation=m.MS_SLAVE, recursive=True)
    except StepFailed as failed:
        raise CannotStart(f"{failed.step}: {reason(failed.error)}") from None
    finally:
        for tree in work.sources.values():
            undo.callback(os.close, tree)
    work.needed = (*work.needed, *work.sources.values())
    return structs.replace(script, build=tuple(step for step in script.build if not isinstance(step, CloneSource)))


def _map_ids(pid: int, linux: Linux) -> None:
    """Say who the IDs of the process's user namespace are on the host. user_namespaces(7)"""
    for name, mappings in (("uid_map", linux.uid_mappings), ("gid_map", linux.gid_mappings)):
        lines = "".join(f"{entry.container_id} {entry.host_id} {entry.size}\n" for entry in mappings)
        try:
            with open(f"/proc/{pid}/{name}", "wb", buffering=0) as file:  # the kernel takes one write
                file.write(lines.encode())
        except OSError as error:
            raise CannotStart(f"write {name}: {os.strerror(error.errno or 0).lower()}") from None


def _refuse_unsupported(spec: Spec, new: frozenset[str], joins: Mapping[str, int]) -> None:
    """Better no container than one that lacks what was asked for."""
    linux = spec.linux
    if linux is None:
        return
    asked = {
        "timeOffsets": linux.time_offsets,
        "intelRdt": linux.intel_rdt,
    }
    for field, value in asked.items():
        if value:
            raise Unsupported(f"config.json: linux.{field} is not supported")
    if "user" not in new:
        if (linux.uid_mappings or linux.gid_mappings) and "user" not in joins:
            raise InvalidArgument("config.json: ID mappings without a user namespace")
        return
    if not linux.uid_mappings or not linux.gid_mappings:
        raise InvalidArgument("config.json: a new user namespace without uidMappings and gidMappings")
    if joins or "mount" not in new:
        raise Unsupported("a new user namespace beside namespaces to join, or without mounts of its own")


def _namespaces(spec: Spec) -> list[Namespace]:
    entries = spec.linux.namespaces if spec.linux else []
    seen: set[str] = set()
    for entry in entries:
        if entry.type not in CLONE_FLAGS:
            raise InvalidArgument(f"namespace {entry.type!r} does not exist")
        if entry.type in seen:
            raise InvalidArgument(f"namespace {entry.type!r} is listed twice")
        seen.add(entry.type)
    return entries


def _open_namespaces(spec: Spec, inherited: Mapping[str, int], undo: ExitStack) -> dict[str, int]:
    """Return descriptors of the namespaces to join, by type; those opened here are closed by `undo`."""
    joins: dict[str, int] = {}
    for entry in _namespaces(spec):
        if entry.type in inherited:
            joins[entry.type] = inherited[entry.type]
        elif entry.path:
            try:
                joins[entry.type] = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise InvalidArgument(
                    f"namespace {entry.type}: {entry.path}: {os.strerror(error.errno or 0)}"
                ) from None
            undo.callback(os.close, joins[entry.type])
    return joins


def _clone_flags(new: frozenset[str]) -> int:
    """All at once in clone3, but for the cgroup namespace (`NewCgroupNamespace`) and those of `BecomeMappedRoot`."""
    return sum(CLONE_FLAGS[kind] for kind in new if kind != "cgroup") & ~_late_flags(new)


def _late_flags(new: frozenset[str]) -> int:
    return CLONE_FLAGS["ipc"] if {"user", "ipc"} <= new else 0
