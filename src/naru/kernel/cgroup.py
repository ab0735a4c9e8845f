"""Finding the mounted cgroup hierarchies, and reading and writing the files in them.

Covers version 1 hierarchies (one per controller or group of controllers, or named), the version 2 hierarchy, and
both at once. Knows file formats, not which files matter. cgroups(7); kernel documentation, cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple


class Hierarchy(NamedTuple):
    """A mounted hierarchy. `controllers` of version 2 is empty: read cgroup.controllers of a cgroup in it.

    `root` is the cgroup that is visible at `mount_point`: not "/" inside a container without a cgroup namespace.
    A named hierarchy of version 1 has the one controller "name=…".
    """

    version: int
    controllers: tuple[str, ...]
    mount_point: str
    root: str


# Options of a version 1 mount's super block that are not controllers.
_NOT_CONTROLLERS = {"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "nodev", "nosuid", "noexec"}


def hierarchies(mountinfo: str = "/proc/self/mountinfo") -> list[Hierarchy]:
    """Return the hierarchies mounted in a mount namespace, each once, in mount order. proc_pid_mountinfo(5)"""
    with open(mountinfo, "rb") as file:
        lines = [line.decode("utf-8", "surrogateescape") for line in file if b" - cgroup" in line]
    found: dict[tuple[int, tuple[str, ...]], Hierarchy] = {}
    for line in lines:
        mount, _, file_system = line.partition(" - ")
        root, mount_point = mount.split(" ")[3:5]
        kind, _source, options = file_system.rstrip("\n").split(" ", 2)
        if kind == "cgroup2":
            found.setdefault((2, ()), Hierarchy(2, (), _unescape(mount_point), _unescape(root)))
        elif kind == "cgroup":
            names = tuple(o for o in options.split(",") if o not in _NOT_CONTROLLERS and "release_agent=" not in o)
            found.setdefault((1, names), Hierarchy(1, names, _unescape(mount_point), _unescape(root)))
    return list(found.values())


def _unescape(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def membership(pid: int | str = "self") -> dict[str, str]:
    """Return the cgroup of a process per controller ("name=…" for a named hierarchy, "" for version 2).

    Paths are relative to this process's cgroup namespace. OSError: ENOENT or ESRCH if it is gone. cgroups(7)
    """
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    return {
        controller: path for line in lines for _, names, path in [line.split(":", 2)] for controller in names.split(",")
    }


def read(directory: str, name: str) -> str:
    """Return the content of a cgroup's file. OSError: ENOENT if it has no such file; ENODEV while it is removed."""
    descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode()


def write(directory: str, name: str, value: str) -> None:
    """Write `value` to a cgroup's file, in the one write(2) that such files want.

    OSError, naming the file: ENOENT if it has no such file; EINVAL, ERANGE, EBUSY and others as the controller says.
    """
    path = f"{directory}/{name}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {value!r}: {os.strerror(error.errno or 0)}", path) from None
    finally:
        os.close(descriptor)


def has(directory: str, name: str) -> bool:
    """Tell whether a cgroup has the file `name`."""
    return os.access(f"{directory}/{name}", os.F_OK)


def flat_keyed(text: str) -> dict[str, int]:
    """Parse lines of `key number`, leaving out others."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def nested_keyed(text: str) -> dict[str, dict[str, str]]:
    """Parse lines of `key subkey=value …`."""
    return {
        key: dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        for key, *pairs in (line.split() for line in text.splitlines() if line.strip())
    }


def children(directory: str) -> list[str]:
    """Return the names of a cgroup's direct children; none if it is gone."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def tree(directory: str) -> Iterator[str]:
    """Yield the cgroup's descendants and then itself, each after its own descendants: the order to remove them in."""
    for name in children(directory):
        yield from tree(f"{directory}/{name}")
    yield directory


def processes(directory: str) -> list[int]:
    """Return the processes in the cgroup and its descendants; those invisible in our pid namespace are left out."""
    found: dict[int, None] = {}
    for cgroup in tree(directory):
        try:
            text = read(cgroup, "cgroup.procs")
        except OSError as error:
            # EOPNOTSUPP: a threaded cgroup, whose processes are listed by an ancestor. Others: removed meanwhile.
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOENT, errno.ENODEV):
                raise
            continue
        found.update((int(pid), None) for pid in text.split() if pid != "0")
    return list(found)
