"""What COPY and ADD read: the files below one root, chosen by pattern, walked in order, and fingerprinted.

A root is an open directory: the unpacked build context, or the detached mount of a stage or image. Every path is
resolved inside it by openat2, so a symlink in a context or an image leads nowhere else.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from naru.build.patterns import PathRules, compile_pattern, has_wildcard
from naru.errors import InvalidArgument, NotFound
from naru.kernel.openat2 import openat2

_CHUNK = 1 << 20
_XATTR_PREFIXES = ("user.", "security.capability", "system.posix_acl_")


@dataclass(frozen=True, slots=True)
class Tree:
    """A root to copy from. `owner` replaces every owner (0:0 for a context); `rules` hide paths."""

    root_fd: int
    rules: PathRules = field(default_factory=PathRules)
    owner: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Selected:
    """One source that a pattern chose: a path relative to the root ("" is the root itself)."""

    path: str
    is_directory: bool

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file below a source, valid until the walk goes on: `name` in the open directory `directory_fd`.

    `path` is relative to the source; it is "" for a source that is a file itself.
    """

    path: str
    directory_fd: int
    name: str
    stat: os.stat_result

    def open(self) -> int:
        """Open a regular file or directory for reading; the caller closes the descriptor."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self.name, flags, dir_fd=self.directory_fd)

    def target(self) -> str:
        """Return where the symlink points."""
        return os.readlink(self.name, dir_fd=self.directory_fd)


def clean_path(path: str) -> str:
    """Return `path` relative to the root without `.` and `..`; what climbs out stays at the root."""
    return posixpath.normpath("/" + path).lstrip("/")


def select(tree: Tree, pattern: str, *, recursive: bool = False) -> list[Selected]:
    """Return what `pattern` names, sorted; with `recursive`, `**` crosses directories.

    NotFound, in Docker's words: nothing there, or all of it hidden by the ignore file.
    """
    cleaned = clean_path(pattern)
    is_pattern = has_wildcard(cleaned)
    paths = sorted(_matching(tree, cleaned.split("/"), "", recursive)) if is_pattern else [cleaned]
    chosen = [found for path in paths if (found := _look(tree, path)) is not None]
    if not chosen:
        missing = "no source files were specified" if is_pattern else _absent(cleaned)
        raise NotFound(missing)
    return chosen


def _absent(path: str) -> str:
    return f"file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"


def _look(tree: Tree, path: str) -> Selected | None:
    try:
        descriptor = openat2(tree.root_fd, path or ".", os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    try:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    if path and tree.rules.excludes(path) and not (is_directory and not tree.rules.prunes(path)):
        return None
    return Selected(path, is_directory)


def _matching(tree: Tree, parts: list[str], base: str, recursive: bool) -> Iterator[str]:
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if recursive and part == "**":
        yield from _matching(tree, rest, base, recursive)
        for name in _children(tree, base):
            yield from _matching(tree, parts, posixpath.join(base, name), recursive)
    elif not has_wildcard(part):
        yield from _matching(tree, rest, posixpath.join(base, part), recursive)
    else:
        regex = compile_pattern(part, double_star=False)
        for name in _children(tree, base):
            if regex.fullmatch(name):
                yield from _matching(tree, rest, posixpath.join(base, name), recursive)


def _children(tree: Tree, path: str) -> list[str]:
    try:
        descriptor = openat2(tree.root_fd, path or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def walk(tree: Tree, source: Selected, exclude: PathRules | None = None) -> Iterator[Entry]:
    """Yield what is below `source`, parents before children, names in order; the directory itself is not among it.

    A source that is a file is one entry with path "". Ignore rules of the tree and `exclude` (relative to the
    source) leave entries out.
    """
    exclude = exclude or PathRules()
    if source.is_directory:
        with _directory(tree.root_fd, source.path or ".") as descriptor:
            yield from _walk(tree, descriptor, source.path, "", exclude)
        return
    if exclude.excludes(source.name):
        return
    directory, name = _real_place(tree, source.path)
    with _directory(tree.root_fd, directory) as descriptor:
        yield Entry("", descriptor, name, os.stat(name, dir_fd=descriptor, follow_symlinks=False))


def _real_place(tree: Tree, path: str) -> tuple[str, str]:
    """Follow a source that is a symlink, inside the root, to the file that is meant."""
    for _ in range(40):
        directory, name = posixpath.split(path)
        with _directory(tree.root_fd, directory or ".") as descriptor:
            if not stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                return directory or ".", name
            path = clean_path(posixpath.join(directory, os.readlink(name, dir_fd=descriptor)))
    raise InvalidArgument(f"{path}: too many levels of symbolic links")


@contextmanager
def _directory(root_fd: int, path: str) -> Iterator[int]:
    descriptor = openat2(root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _walk(tree: Tree, directory_fd: int, context_path: str, below: str, exclude: PathRules) -> Iterator[Entry]:
    for name in sorted(os.listdir(directory_fd)):
        in_root, path = posixpath.join(context_path, name), posixpath.join(below, name)
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        is_directory = stat.S_ISDIR(status.st_mode)
        hidden = tree.rules.excludes(in_root) or exclude.excludes(path)
        if hidden and (not is_directory or (tree.rules.prunes(in_root) and exclude.prunes(path))):
            continue
        entry = Entry(path, directory_fd, name, status)
        if not is_directory:
            yield entry
            continue
        below_it = entry.open()
        try:
            announced = not hidden
            if announced:
                yield entry
            for child in _walk(tree, below_it, in_root, path, exclude):
                if not announced:
                    yield entry
                    announced = True
                yield child
        finally:
            os.close(below_it)


def xattrs(descriptor: int) -> dict[str, bytes]:
    """Return the extended attributes that travel with a copy (user's, file capabilities, ACLs)."""
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.EBADF):
            return {}
        raise
    return {name: os.getxattr(descriptor, name) for name in sorted(names) if name.startswith(_XATTR_PREFIXES)}


def fingerprint(tree: Tree, sources: list[Selected], exclude: PathRules | None = None) -> str:
    """Return a digest of what a COPY of `sources` would bring: names, kinds, modes, owners, contents, xattrs.

    Modification times are not in it: a fresh checkout of the same files is the same.
    """
    total = hashlib.sha256()
    for source in sources:
        total.update(f"source {source.path}\0{source.is_directory}\n".encode("utf-8", "surrogateescape"))
        for entry in walk(tree, source, exclude):
            total.update(_fingerprint_entry(entry, tree.owner))
    return f"sha256:{total.hexdigest()}"


def _fingerprint_entry(entry: Entry, owner: tuple[int, int] | None) -> bytes:
    status = entry.stat
    uid, gid = owner or (status.st_uid, status.st_gid)
    line = f"{entry.path}\0{status.st_mode:o}\0{uid}:{gid}\0"
    if stat.S_ISLNK(status.st_mode):
        line += entry.target()
    elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        descriptor = entry.open()
        try:
            if stat.S_ISREG(status.st_mode):
                line += file_digest(descriptor, status.st_size)
            for name, value in xattrs(descriptor).items():
                line += f"\0{name}={value.hex()}"
        finally:
            os.close(descriptor)
    elif stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
        line += str(status.st_rdev)
    return line.encode("utf-8", "surrogateescape") + b"\n"


def file_digest(descriptor: int, size: int) -> str:
    """Return the sha256 of an open file of about `size` bytes from its current position."""
    digest = hashlib.sha256()
    buffer = bytearray(min(size + 1, _CHUNK))
    while count := os.readv(descriptor, [buffer]):
        digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()
