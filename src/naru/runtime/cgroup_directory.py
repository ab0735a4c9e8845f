"""A cgroup as a directory: where it is, sending signals to what is in it, removing it with all below it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from contextlib import suppress

from naru.errors import Conflict
from naru.kernel import cgroup as kernel

REMOVE_TIMEOUT_S = 5.0
_FIRST_PAUSE_S = 0.0005
_LONGEST_PAUSE_S = 0.05


def resolve(path: str, hierarchy: kernel.Hierarchy, own: str) -> str:
    """Return the directory of cgroup `path` in a mounted hierarchy; a relative one is below `own`, our own cgroup."""
    if path.startswith("/"):
        return f"{hierarchy.mount_point}{path}"
    below = own if hierarchy.root == "/" else own.removeprefix(hierarchy.root)
    return os.path.normpath(f"{hierarchy.mount_point}/{below}/{path}")


def signal_all(pids: Iterable[int], signal_number: int) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal_number)


def remove_tree(directory: str, deadline: float) -> None:
    """Remove a cgroup and its descendants, leaves first; nothing if it is gone. `deadline` is of time.monotonic.

    rmdir fails with EBUSY for a moment after the last process was reaped, while the kernel lets go of it.
    Conflict: still busy at the deadline.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            for cgroup in kernel.tree(directory):
                with suppress(FileNotFoundError):
                    os.rmdir(cgroup)
        except OSError as error:
            # ENOTEMPTY does not happen, but a child made behind our back shows as EBUSY too.
            if error.errno != errno.EBUSY:
                raise
        else:
            return
        if time.monotonic() > deadline:
            inside = " ".join(map(str, kernel.processes(directory)[:10])) or "none visible"
            raise Conflict(f"cgroup {directory}: still in use (processes: {inside})")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
