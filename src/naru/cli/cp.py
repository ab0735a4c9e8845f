"""`naru cp`: files between a container and this machine, by the rules of cp(1) with Docker's additions.

`src/.` means what is in src; `-` is a tar archive on standard input or output. What comes from a container is not to be
trusted: nothing is written outside of the destination, whatever names and links the archive holds.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import tarfile

from naru.cli.command import Call, Command
from naru.cli.flags import BOOL, Flag
from naru.cli.tar_stream import add, stream
from naru.client.connection import quoted
from naru.errors import InvalidArgument, NaruError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from naru.client.http import Response

_GO_MODE_DIRECTORY = 1 << 31
_GO_MODE_LINK = 1 << 27


def run(call: Call) -> None:
    """Copy in or out."""
    source, target = call.arguments
    from_container, from_path = _split(source)
    to_container, to_path = _split(target)
    if from_container and to_container:
        raise InvalidArgument("copying between containers is not supported")
    if from_container:
        _copy_out(call, from_container, from_path, to_path)
    elif to_container:
        _copy_in(call, from_path, to_container, to_path)
    else:
        raise InvalidArgument("must specify at least one container source")


def _split(text: str) -> tuple[str, str]:
    """Return container and path of `name:path`; no container for what is a path of ours."""
    if text.startswith(("/", ".")) or ":" not in text:
        return "", text
    container, _, path = text.partition(":")
    return container, path


def _stat(call: Call, container: str, path: str) -> dict[str, Any] | None:
    """Return what the daemon says of a path, or None if it has no answer: the copy itself will say why, in words."""
    try:
        with call.client.open("HEAD", f"/containers/{quoted(container)}/archive", {"path": path}) as response:
            return _stat_of(response)
    except NaruError:
        return None


def _stat_of(response: Response) -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(response.headers["x-docker-container-path-stat"])))


def _copy_out(call: Call, container: str, path: str, target: str) -> None:
    if call.flags.on("follow-link"):
        found = _stat(call, container, path)
        if found and found["mode"] & _GO_MODE_LINK and found.get("linkTarget"):
            path = os.path.join(os.path.dirname(path), found["linkTarget"])
    with call.client.open("GET", f"/containers/{quoted(container)}/archive", {"path": path}) as response:
        is_directory = bool(_stat_of(response)["mode"] & _GO_MODE_DIRECTORY)
        if target == "-":
            while data := response.some():
                sys.stdout.buffer.write(data)
            return
        top, name = _destination(path, target, is_directory=is_directory)
        _extract(response, top, name, keep_owner=call.flags.on("archive"))


def _destination(path: str, target: str, *, is_directory: bool) -> tuple[str, str]:
    """Return the directory to write to, and what the archive's first part is named there ("": the top itself)."""
    is_contents = path.endswith("/.") or path == "."
    if os.path.isdir(target):
        return target, "" if is_contents and is_directory else os.path.basename(path.rstrip("/")) or ""
    parent = os.path.dirname(target.rstrip("/")) or "."
    if not os.path.isdir(parent):
        raise InvalidArgument(f'invalid output path: directory "{os.path.abspath(parent)}" does not exist')
    if is_directory:
        if os.path.exists(target):
            raise InvalidArgument("cannot copy directory")
        os.mkdir(target)
        return target, ""
    if target.endswith("/"):
        raise InvalidArgument("no such directory")
    return parent, os.path.basename(target)


def _extract(source: Response, top: str, name: str, *, keep_owner: bool) -> None:
    """Write the archive under `top`, its first name part replaced by `name`."""
    top = os.path.realpath(top)
    directories: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                path = _inside(top, _renamed(member.name, name))
                _write_member(archive, member, path, top, name)
                if member.isdir():
                    directories.append((path, member))
                _set_attributes(path, member, keep_owner=keep_owner)
    except tarfile.TarError as error:
        raise NaruError(f"the daemon's archive is broken: {error}") from error
    for path, member in reversed(directories):
        os.utime(path, (member.mtime, member.mtime))


def _renamed(member: str, name: str) -> str:
    _, _, rest = member.strip("/").partition("/")
    return "/".join(part for part in (name, rest) if part)


def _inside(top: str, relative: str) -> str:
    """Return the path of a member, with its parents made; NaruError if a link or `..` leads out of `top`."""
    if ".." in relative.split("/"):
        raise NaruError(f"the archive holds a path that leads out of it: {relative}")
    path = os.path.join(top, relative) if relative else top
    parent = os.path.dirname(path) if relative else top
    real = os.path.realpath(parent)
    if real != top and not real.startswith(top.rstrip("/") + "/"):
        raise NaruError(f"the archive holds a path that leads out of it: {relative}")
    os.makedirs(parent, exist_ok=True)
    return path


def _write_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, top: str, name: str) -> None:
    if member.isdir():
        if os.path.islink(path) or not os.path.isdir(path):
            if os.path.lexists(path):
                raise NaruError(f"cannot overwrite non-directory {path} with a directory")
            os.mkdir(path)
        return
    if os.path.isdir(path) and not os.path.islink(path):
        raise NaruError(f"cannot overwrite directory {path} with a non-directory")
    if os.path.lexists(path):
        os.unlink(path)
    if member.issym():
        os.symlink(member.linkname, path)
    elif member.islnk():
        os.link(_inside(top, _renamed(member.linkname, name)), path, follow_symlinks=False)
    elif member.isfifo():
        os.mkfifo(path)
    elif member.ischr() or member.isblk():
        kind = 0o020000 if member.ischr() else 0o060000
        os.mknod(path, kind | 0o600, os.makedev(member.devmajor, member.devminor))
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)


def _set_attributes(path: str, member: tarfile.TarInfo, *, keep_owner: bool) -> None:
    if keep_owner:
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if not member.issym() and not member.islnk():
        os.chmod(path, member.mode & 0o7777)
        os.utime(path, (member.mtime, member.mtime))


def _copy_in(call: Call, source: str, container: str, path: str) -> None:
    if source != "-" and not os.path.lexists(source):
        raise InvalidArgument(f"lstat {os.path.abspath(source)}: no such file or directory")
    found = _stat(call, container, path)
    if found and found["mode"] & _GO_MODE_LINK and found.get("linkTarget"):
        path = os.path.join(os.path.dirname(path.rstrip("/")), found["linkTarget"])
        found = _stat(call, container, path)
    is_directory = bool(found and found["mode"] & _GO_MODE_DIRECTORY)
    query: dict[str, object] = {"noOverwriteDirNonDir": True, "copyUIDGID": call.flags.on("archive")}
    archive_path = f"/containers/{quoted(container)}/archive"
    headers = {"Content-Type": "application/x-tar"}
    if source == "-":
        if not is_directory:
            raise InvalidArgument(f'destination "{container}:{path}" must be a directory')
        body: Any = sys.stdin.buffer
        call.client.open("PUT", archive_path, query | {"path": path}, body=body, headers=headers).read()
        return
    directory, name = _target_inside(source, path, exists=found is not None, is_directory=is_directory)
    follow = call.flags.on("follow-link") or source.endswith("/")
    body = stream(lambda archive: _pack(archive, source, name, follow=follow))
    call.client.open("PUT", archive_path, query | {"path": directory}, body=body, headers=headers).read()


def _target_inside(source: str, path: str, *, exists: bool, is_directory: bool) -> tuple[str, str]:
    """Return the container's directory to unpack in, and the name there of what is copied ("": its contents)."""
    is_contents = source.endswith("/.") or source == "."
    if is_directory:
        return path, "" if is_contents else os.path.basename(os.path.abspath(source))
    if exists and os.path.isdir(source):
        raise InvalidArgument("cannot copy directory")
    if not exists and path.endswith("/") and not os.path.isdir(source):
        raise InvalidArgument("no such directory")
    parent, name = os.path.split(path.rstrip("/"))
    return parent or "/", name


def _pack(archive: tarfile.TarFile, source: str, name: str, *, follow: bool) -> None:
    is_directory = os.path.isdir(source) and (follow or not os.path.islink(source))
    if name or not is_directory:
        add(archive, source.rstrip("/"), name or os.path.basename(source), as_root=False, follow=follow)
    if not is_directory:
        return
    for parent, directories, files in os.walk(source):
        for entry in sorted([*directories, *files]):
            path = os.path.join(parent, entry)
            inner = os.path.join(name, os.path.relpath(path, source))
            add(archive, path, inner, as_root=False)


COMMANDS = (
    Command(
        "container cp",
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tnaru cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy files between a container and this machine. `-` is a tar archive on standard input or output.",
        run,
        (
            Flag("archive", "a", BOOL, "Keep owners"),
            Flag("follow-link", "L", BOOL, "Follow a symbolic link given as source"),
            Flag("quiet", "q", BOOL, "Accepted for compatibility"),
        ),
        count=(2, 2),
    ),
)
