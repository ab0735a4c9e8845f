"""What a container changed, without what a start itself leaves in its layer: the mount points every container needs.

Docker keeps them in a layer between the image and the container; ours are made in the container's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from posixpath import dirname

from naru.image.diff import Change

MADE_BY_START = frozenset(
    {
        "/.dockerenv",
        "/dev",
        "/dev/console",
        "/dev/mqueue",
        "/dev/pts",
        "/dev/shm",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/proc",
        "/sys",
    }
)


def without_mount_points(changes: Sequence[Change]) -> list[Change]:
    """Return `changes` without those, and without directories that changed for nothing else."""
    own = [change for change in changes if change.path not in MADE_BY_START or change.kind == "deleted"]
    touched_by_start = {dirname(change.path) for change in changes if change.path in MADE_BY_START}
    touched_otherwise = {dirname(change.path) for change in own}
    for_nothing_else = touched_by_start - touched_otherwise
    shown = [change for change in own if change.kind != "modified" or change.path not in for_nothing_else]
    return sorted(shown, key=lambda change: change.path)
