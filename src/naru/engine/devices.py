"""Host device nodes as the runtime spec names them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from naru.api.host import DeviceMapping, HostConfig
from naru.errors import InvalidArgument
from naru.oci.runtime import Device

# What every container has of its own, or must not see of the host's terminals.
_NOT_PASSED = {"pts", "shm", "fd", "mqueue", "console", "ptmx", "core", "stdin", "stdout", "stderr", "log"}


def device_node(path: str) -> Device:
    """Return the device at `path` on the host, symlinks followed. InvalidArgument: there is none."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{path}": {(error.strerror or "").lower()}'
        ) from error
    kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{path}": not a device node'
        )
    return Device(
        type=kind,
        path=path,
        major=os.major(found.st_rdev),
        minor=os.minor(found.st_rdev),
        file_mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
    )


@dataclass(frozen=True, slots=True)
class Granted:
    """A device node made in a container, and what may be done with it: some of `rwm`."""

    node: Device
    access: str = "rwm"


def requested_devices(host: HostConfig) -> list[Granted]:
    """Return the devices of `--device`; a directory stands for all below it. InvalidArgument: there is none.

    A privileged container has all there are: what it asks for besides need not exist.
    """
    found: list[Granted] = []
    for entry in host.devices or []:
        if host.privileged and not os.path.exists(entry.path_on_host):
            continue
        found += _granted(entry)
    return found


def _granted(entry: DeviceMapping) -> Iterator[Granted]:
    target = entry.path_in_container or entry.path_on_host
    access = entry.cgroup_permissions or "rwm"
    if not os.path.isdir(entry.path_on_host):
        yield Granted(_at(device_node(entry.path_on_host), target), access)
        return
    top = os.path.realpath(entry.path_on_host)
    paths = [os.path.join(directory, name) for directory, _, names in os.walk(top) for name in names]
    devices = [path for path in paths if _is_device(path)]
    if not devices:
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{entry.path_on_host}": not a device node'
        )
    for path in sorted(devices):
        yield Granted(_at(device_node(path), os.path.join(target, os.path.relpath(path, top))), access)


def _at(node: Device, path: str) -> Device:
    node.path = path
    return node


def host_devices() -> list[Device]:
    """Return every device node of the host's /dev, for `--privileged`."""
    found: list[Device] = []
    for directory, names, files in os.walk("/dev"):
        names[:] = [name for name in names if name not in _NOT_PASSED]
        for name in files:
            path = os.path.join(directory, name)
            if name not in _NOT_PASSED and not os.path.islink(path) and _is_device(path):
                found.append(device_node(path))
    return found


def _is_device(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
