"""Running the hooks of a spec: programs that get the container's state on their standard input.

OCI runtime-spec, config.md, POSIX-platform Hooks.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable

from naru.oci.runtime import Hook, State, encode
from naru.runtime.step import Refused


def run_hooks(kind: str, hooks: Iterable[Hook], state: State) -> None:
    """Run `hooks` one after the other. Refused: one could not be run, failed, or took too long."""
    data = encode(state)
    for number, hook in enumerate(hooks):
        problem = _run(hook, data)
        if problem:
            raise Refused(f"error running {kind} hook #{number}: {problem}")


def run_all_hooks(kind: str, hooks: Iterable[Hook], state: State) -> list[str]:
    """Run `hooks` of a point where a failure stops nothing, and return the warnings. Runtime.md, Lifecycle."""
    warnings = []
    for number, hook in enumerate(hooks):
        problem = _run(hook, encode(state))
        if problem:
            warnings.append(f"error running {kind} hook #{number}: {problem}")
    return warnings


def _run(hook: Hook, data: bytes) -> str:
    """Run one hook and return what went wrong with it, or ""."""
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            hook.path,
            hook.args or [hook.path],
            dict(entry.partition("=")[::2] for entry in hook.env),
            file_actions=[(os.POSIX_SPAWN_DUP2, read, 0)],
            setsigdef=[signal.SIGPIPE],
            setsigmask=[],
        )
    except OSError as error:
        os.close(write)
        return f"fork/exec {hook.path}: {os.strerror(error.errno or 0).lower()}"
    finally:
        os.close(read)
    pidfd = os.pidfd_open(pid)
    try:
        try:
            os.write(write, data)  # a state fits in a pipe; a hook may not read it
        except BrokenPipeError:
            pass
        finally:
            os.close(write)
        late = hook.timeout is not None and not select.select([pidfd], [], [], hook.timeout)[0]
        if late:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(pidfd)
    if late:
        return f"{hook.path}: no end within {hook.timeout} s"
    return f"{hook.path}: exit status {status}" if status > 0 else f"{hook.path}: signal {-status}" if status else ""
