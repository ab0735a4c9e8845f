"""The mounts of this mount namespace, as the kernel lists them. proc_pid_mountinfo(5)"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount: where it is, what it is, and whether mounts made on it spread (`shared`) or come in (`slave`)."""

    mount_point: str
    filesystem: str
    is_shared: bool
    is_slave: bool


def mounts() -> list[MountEntry]:
    """Return every mount in view, in the order they were made; a later one at the same place covers the earlier."""
    with open("/proc/self/mountinfo", "rb") as file:
        return [_entry(line.decode("utf-8", "surrogateescape")) for line in file]


def containing(path: str) -> MountEntry:
    """Return the mount that `path`, links followed, is on."""
    real = os.path.realpath(path)
    found = [entry for entry in mounts() if entry.mount_point == "/" or f"{real}/".startswith(f"{entry.mount_point}/")]
    deepest = max(len(entry.mount_point) for entry in found)
    return [entry for entry in found if len(entry.mount_point) == deepest][-1]


def is_mounted(path: str) -> bool:
    """Say whether something is mounted at exactly `path`, which has no links in it."""
    return any(entry.mount_point == path for entry in mounts())


def _entry(line: str) -> MountEntry:
    before, _, after = line.partition(" - ")
    fields = before.split(" ")
    optional = fields[6:]
    return MountEntry(
        mount_point=_unescape(fields[4]),
        filesystem=after.split(" ")[0],
        is_shared=any(field.startswith("shared:") for field in optional),
        is_slave=any(field.startswith("master:") for field in optional),
    )


def _unescape(text: str) -> str:
    for octal, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(octal, character)
    return text
