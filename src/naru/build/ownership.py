"""`--chown` and `--chmod`: text → numbers, with names looked up in the root that is being built."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass

from naru.errors import InvalidArgument, NotFound
from naru.kernel.openat2 import openat2

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)$")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_BITS = {"r": 0o4, "w": 0o2, "x": 0o1}
_SHIFT = {"u": 6, "g": 3, "o": 0}
_LARGEST_ACCOUNT_FILE = 8 << 20


def resolve_owner(text: str, root_fd: int) -> tuple[int, int]:
    """Return (uid, gid) of `user[:group]`; a user alone brings its primary group, a lone number is both.

    NotFound: a name that the root's /etc/passwd or /etc/group does not have.
    """
    user, separator, group = text.partition(":")
    if user.isdecimal():
        uid, gid = int(user), int(user)
    else:
        account = _account(root_fd, "etc/passwd", user)
        if account is None or len(account) < 4:
            raise NotFound(f"unable to find user {user}: no matching entries in passwd file")
        uid, gid = int(account[2]), int(account[3])
    if not separator or not group:
        return uid, gid
    if group.isdecimal():
        return uid, int(group)
    found = _account(root_fd, "etc/group", group)
    if found is None or len(found) < 3:
        raise NotFound(f"unable to find group {group}: no matching entries in group file")
    return uid, int(found[2])


def _account(root_fd: int, path: str, name: str) -> list[str] | None:
    try:
        descriptor = openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        text = file.read(_LARGEST_ACCOUNT_FILE).decode("utf-8", "surrogateescape")
    for line in text.splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return fields
    return None


@dataclass(frozen=True, slots=True)
class ModeChange:
    """A parsed `--chmod`: an octal mode, or clauses such as `u=rwX,go=rX`."""

    text: str

    def __post_init__(self) -> None:
        if re.fullmatch(r"0*[0-7]{1,4}", self.text):
            return
        if not all(_CLAUSE.fullmatch(clause) for clause in self.text.split(",")):
            raise InvalidArgument(
                f"invalid chmod parameter: '{self.text}'. it should be octal string and between 0 and 07777"
            )

    def apply(self, mode: int) -> int:
        """Return the permission bits that a file of `mode` (type bits included) gets."""
        if self.text[0].isdigit():
            return int(self.text, 8)
        bits = stat.S_IMODE(mode)
        for clause in self.text.split(","):
            match = _CLAUSE.fullmatch(clause)
            assert match is not None
            who = "ugo" if not match[1] or "a" in match[1] else match[1]
            for operator, permissions in _ACTION.findall(match[2]):
                bits = _changed(bits, who, operator, permissions, is_directory=stat.S_ISDIR(mode))
        return bits


def _changed(bits: int, who: str, operator: str, permissions: str, *, is_directory: bool) -> int:
    for name in who:
        shift = _SHIFT[name]
        if permissions in ("u", "g", "o") and permissions:
            wanted = bits >> _SHIFT[permissions] & 0o7
        else:
            wanted = sum(_BITS.get(letter, 0) for letter in set(permissions))
            if "X" in permissions and (is_directory or bits & 0o111):
                wanted |= 0o1
        special = 0
        if "s" in permissions and name in "ug":
            special |= stat.S_ISUID if name == "u" else stat.S_ISGID
        if "t" in permissions and name == "o":
            special |= stat.S_ISVTX
        if operator == "=":
            bits = bits & ~(0o7 << shift) | wanted << shift | special
        elif operator == "+":
            bits |= wanted << shift | special
        else:
            bits &= ~(wanted << shift | special)
    return bits
