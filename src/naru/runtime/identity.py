"""Who a container's process runs as: Docker's `user[:group]` looked up in the container's own passwd and group files.

Read after the root has been entered, so a path in them or to them cannot lead outside. passwd(5), group(5).
"""

from __future__ import annotations

import os
import stat

from msgspec import Struct

from naru.kernel.mount import PROC_SUPER_MAGIC, filesystem_magic
from naru.oci.runtime import User
from naru.runtime.step import Refused

_ID_MAX = 2**31 - 1
_FILE_MAX_BYTES = 32 << 20  # an image may hold anything under that name


class Identity(Struct, frozen=True):
    """Numbers to take on, and the home directory that the passwd file gives (or "/")."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def look_up(user: User, passwd: str = "/etc/passwd", group: str = "/etc/group") -> Identity:
    """Return the identity that `user` names; numbers need no entry, names do. Refused: no such name, or out of range.

    The group is among the supplementary ones; without an explicit one, so are those that list the user.
    """
    entries = [line for line in _lines(passwd) if len(line) >= 7]
    if not user.username:
        home = next((line[5] for line in entries if line[2] == str(user.uid)), "/")
        return Identity(user.uid, user.gid, tuple(user.additional_gids), home or "/")
    name, _colon, group_name = user.username.partition(":")
    uid, gid, home, login = _user(name or "0", entries)
    group_lines = [line for line in _lines(group) if len(line) >= 3]
    listed: list[int] = []
    if group_name:
        gid = _group(group_name, group_lines)
    else:
        members = (line for line in group_lines if len(line) >= 4 and login and login in line[3].split(","))
        listed = [_number(line[2]) for line in members if line[2].isdigit()]
    added = [_group(added_name, group_lines) for added_name in user.additional_groups]
    groups = [gid, *listed, *user.additional_gids, *added]
    return Identity(uid, gid, tuple(dict.fromkeys(groups)), home or "/")


def _user(name: str, entries: list[list[str]]) -> tuple[int, int, str, str]:
    """(uid, gid, home, login name): an entry's name wins over its number, as Docker has it."""
    for line in entries:
        if line[0] == name:
            return _number(line[2]), _number(line[3]), line[5], line[0]
    if not name.isdigit():
        raise Refused(f"unable to find user {name}: no matching entries in passwd file")
    uid = _number(name)
    for line in entries:
        if line[2] == str(uid):
            return uid, _number(line[3]), line[5], line[0]
    return uid, 0, "/", ""


def _group(name: str, entries: list[list[str]]) -> int:
    for line in entries:
        if line[0] == name:
            return _number(line[2])
    if not name.isdigit():
        raise Refused(f"unable to find group {name}: no matching entries in group file")
    return _number(name)


def _number(text: str) -> int:
    if not text.isdigit() or int(text) > _ID_MAX:
        raise Refused(f"uids and gids must be in range 0-{_ID_MAX}")
    return int(text)


def _lines(path: str) -> list[list[str]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _FILE_MAX_BYTES:
            return []
        if filesystem_magic(fd) == PROC_SUPER_MAGIC:  # a link to /proc/kmsg: what is read there is gone for the host
            return []
        data = b"".join(iter(lambda: os.read(fd, 1 << 16), b""))
    finally:
        os.close(fd)
    text = data.decode("utf-8", "surrogateescape")
    return [line.strip().split(":") for line in text.splitlines() if line and not line.startswith("#")]
