"""`naru build`: an image from a Dockerfile and its context."""

from __future__ import annotations

import json
import os
import stat
import sys
import tarfile
from collections.abc import Iterator

from naru.cli import environment, reference, units
from naru.cli.command import Call, Command
from naru.cli.content_trust import CONTENT_TRUST, check_trust
from naru.cli.create_request import ulimit
from naru.cli.dockerignore import Ignore
from naru.cli.flags import BOOL, BYTES, INT, LIST, STRING, STRINGS, Flag, UsageError
from naru.cli.progress import show
from naru.cli.tar_stream import add, stream, walk
from naru.errors import InvalidArgument, NaruError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DOCKERFILE = "Dockerfile"
_REMOTE = ("http://", "https://", "git://", "git@", "github.com/")
_TAR_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


class _Context:
    """What is sent: a tar stream, or a URL for the daemon to fetch; and the Dockerfile's name in it."""

    def __init__(self, body: Iterator[bytes] | None, dockerfile: str, remote: str = "") -> None:
        self.body = body
        self.dockerfile = dockerfile
        self.remote = remote


def run(call: Call) -> int:
    """Build, show how it goes, and print the image's ID if quiet."""
    flags = call.flags
    check_trust(call)
    query = _query(call)
    context = _context(call.arguments[0], flags.text("file"))
    query |= {"remote": context.remote, "dockerfile": context.dockerfile}
    credentials = call.config.all_credentials()
    headers = {"Content-Type": "application/x-tar"}
    if credentials:
        from naru.cli.config_file import encoded

        headers["X-Registry-Config"] = encoded(credentials)
    built: list[str] = []
    body = context.body
    if body is not None and flags.on("compress"):
        body = _compressed(body)
    if body is not None and not flags.on("quiet"):
        body = _told(body)
    messages = call.client.stream("POST", "/build", query, body=body or b"", headers=headers)
    printed: list[str] = []
    try:
        show(
            _kept(messages, printed) if flags.on("quiet") else messages,
            to_stderr=False,
            is_quiet=flags.on("quiet"),
            on_aux=lambda aux: built.append(str(aux.get("ID") or "")),
        )
    except NaruError:
        if flags.on("quiet"):
            sys.stderr.write("".join(printed))
        raise
    image = next((one for one in reversed(built) if one), "") or "".join(printed).strip()
    if flags.on("quiet"):
        print(image)
    if flags.text("iidfile"):
        with open(flags.text("iidfile"), "w") as file:
            file.write(image)
    return 0


def _told(body: Iterator[bytes]) -> Iterator[bytes]:
    """Yield `body`, and tell its size at the end."""
    sent = 0
    for piece in body:
        sent += len(piece)
        yield piece
    print(f"Sending build context to Docker daemon  {units.human_size(sent)}", flush=True)


def _compressed(body: Iterator[bytes]) -> Iterator[bytes]:
    """Yield `body` as gzip; the fastest level, since it is for the wire only."""
    import zlib

    packer = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
    for piece in body:
        yield packer.compress(piece)
    yield packer.flush()


def _kept(messages: Iterator[Any], printed: list[str]) -> Iterator[Any]:
    for message in messages:
        printed.append(str(message.get("stream", "")))
        yield message


def _query(call: Call) -> dict[str, Any]:
    flags = call.flags
    arguments: dict[str, str | None] = {}
    for one in environment.with_proxies(flags.many("build-arg"), call.config.proxies(call.address.text)):
        name, has_value, value = one.partition("=")
        arguments[name] = value if has_value else call.environment.get(name)
    tags = flags.many("tag")
    for tag in tags:
        try:
            reference.tagged(tag)
        except InvalidArgument as error:
            raise UsageError(f'invalid argument "{tag}" for "-t, --tag" flag: {error}') from None
    return {
        "version": "1",
        "t": tags,
        "q": flags.on("quiet"),
        "nocache": flags.on("no-cache"),
        "pull": flags.on("pull"),
        "rm": "1" if flags.on("rm") else "0",
        "forcerm": flags.on("force-rm"),
        "buildargs": arguments,
        "labels": environment.labels([], flags.many("label")),
        "networkmode": flags.text("network"),
        "target": flags.text("target"),
        "platform": call.platform,
        "cachefrom": json.dumps(flags.many("cache-from")) if flags.many("cache-from") else "",
        "extrahosts": flags.many("add-host"),
        "memory": flags.number("memory") or None,
        "memswap": flags.number("memory-swap") or None,
        "cpushares": flags.number("cpu-shares") or None,
        "cpuperiod": flags.number("cpu-period") or None,
        "cpuquota": flags.number("cpu-quota") or None,
        "cpusetcpus": flags.text("cpuset-cpus"),
        "cpusetmems": flags.text("cpuset-mems"),
        "cgroupparent": flags.text("cgroup-parent"),
        "shmsize": flags.number("shm-size") or None,
        "squash": flags.on("squash"),
        "isolation": flags.text("isolation"),
        "securityopt": json.dumps(flags.many("security-opt")) if flags.many("security-opt") else "",
        "ulimits": json.dumps([ulimit(one) for one in flags.many("ulimit")]) if flags.many("ulimit") else "",
    }


def _context(path: str, dockerfile: str) -> _Context:
    if path == "-":
        return _from_stdin(dockerfile)
    if path.startswith(_REMOTE):
        return _Context(None, dockerfile, remote=path)
    if not os.path.isdir(path):
        reason = "must be a directory" if os.path.exists(path) else "not found"
        raise InvalidArgument(f'unable to prepare context: path "{path}" {reason}')
    return _from_directory(os.path.realpath(path), dockerfile)


def _from_stdin(dockerfile: str) -> _Context:
    """A tar archive goes as it is; anything else is the Dockerfile itself."""
    if dockerfile == "-":
        raise InvalidArgument("invalid argument: can't use stdin for both build context and dockerfile")
    source = sys.stdin.buffer
    head = source.read(tarfile.BLOCKSIZE)
    is_tar = head[257:262] == b"ustar" or head.startswith(_TAR_MAGIC)
    if is_tar:
        return _Context(_continued(head), dockerfile)
    if not head.strip():
        raise InvalidArgument("failed to read dockerfile from STDIN: it is empty")
    text = head + source.read()
    return _Context(stream(lambda archive: _add_text(archive, _DOCKERFILE, text)), _DOCKERFILE)


def _continued(head: bytes) -> Iterator[bytes]:
    yield head
    while piece := sys.stdin.buffer.read(1 << 16):
        yield piece


def _from_directory(top: str, dockerfile: str) -> _Context:
    extra: tuple[str, bytes] | None = None
    if dockerfile == "-":
        name = f".dockerfile.{os.getpid()}"
        extra = (name, sys.stdin.buffer.read())
    else:
        # A relative --file is looked for here first, then in the context
        asked = dockerfile or os.path.join(top, _DOCKERFILE)
        if dockerfile and not os.path.exists(asked):
            asked = os.path.join(top, dockerfile)
        if not os.path.isfile(asked):
            raise InvalidArgument(
                f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {asked}: "
                "no such file or directory"
            )
        name = os.path.relpath(os.path.realpath(asked), top)
        if name.startswith("../"):
            with open(asked, "rb") as file:
                extra = (f".dockerfile.{os.getpid()}", file.read())
            name = extra[0]
    ignore = _ignore(top, name)

    def write(archive: tarfile.TarFile) -> None:
        for relative in walk(top, lambda path: _excluded(ignore, path, name), ignore.may_hold_exception):
            add(archive, os.path.join(top, relative), relative, as_root=True)
        if extra is not None:
            _add_text(archive, *extra)

    return _Context(stream(write), name)


def _excluded(ignore: Ignore, path: str, dockerfile: str) -> bool:
    """The daemon needs these two, whatever the patterns say."""
    return path not in (dockerfile, ".dockerignore") and ignore.excludes(path)


def _ignore(top: str, dockerfile: str) -> Ignore:
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            with open(os.path.join(top, name), encoding="utf-8-sig") as file:
                return Ignore(file)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InvalidArgument(f"failed to read {name}: {error.strerror}") from error
    return Ignore(())


def _add_text(archive: tarfile.TarFile, name: str, text: bytes) -> None:
    from io import BytesIO

    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type = len(text), stat.S_IRUSR | stat.S_IWUSR, tarfile.REGTYPE
    archive.addfile(info, BytesIO(text))


COMMANDS = (
    Command(
        "image build",
        "[OPTIONS] PATH | URL | -",
        "Build an image from a Dockerfile. The context is a directory, a URL, or an archive or Dockerfile on"
        " standard input.",
        run,
        (
            Flag("add-host", "", LIST, "Add a line to /etc/hosts (host:ip)"),
            Flag("build-arg", "", LIST, "Set a build argument (NAME=value); NAME alone passes yours on"),
            Flag("cache-from", "", STRINGS, "Images to take cached steps from"),
            Flag("cgroup-parent", "", STRING, "Parent cgroup of RUN steps"),
            Flag("compress", "", BOOL, "Send the context as gzip"),
            Flag("cpu-period", "", INT, "Length of the CPU scheduler's period in microseconds"),
            Flag("cpu-quota", "", INT, "CPU time per period in microseconds"),
            Flag("cpu-shares", "c", INT, "Relative weight of CPU time"),
            Flag("cpuset-cpus", "", STRING, "CPUs to run on (0-3, 0,1)"),
            Flag("cpuset-mems", "", STRING, "Memory nodes to use (0-3, 0,1)"),
            CONTENT_TRUST,
            Flag("file", "f", STRING, "The Dockerfile (PATH/Dockerfile); - for standard input"),
            Flag("force-rm", "", BOOL, "Remove intermediate containers even if it fails"),
            Flag("iidfile", "", STRING, "Write the image's ID to this file"),
            Flag("isolation", "", STRING, "Isolation technology; only `default` on Linux"),
            Flag("label", "", LIST, "Label (key=value)"),
            Flag("memory", "m", BYTES, "Most memory a step may use"),
            Flag("memory-swap", "", BYTES, "Most memory and swap together"),
            Flag("network", "", STRING, "Network of RUN steps: default, none, host", default="default"),
            Flag("no-cache", "", BOOL, "Do every step again"),
            Flag("platform", "", STRING, "Platform to build for (linux/arm64)"),
            Flag("progress", "", STRING, is_hidden=True),
            Flag("pull", "", BOOL, "Look for newer base images"),
            Flag("quiet", "q", BOOL, "Print nothing but the image's ID"),
            Flag("rm", "", BOOL, "Remove intermediate containers", default=True),
            Flag("security-opt", "", STRINGS, "Security option"),
            Flag("shm-size", "", BYTES, "Size of /dev/shm"),
            Flag("squash", "", BOOL, "Make one layer of all"),
            Flag("tag", "t", LIST, "Name of the image (name:tag)"),
            Flag("target", "", STRING, "Stage to build"),
            Flag("ulimit", "", LIST, "Resource limit", shown="ulimit"),
        ),
        count=(1, 1),
    ),
)
