"""Container Device Interface: what a vendor's files say a container needs to use a device. CDI specification 1.0.

    /etc/cdi/*.{json,yaml}       written by an administrator
    /var/run/cdi/*.{json,yaml}   written by a vendor's service; these win

A device goes by `vendor/class=name`. Files are read anew each time: they change when devices come and go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from naru.engine.devices import device_node
from naru.errors import InvalidArgument
from naru.oci import runtime as oci

SPEC_DIRS = ("/etc/cdi", "/var/run/cdi")

_NAME = re.compile(r"([\w.-]+/[\w.-]+)=([\w.:-]+)\Z")
_HOOKS = {
    "prestart": "prestart",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
}


class DeviceNode(Struct, rename="camel"):
    """A device node to make; what is not said is as on the host."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = "rwm"
    uid: int | None = None
    gid: int | None = None


class Mount(Struct, rename="camel"):
    host_path: str
    container_path: str
    type: str = ""
    options: list[str] = []


class Hook(Struct, rename="camel"):
    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class Edits(Struct, rename="camel"):
    """What changes in a container's spec."""

    env: list[str] = []
    device_nodes: list[DeviceNode] = []
    mounts: list[Mount] = []
    hooks: list[Hook] = []
    additional_gids: list[int] = msgspec.field(default_factory=list, name="additionalGids")
    intel_rdt: object = None
    net_devices: object = None


class Device(Struct, rename="camel"):
    name: str
    container_edits: Edits = msgspec.field(default_factory=Edits)


class _File(Struct, rename="camel"):
    kind: str
    devices: list[Device] = []
    container_edits: Edits = msgspec.field(default_factory=Edits)


@dataclass(frozen=True, slots=True)
class Found:
    """A device: its own edits, and those of its file, which are made once for all its devices."""

    edits: Edits
    file: str
    common: Edits


def registry() -> dict[str, Found]:
    """Return every device by its full name; later directories win, and a file that is damaged has none.

    A name that two files of one directory have is nobody's.
    """
    found: dict[str, Found] = {}
    for directory in SPEC_DIRS:
        here: dict[str, Found] = {}
        twice: set[str] = set()
        for path in sorted(Path(directory).glob("*")):
            for name, device in _devices(path).items():
                (twice.add(name) if name in here else here.update({name: device}))
        for name in twice:
            here.pop(name)
            found.pop(name, None)
        found.update(here)
    return found


def _devices(path: Path) -> dict[str, Found]:
    try:
        if path.suffix == ".json":
            file = msgspec.json.decode(path.read_bytes(), type=_File)
        elif path.suffix in (".yaml", ".yml"):
            file = msgspec.yaml.decode(path.read_bytes(), type=_File)
        else:
            return {}
    except (OSError, msgspec.MsgspecError):
        return {}
    return {
        f"{file.kind}={device.name}": Found(device.container_edits, str(path), file.container_edits)
        for device in file.devices
    }


def resolve(names: Iterable[str], known: dict[str, Found]) -> list[Edits]:
    """Return the edits of the devices `names`, in their order. InvalidArgument: some are not known."""
    names = list(names)
    missing = [name for name in names if not _NAME.match(name) or name not in known]
    if missing:
        raise InvalidArgument(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}")
    edits: list[Edits] = []
    files: set[str] = set()
    for name in dict.fromkeys(names):
        device = known[name]
        edits.append(device.edits)
        if device.file not in files:
            files.add(device.file)
            edits.append(device.common)
    for one in edits:
        if one.intel_rdt or one.net_devices:
            raise InvalidArgument("CDI device injection failed: intelRdt and netDevices are not supported")
        for hook in one.hooks:
            if hook.hook_name not in _HOOKS:
                raise InvalidArgument(f'CDI device injection failed: a hook "{hook.hook_name}" cannot be run')
    return edits


def apply(spec: oci.Spec, edits: Edits) -> None:
    """Make `edits` in `spec`. InvalidArgument: a device node is not on this host."""
    process, linux = spec.process, spec.linux
    assert process is not None and linux is not None
    names = {entry.partition("=")[0] for entry in edits.env}
    process.env = [entry for entry in process.env if entry.partition("=")[0] not in names] + edits.env
    process.user.additional_gids = [*process.user.additional_gids, *edits.additional_gids]
    linux.resources = linux.resources or oci.Resources()
    for asked in edits.device_nodes:
        node = _node(asked)
        linux.devices = [kept for kept in linux.devices if kept.path != node.path] + [node]
        linux.resources.devices.append(
            oci.DeviceRule(
                allow=True, type=node.type, major=node.major, minor=node.minor, access=asked.permissions or "rwm"
            )
        )
    for mount in edits.mounts:
        options = mount.options if {"bind", "rbind"} & {*mount.options} or mount.type else ["rbind", *mount.options]
        kind = mount.type or "bind"
        spec.mounts = [kept for kept in spec.mounts if kept.destination != mount.container_path]
        spec.mounts.append(
            oci.Mount(destination=mount.container_path, type=kind, source=mount.host_path, options=list(options))
        )
    for hook in edits.hooks:
        spec.hooks = spec.hooks or oci.Hooks()
        made = oci.Hook(path=hook.path, args=hook.args, env=hook.env, timeout=hook.timeout)
        attribute = _HOOKS[hook.hook_name]
        setattr(spec.hooks, attribute, [*getattr(spec.hooks, attribute), made])


def _node(asked: DeviceNode) -> oci.Device:
    node = oci.Device(type=asked.type, path=asked.path, major=asked.major, minor=asked.minor)
    if not asked.type or (asked.type != "p" and not asked.major):
        found = device_node(asked.host_path or asked.path)
        node.type, node.major, node.minor = found.type, found.major, found.minor
    node.file_mode, node.uid, node.gid = asked.file_mode, asked.uid, asked.gid
    return node
