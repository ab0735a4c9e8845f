"""Files of this machine as a tar stream that is made while it is sent."""

from __future__ import annotations

import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator

_BUFFER_BYTES = 1 << 20


def stream(write: Callable[[tarfile.TarFile], None]) -> Iterator[bytes]:
    """Yield the tar that `write` makes, through a pipe; an error in `write` comes out of the iteration."""
    reading, writing = os.pipe()
    failures: list[BaseException] = []

    def produce() -> None:
        try:
            with (
                os.fdopen(writing, "wb", _BUFFER_BYTES) as sink,
                tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BUFFER_BYTES) as archive,
            ):
                write(archive)
        except BrokenPipeError:
            pass  # the reader has left, it knows why
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=produce, daemon=True)
    with os.fdopen(reading, "rb", 0) as source:
        thread.start()
        while piece := source.read(_BUFFER_BYTES):
            yield piece
    thread.join()
    if failures:
        raise failures[0]


def add(archive: tarfile.TarFile, path: str, name: str, *, as_root: bool, follow: bool = False) -> None:
    """Add one file, directory or link (not what is in a directory); sockets are left out, as Docker does."""
    status = os.stat(path) if follow else os.lstat(path)
    if stat.S_ISSOCK(status.st_mode):
        return
    archive.dereference = follow
    info = archive.gettarinfo(path, arcname=name)
    if info.type == tarfile.LNKTYPE and not info.linkname:
        info.type = tarfile.REGTYPE
    info.mtime = int(status.st_mtime)
    if as_root:
        info.uid = info.gid = 0
    info.uname = info.gname = ""
    if not info.isreg():
        archive.addfile(info)
        return
    with open(path, "rb") as file:
        archive.addfile(info, file)


def walk(top: str, is_excluded: Callable[[str], bool], may_hold: Callable[[str], bool]) -> Iterable[str]:
    """Yield paths under `top`, relative to it, parents first and sorted, without those excluded.

    An excluded directory is looked into only if it `may_hold` something that is not.
    """

    def visit(directory: str) -> Iterator[str]:
        with os.scandir(os.path.join(top, directory)) as entries:
            found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        for name, is_directory in found:
            relative = f"{directory}/{name}" if directory else name
            excluded = is_excluded(relative)
            if not excluded:
                yield relative
            if is_directory and (not excluded or may_hold(relative)):
                yield from visit(relative)

    return visit("")
