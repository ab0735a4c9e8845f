"""`RUN --mount=…` as a value. Dockerfile reference, "RUN --mount"."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from naru.build.syntax import SyntaxProblem, did_you_mean

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = (
    "type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required", "mode", "uid", "gid",
    "size", "env",
)  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RunMount:
    """One mount of one RUN. Empty texts and None mean "not given"; `read_only` is already the type's default."""

    type: str = "bind"
    target: str = ""
    source: str = ""
    from_: str = ""
    read_only: bool = True
    id: str = ""
    sharing: str = ""
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size_bytes: int | None = None
    env: str = ""


def parse_run_mount(text: str, expand: Callable[[str], str] = str) -> RunMount:
    """Return the mount that `text` describes, `expand` applied to each value. SyntaxProblem: not a mount."""
    try:
        fields = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        raise SyntaxProblem(f"failed to parse csv mounts: {text}") from None
    given = dict(_field(field, expand) for field in fields)
    type_ = str(given.pop("type", "bind"))
    if "read_only" not in given:
        given["read_only"] = type_ not in ("cache", "tmpfs")
    mount = replace(RunMount(type=type_), **given)
    _check(mount)
    return mount


def mount_origin(text: str) -> str:
    """Return the stage or image that the mount `text` comes from, "" if none; other values may hold variables."""
    fields = (field.partition("=") for field in next(csv.reader([text]), []))
    return next((value for key, _, value in fields if key.lower() == "from"), "")


def _field(field: str, expand: Callable[[str], str]) -> tuple[str, Any]:
    written, separator, value = field.partition("=")
    key = _ALIASES.get(written.lower(), written.lower())
    if not separator:
        if key in ("readonly", "readwrite"):
            return "read_only", key == "readonly"
        if key == "required":
            return "required", True
        raise SyntaxProblem(f"invalid field '{field}' must be a key=value pair")
    if key not in _KEYS:
        raise SyntaxProblem(f"unexpected key '{written}' in '{field}'{did_you_mean(key, [*_KEYS, *_ALIASES])}")
    if key == "from" and re.search(r"\$.", value):
        raise SyntaxProblem("'from' doesn't support variable expansion, define alias stage instead")
    value = expand(value)
    if key in ("readonly", "readwrite"):
        return "read_only", _boolean(written, value) == (key == "readonly")
    if key == "required":
        return "required", _boolean(written, value)
    if key in ("uid", "gid", "mode"):
        return key, _number(key, value)
    if key == "size":
        return "size_bytes", _size(value)
    if key == "type" and value.lower() not in _TYPES:
        raise SyntaxProblem(f'unsupported mount type "{value}"{did_you_mean(value.lower(), _TYPES)}')
    if key == "sharing" and value.lower() not in _SHARING:
        raise SyntaxProblem(f'unsupported sharing value "{value}"{did_you_mean(value.lower(), _SHARING)}')
    if key in ("type", "sharing"):
        value = value.lower()
    return ("from_" if key == "from" else key), value


def _boolean(key: str, value: str) -> bool:
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise SyntaxProblem(f"invalid value for {key}: {value}")


def _number(key: str, value: str) -> int:
    try:
        number = int(value, 8 if key == "mode" else 10)
    except ValueError:
        number = -1
    if number < 0:
        raise SyntaxProblem(f"invalid value {value} for {key}")
    return number


def _size(value: str) -> int:
    match = _SIZE.match(value)
    if match is None:
        raise SyntaxProblem(f"invalid value for size: {value}")
    return int(float(match[1]) * 1024 ** (" kmgtp".index(match[2].lower() or " ")))


def _check(mount: RunMount) -> None:
    if mount.type not in ("secret", "ssh", "cache"):
        for name in ("mode", "uid", "gid"):
            if getattr(mount, name) is not None:
                raise SyntaxProblem(f'{name} not allowed for "{mount.type}" type mounts')
    if mount.size_bytes is not None and mount.type != "tmpfs":
        raise SyntaxProblem(f"unexpected key 'size' for mount type '{mount.type}'")
    if mount.required and mount.type not in ("secret", "ssh"):
        raise SyntaxProblem(f"unexpected key 'required' for mount type '{mount.type}'")
    if mount.env and mount.type != "secret":
        raise SyntaxProblem(f"unexpected key 'env' for mount type '{mount.type}'")
    if mount.type == "secret":
        if mount.from_:
            raise SyntaxProblem("secret mount should not have a from")
        if mount.sharing:
            raise SyntaxProblem("secret mount should not define sharing")
        if not (mount.source or mount.target or mount.id or mount.env):
            raise SyntaxProblem("invalid secret mount. one of source, target required")
        if mount.source and mount.id:
            raise SyntaxProblem("both source and id can't be set")
    if mount.sharing and mount.type != "cache":
        raise SyntaxProblem(f"invalid cache sharing set for {mount.type} mount")
    if mount.type in ("bind", "cache", "tmpfs") and not mount.target:
        raise SyntaxProblem(f'invalid mount config for type "{mount.type}": target is required')
