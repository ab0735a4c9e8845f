"""Files that are whole or not there: write beside, fsync, rename; and locks that die with their holder."""

from __future__ import annotations

import fcntl
import os
from os import PathLike

from naru.errors import Conflict


def write_atomically(path: str | PathLike[str], data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace `path` by `data`: readers see the old content or the new, never a part.

    `durable` also survives a power cut (two fsyncs); leave it off for files under /run. rename(2), fsync(2)
    """
    target = os.fspath(path)
    temporary = f"{target}.{os.getpid()}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb", closefd=True) as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.rename(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    if durable:
        directory = os.open(os.path.dirname(target) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def lock_exclusively(path: str | PathLike[str]) -> int:
    """Take the lock file `path` for this process's lifetime and return its descriptor, which the caller keeps.

    Conflict: another process holds it. The kernel frees it when the holder dies. flock(2)
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise Conflict(f"{os.fspath(path)} is locked by process {holder or 'unknown'}") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
