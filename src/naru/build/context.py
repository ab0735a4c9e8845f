"""The build context: a tar stream or a directory, the Dockerfile in it, and what its ignore file hides.

<data-root>/build/context-<random>/     unpacked tar; made and removed by one build, swept by `recover`
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from naru.build.directories import CONTEXT_PREFIX
from naru.build.filetree import Tree, clean_path
from naru.build.patterns import PathRules, read_ignore_file
from naru.build.untar import untar
from naru.errors import InvalidArgument, NotFound
from naru.kernel.openat2 import openat2

_LARGEST_DOCKERFILE = 16 << 20


@dataclass(frozen=True, slots=True)
class Context:
    """An open context. `tree` is what COPY may see: everything belongs to root there."""

    tree: Tree
    dockerfile: bytes
    dockerfile_name: str


@contextmanager
def open_context(source: BinaryIO | Path, *, dockerfile: str, directory: Path) -> Iterator[Context]:
    """Yield the context in `source`, a tar stream (unpacked below `directory` meanwhile) or a directory.

    InvalidArgument: not a tar, or it has no Dockerfile of that name.
    """
    if isinstance(source, Path):
        with _opened(source) as root_fd:
            yield _read(root_fd, dockerfile)
        return
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    unpacked = tempfile.mkdtemp(prefix=CONTEXT_PREFIX, dir=directory)
    try:
        with _opened(Path(unpacked)) as root_fd:
            untar(source, root_fd)
            yield _read(root_fd, dockerfile)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"build context {directory}: {os.strerror(error.errno or 0).lower()}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(root_fd: int, dockerfile: str) -> Context:
    name = clean_path(dockerfile or "Dockerfile")
    data = _file(root_fd, name)
    if data is None:
        raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}")
    ignore = _file(root_fd, f"{name}.dockerignore")
    if ignore is None:
        ignore = _file(root_fd, ".dockerignore")
    rules = PathRules(read_ignore_file(ignore or b""))
    return Context(Tree(root_fd, rules, (0, 0)), data, name)


def _file(root_fd: int, path: str) -> bytes | None:
    try:
        descriptor = openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(_LARGEST_DOCKERFILE)
    except IsADirectoryError:
        return None
    finally:
        os.close(descriptor)
