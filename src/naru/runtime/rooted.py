"""Paths inside a container's root, resolved so that they cannot leave it, and used by descriptor afterwards.

Whatever an image, a volume or another container can turn into a symbolic link goes through here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from naru.kernel.openat2 import RESOLVE_IN_ROOT, openat2

_LINKS_MAX = 40


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH, *, resolve: int = 0) -> int:
    """Open `path` with `root_fd` as "/"; the caller owns the descriptor. `resolve` adds RESOLVE_ flags."""
    return openat2(root_fd, path or "/", flags, resolve=RESOLVE_IN_ROOT | resolve)


def make_directory(root_fd: int, path: str, mode: int = 0o755) -> int:
    """Open the directory `path` inside the root, making what is missing of it; the caller owns the descriptor.

    A dangling symbolic link on the way is followed and its target made, inside the root. OSError: ENOTDIR if
    something else is in the way.
    """
    return _make(root_fd, path, lambda parent, name: os.mkdir(name, mode, dir_fd=parent), os.O_PATH | os.O_DIRECTORY)


def make_file(root_fd: int, path: str, mode: int = 0o644) -> int:
    """Open `path` inside the root, making an empty file (and directories above) if nothing is there."""

    def create(parent: int, name: str) -> None:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent))

    return _make(root_fd, path, create, os.O_PATH)


def _make(root_fd: int, path: str, create: Callable[[int, str], None], flags: int) -> int:
    try:
        return open_in_root(root_fd, path, flags)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    for _attempt in range(_LINKS_MAX):
        parent_path, name = os.path.split(path.rstrip("/"))
        parent = make_directory(root_fd, parent_path)
        try:
            link = _read_link(parent, name)
            if link is not None:
                path = os.path.join(parent_path, link)
                continue
            try:
                create(parent, name)
            except FileExistsError:
                pass
        finally:
            os.close(parent)
        return open_in_root(root_fd, path, flags)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _read_link(parent: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return None


def is_directory(fd: int) -> bool:
    """Say whether `fd` is open on a directory."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)
