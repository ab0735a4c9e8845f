"""COPY and ADD: from an instruction to what exactly is copied where, its fingerprint, and the copying.

A `CopyPlan` holds everything that decides the result, so that `facts` is the cache key and `write` needs nothing else.
Dockerfile reference, "COPY", "ADD".
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from naru.build.cache import Value
from naru.build.config import working_directory
from naru.build.filetree import Selected, Tree, clean_path, fingerprint, select, walk
from naru.build.instructions import Add, Copy
from naru.build.lines import Heredoc
from naru.build.ownership import ModeChange, resolve_owner
from naru.build.patterns import PathRules
from naru.build.place import (
    Attributes,
    copy_directory,
    copy_file,
    is_directory,
    make_directories,
    write_file,
)
from naru.build.untar import is_tar, untar
from naru.errors import InvalidArgument, Unsupported
from naru.kernel.openat2 import openat2
from naru.oci.image import ContainerConfig

_REMOTE = re.compile(r"(?:https?|git|ssh)://|git@|.*\.git(?:#|$)", re.IGNORECASE)
_PIVOT = "/./"


@dataclass(frozen=True, slots=True)
class _Placed:
    """A source and, with --parents, the path below the destination that it keeps."""

    source: Selected
    kept_path: str = ""


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """One COPY or ADD with all its inputs found. `destination` is absolute; `into`: it was written as a directory."""

    tree: Tree
    placed: tuple[_Placed, ...]
    inline: tuple[Heredoc, ...]
    destination: str
    into: bool
    chown: str
    mode: ModeChange | None
    exclude: PathRules
    unpacks: bool

    def facts(self) -> Mapping[str, Value]:
        """Return what the result depends on, besides the file system below."""
        return {
            "files": fingerprint(self.tree, [placed.source for placed in self.placed], self.exclude),
            "kept": [placed.kept_path for placed in self.placed],
            "inline": [[heredoc.name, heredoc.text] for heredoc in self.inline],
            "destination": self.destination,
            "into": self.into,
            "chown": self.chown,
            "chmod": self.mode.text if self.mode else "",
            "exclude": list(self.exclude.patterns),
            "unpacks": self.unpacks,
        }

    def write(self, root_fd: int, *, time_ns: int | None) -> None:
        """Copy everything into the open root. NotFound: a name of --chown is not in the root's account files."""
        owner = resolve_owner(self.chown, root_fd) if self.chown else self.tree.owner
        attributes = Attributes(owner, self.mode, time_ns)
        into = self.into or is_directory(root_fd, self.destination)
        for placed in self.placed:
            self._write_source(root_fd, placed, attributes, into=into)
        for heredoc in self.inline:
            path = posixpath.join(self.destination, heredoc.name) if into else self.destination
            write_file(root_fd, path, heredoc.text.encode(), Attributes(owner or (0, 0), self.mode, time_ns))

    def _write_source(self, root_fd: int, placed: _Placed, attributes: Attributes, *, into: bool) -> None:
        source = placed.source
        if placed.kept_path:
            target = posixpath.join(self.destination, placed.kept_path)
            if source.is_directory:
                copy_directory(self.tree, source, root_fd, target, attributes, self.exclude)
            else:
                copy_file(self.tree, source, root_fd, target, attributes)
        elif source.is_directory:
            copy_directory(self.tree, source, root_fd, self.destination, attributes, self.exclude)
        elif self.unpacks and self._unpack(source, root_fd, attributes):
            return
        elif not self.exclude.excludes(source.name):
            target = posixpath.join(self.destination, source.name) if into else self.destination
            copy_file(self.tree, source, root_fd, target, attributes)

    def _unpack(self, source: Selected, root_fd: int, attributes: Attributes) -> bool:
        """Unpack `source` into the destination if it is a tar, and say whether it was one."""
        descriptor = openat2(self.tree.root_fd, source.path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not is_tar(file):
                return False
            directory = make_directories(root_fd, self.destination, attributes)
            try:
                untar(file, directory, owner=attributes.owner if self.chown else None)
            finally:
                os.close(directory)
        return True


def plan_copy(instruction: Copy | Add, tree: Tree, config: ContainerConfig) -> CopyPlan:
    """Return the plan of `instruction` (variables replaced) that copies from `tree`.

    NotFound: a source is not there or hidden. InvalidArgument: several sources for what is not a directory.
    Unsupported: ADD of a URL or repository.
    """
    keeps_parents = isinstance(instruction, Copy) and instruction.parents
    placed: list[_Placed] = []
    for pattern in instruction.sources:
        if isinstance(instruction, Add) and _REMOTE.match(pattern):
            raise Unsupported(
                f"ADD {pattern}: fetching a URL or repository is not supported yet, use RUN with curl or git"
            )
        placed += _placed(tree, pattern, keeps_parents=keeps_parents)
    written = instruction.destination
    into = written.endswith("/") or posixpath.basename(written) in (".", "..", "") or keeps_parents
    if len(placed) + len(instruction.inline) > 1 and not into:
        name = type(instruction).__name__.upper()
        raise InvalidArgument(
            f"When using {name} with more than one source file, the destination must be a directory and end with a /"
        )
    return CopyPlan(
        tree=tree,
        placed=tuple(placed),
        inline=instruction.inline,
        destination=working_directory(config, written),
        into=into,
        chown=instruction.chown,
        mode=ModeChange(instruction.chmod) if instruction.chmod else None,
        exclude=PathRules(instruction.exclude),
        unpacks=isinstance(instruction, Add) and instruction.unpack is not False,
    )


def _placed(tree: Tree, pattern: str, *, keeps_parents: bool) -> list[_Placed]:
    selected = select(tree, pattern, recursive=keeps_parents)
    if not keeps_parents:
        return [_Placed(source) for source in selected]
    before, pivot, _ = pattern.partition(_PIVOT)
    skipped = f"{clean_path(before)}/" if pivot and clean_path(before) else ""
    return [_Placed(source, source.path.removeprefix(skipped) or ".") for source in selected]


def copy_out(tree: Tree, path: str, directory_fd: int) -> str:
    """Copy the file or directory `path` of `tree` into the open, empty directory; return its name there ("" = all)."""
    source = select(tree, path)[0]
    attributes = Attributes(tree.owner)
    if source.is_directory:
        copy_directory(tree, source, directory_fd, ".", attributes, PathRules())
        return ""
    name = next(iter(walk(tree, source))).name
    copy_file(tree, source, directory_fd, name, attributes)
    return name
