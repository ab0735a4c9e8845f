"""`--volume`, `--mount`, `--tmpfs` and `--device` to the API's binds, mounts and devices."""

from __future__ import annotations

import os
from collections.abc import Sequence

from naru.cli import units
from naru.cli.flags import UsageError
from naru.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TRUE = {"": True, "1": True, "true": True, "t": True, "0": False, "false": False, "f": False}


def volumes(specs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return binds (`source:target[:options]`, relative sources made absolute) and targets of anonymous volumes."""
    binds, anonymous = [], []
    for spec in specs:
        source, colon, rest = spec.partition(":")
        if not spec or (colon and not rest):
            raise InvalidArgument(f"invalid spec: {spec}: empty section between colons")
        if not colon:
            anonymous.append(spec)
            continue
        binds.append(f"{os.path.abspath(source) if source.startswith('.') else source}:{rest}")
    return binds, anonymous


def tmpfs(specs: Sequence[str]) -> dict[str, str]:
    """Return options by path of `path[:options]`."""
    return {path: options for path, _, options in (spec.partition(":") for spec in specs)}


def mounts(specs: Sequence[str]) -> list[dict[str, Any]]:
    """Return the API's mounts for `--mount` values."""
    return [_mount(spec) for spec in specs]


def devices(specs: Sequence[str]) -> list[dict[str, str]]:
    """Return the API's devices for `path[:path][:rwm]`."""
    found = []
    for spec in specs:
        parts = spec.split(":")
        if len(parts) > 3 or not parts[0]:
            raise InvalidArgument(f"bad format for path: {spec}")
        target, mode = parts[0], "rwm"
        if len(parts) == 3:
            target, mode = parts[1] or target, parts[2]
        elif len(parts) == 2:
            is_mode = bool(parts[1]) and not parts[1].strip("rwm")
            target, mode = (target, parts[1]) if is_mode else (parts[1], mode)
        found.append({"PathOnHost": parts[0], "PathInContainer": target, "CgroupPermissions": mode})
    return found


def _mount(spec: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"Type": "volume"}
    options: dict[str, dict[str, Any]] = {}
    for field in _fields(spec):
        key, has_value, value = field.partition("=")
        key = key.lower()
        if not has_value and key not in ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"):
            raise _wrong(spec, f"invalid field '{field}' must be a key=value pair")
        _read(spec, mount, options, key, value)
    if not mount.get("Target"):
        raise _wrong(spec, "target is required")
    for kind, name in (("bind", "BindOptions"), ("volume", "VolumeOptions"), ("tmpfs", "TmpfsOptions")):
        if name in options and mount["Type"] != kind:
            raise _wrong(spec, f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'")
    source = mount.get("Source", "")
    if mount["Type"] == "bind" and source.startswith("."):
        mount["Source"] = os.path.abspath(source)
    return {**mount, **options}


def _read(spec: str, mount: dict[str, Any], options: dict[str, dict[str, Any]], key: str, value: str) -> None:
    def option(kind: str, name: str, read: Any) -> None:
        options.setdefault(kind, {})[name] = read

    match key:
        case "type":
            mount["Type"] = value.lower()
        case "source" | "src":
            mount["Source"] = value
        case "target" | "dst" | "destination":
            mount["Target"] = value
        case "readonly" | "ro":
            mount["ReadOnly"] = _truth(spec, key, value)
        case "consistency":
            mount["Consistency"] = value.lower()
        case "bind-propagation":
            option("BindOptions", "Propagation", value.lower())
        case "bind-nonrecursive":
            option("BindOptions", "NonRecursive", _truth(spec, key, value))
        case "bind-create-src":
            option("BindOptions", "CreateMountpoint", _truth(spec, key, value))
        case "bind-recursive":
            if value == "disabled":
                option("BindOptions", "NonRecursive", True)
            elif value == "writable":
                option("BindOptions", "ReadOnlyNonRecursive", True)
            elif value == "readonly":
                option("BindOptions", "ReadOnlyForceRecursive", True)
            elif value != "enabled":
                raise _wrong(spec, f"invalid value for {key}: {value}")
        case "volume-nocopy":
            option("VolumeOptions", "NoCopy", _truth(spec, key, value))
        case "volume-subpath":
            option("VolumeOptions", "Subpath", value)
        case "volume-driver":
            options.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = value
        case "volume-opt":
            driver = options.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
            name, _, setting = value.partition("=")
            driver.setdefault("Options", {})[name] = setting
        case "volume-label":
            name, _, setting = value.partition("=")
            options.setdefault("VolumeOptions", {}).setdefault("Labels", {})[name] = setting
        case "tmpfs-size":
            try:
                option("TmpfsOptions", "SizeBytes", units.parse_bytes(value))
            except ValueError:
                raise _wrong(spec, f"invalid value for {key}: {value}") from None
        case "tmpfs-mode":
            try:
                option("TmpfsOptions", "Mode", int(value, 8))
            except ValueError:
                raise _wrong(spec, f"invalid value for {key}: {value}") from None
        case "image-subpath":
            options.setdefault("ImageOptions", {})["Subpath"] = value
        case _:
            raise _wrong(spec, f"unexpected key '{key}' in '{key}={value}'")


def _fields(spec: str) -> list[str]:
    if '"' not in spec:
        return spec.split(",")
    import csv

    return next(csv.reader([spec]))


def _truth(spec: str, key: str, value: str) -> bool:
    if value.lower() not in _TRUE:
        raise _wrong(spec, f"invalid value for {key}: {value}")
    return _TRUE[value.lower()]


def _wrong(spec: str, reason: str) -> UsageError:
    return UsageError(f'invalid argument "{spec}" for "--mount" flag: {reason}')
