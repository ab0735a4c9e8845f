"""What a layer says about the layers below it, settled once those are there.

A layer is unpacked by itself, so that all of an image can be unpacked at once. Two things must wait until it is put on
its parent: a directory that the tar did not list gets the attributes of the one it continues, and a whiteout that hides
nothing is dropped, because overlayfs would show it as an entry that cannot be opened where directories do not merge.

The names recorded while unpacking are the tar's. One that leads through a symlink of the layer, which may point to
anywhere on the host, is left as it is.

kernel, filesystems/overlayfs.rst, whiteouts and opaque directories
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from naru.image.unpack import OPAQUE_XATTR
from naru.kernel.file import is_whiteout_device, path_at
from naru.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from naru.kernel.tree import read_xattrs, set_attributes


def settle(layer: int, lowers: Sequence[int], implied: Sequence[bytes], whiteouts: Sequence[bytes]) -> None:
    """Fit the layer in the directory open as `layer` on `lowers`, topmost first, also open directories."""
    for path in implied:
        directory = _open_plain(layer, path)
        if directory is None:
            continue
        try:
            below = _find_below(layer, lowers, path)
            if below is not None:
                _continue_directory(directory, below, path)
        finally:
            os.close(directory)
    for path in whiteouts:
        parent, _slash, name = path.rpartition(b"/")
        holder = _open_plain(layer, parent)
        if holder is None:
            continue
        try:
            if _find_below(layer, lowers, path) is None and _is_whiteout(holder, name):
                os.unlink(name, dir_fd=holder)
        finally:
            os.close(holder)


def find(lowers: Sequence[int], path: bytes) -> int | None:
    """Return the topmost of `lowers` whose `path` shows through the ones above it, None if none does."""
    for lower in lowers:
        status, is_closed = _look(lower, path)
        if status is not None:
            return None if is_whiteout_device(status) else lower
        if is_closed:
            return None
    return None


def is_opaque(layer: int, path: bytes) -> bool:
    """Say whether the directory `path` of a layer hides what is below it."""
    try:
        return os.getxattr(path_at(layer, path or b"."), OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def _find_below(layer: int, lowers: Sequence[int], path: bytes) -> int | None:
    lower = find(lowers, path)
    if lower is None:
        return None
    parents = path.split(b"/")[:-1]
    if any(is_opaque(layer, b"/".join(parents[: depth + 1])) for depth in range(len(parents))):
        return None
    return lower


def _look(lower: int, path: bytes) -> tuple[os.stat_result | None, bool]:
    """Return what `path` is in one layer, and whether that layer keeps the ones below it from showing there."""
    if not path:
        return os.stat(lower), False
    names = path.split(b"/")
    is_closed = False
    for depth in range(len(names)):
        # Every component before the last was seen to be a directory, and nobody changes a committed layer.
        place = b"/".join(names[: depth + 1])
        try:
            status = os.stat(place, dir_fd=lower, follow_symlinks=False)
        except FileNotFoundError:
            return None, is_closed
        if depth == len(names) - 1:
            return status, is_closed
        if not stat.S_ISDIR(status.st_mode):
            return None, True
        is_closed = is_closed or is_opaque(lower, place)
    return None, is_closed


def _continue_directory(directory: int, lower: int, path: bytes) -> None:
    below = _open_plain(lower, path)
    if below is None:
        return
    try:
        set_attributes(directory, os.fstat(below), read_xattrs(below))
    finally:
        os.close(below)


def _is_whiteout(holder: int, name: bytes) -> bool:
    try:
        return is_whiteout_device(os.stat(name, dir_fd=holder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _open_plain(layer: int, path: bytes) -> int | None:
    """Open the directory `path` of a layer; None if it is none, or is reached through a symlink."""
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    try:
        return openat2(layer, path or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=resolve)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR):
            return None
        raise
