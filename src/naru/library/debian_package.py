"""Read a .deb and unpack it below a root directory the way dpkg does, without dpkg.

A .deb is an `ar` archive of `debian-binary`, `control.tar.*` and `data.tar.*`. Unpacking follows dpkg where it
differs from tar: a directory entry keeps a symlink to a directory that is there already (merged /usr), and a
conffile is laid down as `<name>.dpkg-new` for `dpkg --configure` to put in place. Every path is resolved by
openat2(2) inside the root, then used by descriptor: an absolute symlink in the root cannot lead out of it.
deb(5), dpkg(1)
"""

from __future__ import annotations

import fnmatch
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import zstandard

from naru.errors import Corrupt
from naru.kernel.openat2 import RESOLVE_IN_ROOT, openat2

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60
# The largest package of any Debian suite unpacks to some 6 GB, those of a base system to 30 MB.
_MAX_UNPACKED_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Deb:
    """The two parts of a package: its control files by name, and its data as an uncompressed tar."""

    control: dict[str, bytes]
    data: bytes

    @property
    def conffiles(self) -> list[str]:
        """Absolute paths of the package's conffiles; entries with a flag (`remove-on-upgrade`) name no file."""
        lines = self.control.get("conffiles", b"").decode().splitlines()
        return [line.strip() for line in lines if line.startswith("/")]


def read_deb(content: bytes, name: str) -> Deb:
    """Take a .deb apart. Corrupt: it is not one."""
    control: dict[str, bytes] = {}
    data: bytes | None = None
    for member, body in _ar_members(content, name):
        if member.startswith("control.tar"):
            with tarfile.open(fileobj=io.BytesIO(_decompress(member, body)), mode="r:") as archive:
                for entry in archive:
                    if entry.isfile() and (file := archive.extractfile(entry)):
                        control[entry.name.removeprefix("./")] = file.read()
        elif member.startswith("data.tar"):
            data = _decompress(member, body)
    if data is None or "control" not in control:
        raise Corrupt(f"{name}: not a Debian package: a part is missing")
    return Deb(control, data)


def _ar_members(content: bytes, name: str) -> Iterator[tuple[str, memoryview]]:
    if not content.startswith(_AR_MAGIC):
        raise Corrupt(f"{name}: not a Debian package")
    view = memoryview(content)
    position = len(_AR_MAGIC)
    while position + _AR_HEADER_BYTES <= len(content):
        header = bytes(view[position : position + _AR_HEADER_BYTES])
        size = int(header[48:58]) if header[48:58].strip().isdigit() else -1
        position += _AR_HEADER_BYTES
        if size < 0 or header[58:] != b"`\n" or position + size > len(content):
            raise Corrupt(f"{name}: broken archive header")
        yield header[:16].decode("ascii", "replace").strip().rstrip("/"), view[position : position + size]
        position += size + size % 2


def _decompress(member: str, body: memoryview) -> bytes:
    suffix = member.rpartition(".")[2]
    if suffix == "xz":
        return lzma.decompress(body)
    if suffix == "zst":
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=_MAX_UNPACKED_BYTES)
    if suffix == "gz":
        return gzip.decompress(body)
    if suffix == "tar":
        return bytes(body)
    raise Corrupt(f"{member}: unknown compression")


class PathFilter:
    """dpkg's path-exclude and path-include: the last rule that matches a path decides. dpkg.cfg(5)"""

    def __init__(self, rules: Sequence[tuple[str, str]] = ()) -> None:
        """`rules` are (`path-exclude` or `path-include`, shell pattern) in the order of the configuration file."""
        self._rules = [(kind == "path-exclude", re.compile(fnmatch.translate(pattern))) for kind, pattern in rules]

    def excludes(self, path: str) -> bool:
        """Whether a file at the absolute `path` is left out."""
        decided = False
        for is_exclusion, pattern in self._rules:
            if is_exclusion != decided and pattern.match(path):
                decided = is_exclusion
        return decided


class Root:
    """A directory that packages are unpacked into; holds descriptors of the directories in use. A context manager."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._directories: dict[str, int] = {}

    def __enter__(self) -> Root:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in [*self._directories.values(), self._fd]:
            os.close(descriptor)
        self._directories.clear()

    def directory(self, path: str) -> int:
        """Return a descriptor of the directory at `path` (relative to the root), which stays ours."""
        if not path:
            return self._fd
        descriptor = self._directories.get(path)
        if descriptor is None:
            descriptor = openat2(self._fd, path, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT)
            self._directories[path] = descriptor
        return descriptor

    def make_directories(self, path: str, mode: int = 0o755) -> None:
        """Make the directory `path` and those above it that are missing."""
        parent, _, name = path.rpartition("/")
        if parent:
            self.make_directories(parent)
        self._make_directory(parent, name, mode)

    def write(self, path: str, content: bytes | memoryview, *, mode: int = 0o644) -> None:
        """Write a new file owned by root; the directories above are made when missing."""
        parent, _, name = path.rpartition("/")
        if parent:
            self.make_directories(parent)
        self._write(parent, name, content, mode, 0, 0, None)

    def symlink(self, target: str, path: str) -> None:
        """Make the symlink `path`, which must not exist."""
        parent, _, name = path.rpartition("/")
        os.symlink(target, name, dir_fd=self.directory(parent))

    def unpack(self, deb: Deb, skip: PathFilter) -> list[str]:
        """Lay down the files of `deb` but for those `skip` excludes; return every path it owns, in archive order."""
        conffiles = set(deb.conffiles)
        owned: list[str] = []
        view = memoryview(deb.data)
        with tarfile.open(fileobj=io.BytesIO(deb.data), mode="r:") as archive:
            for entry in archive:
                path = _clean(entry.name)
                owned.append(f"/{path}" if path else "/.")
                if not path or skip.excludes(f"/{path}"):
                    continue
                self._unpack_entry(entry, path, view, is_conffile=f"/{path}" in conffiles)
        return owned

    def _unpack_entry(self, entry: tarfile.TarInfo, path: str, data: memoryview, *, is_conffile: bool) -> None:
        parent, _, name = path.rpartition("/")
        if entry.isdir():
            if self._make_directory(parent, name, entry.mode):
                os.chown(name, entry.uid, entry.gid, dir_fd=self.directory(parent), follow_symlinks=False)
            return
        if parent:
            # A package may leave out directories that its filter, or another package, already settles.
            self.make_directories(parent)
        if is_conffile:
            name += ".dpkg-new"
        directory = self.directory(parent)
        if entry.isreg():
            content = data[entry.offset_data : entry.offset_data + entry.size]
            self._write(parent, name, content, entry.mode, entry.uid, entry.gid, entry.mtime)
        elif entry.issym():
            _replace(directory, name)
            os.symlink(entry.linkname, name, dir_fd=directory)
            os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
            os.utime(name, (entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)
        elif entry.islnk():
            _replace(directory, name)
            source, _, source_name = _clean(entry.linkname).rpartition("/")
            os.link(
                source_name,
                name,
                src_dir_fd=self.directory(source),
                dst_dir_fd=directory,
                follow_symlinks=False,
            )
        else:
            raise Corrupt(f"/{path}: a package of the base system holds a device or a pipe")

    def _make_directory(self, parent: str, name: str, mode: int) -> bool:
        """Return whether the directory was made; one that is there, also by a symlink, keeps its mode and owner."""
        directory = self.directory(parent)
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            self.directory(f"{parent}/{name}" if parent else name)  # ENOTDIR when it is something else
            return False
        os.chmod(name, stat.S_IMODE(mode), dir_fd=directory)
        return True

    def _write(
        self,
        parent: str,
        name: str,
        content: bytes | memoryview,
        mode: int,
        uid: int,
        gid: int,
        mtime: float | None,
    ) -> None:
        directory = self.directory(parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, 0o600, dir_fd=directory)
        except FileExistsError:
            os.unlink(name, dir_fd=directory)
            descriptor = os.open(name, flags, 0o600, dir_fd=directory)
        with open(descriptor, "wb", buffering=0) as file:
            while content:
                content = content[file.write(content) :]
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, stat.S_IMODE(mode))  # after chown, which clears the set-user-ID bit
            if mtime is not None:
                os.utime(descriptor, (mtime, mtime))


def _clean(name: str) -> str:
    """Return a member's path relative to the root. Corrupt: it climbs out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Corrupt(f"{name}: a package's path leaves the root")
    return "/".join(parts)


def _replace(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
