"""`naru load`, `save` and `import`: images in tar archives."""

from __future__ import annotations

import os
import sys

from naru.cli import reference
from naru.cli.command import Call, Command
from naru.cli.flags import LIST, STRING, Flag
from naru.cli.progress import show
from naru.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from naru.client.http import Response

_TAR = {"Content-Type": "application/x-tar"}
_CHUNK_BYTES = 1 << 20


def load(call: Call) -> None:
    """Load images from a file or standard input."""
    flags = call.flags
    path = flags.text("input")
    if not path and sys.stdin.isatty():
        raise InvalidArgument("requested load from stdin, but stdin is empty")
    try:
        source = open(path, "rb") if path else sys.stdin.buffer
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from error
    is_quiet = flags.on("quiet") or not sys.stdout.isatty()
    with source:
        query = {"quiet": "1" if is_quiet else "0", "platform": flags.text("platform")}
        show(call.client.stream("POST", "/images/load", query, body=source, headers=_TAR), to_stderr=False)


def save(call: Call) -> None:
    """Write images to a file or standard output."""
    path = call.flags.text("output")
    if not path and sys.stdout.isatty():
        raise InvalidArgument("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    query = {"names": [reference.familiar(name) for name in call.arguments], "platform": call.flags.text("platform")}
    with call.client.open("GET", "/images/get", query) as response:
        write_out(response, path)


def write_out(response: Response, path: str) -> None:
    """Write an answer's body to `path`, whole or not at all, or to standard output for ""."""
    if not path:
        while data := response.some(_CHUNK_BYTES):
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as device:
            while data := response.some(_CHUNK_BYTES):
                device.write(data)
        return
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise InvalidArgument(f"failed to save image: invalid output path: stat {directory}: no such file or directory")
    temporary = os.path.join(os.path.dirname(path) or ".", f".{os.path.basename(path)}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InvalidArgument(f"failed to save image: {path}: {(error.strerror or '').lower()}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            while data := response.some(_CHUNK_BYTES):
                file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def import_(call: Call) -> None:
    """Make an image of a tar archive of a filesystem."""
    flags = call.flags
    source, *names = call.arguments
    repository, tag = reference.split(reference.tagged(names[0])) if names else ("", "")
    query = {
        "fromSrc": source if "://" in source else "-",
        "repo": repository,
        "tag": tag,
        "message": flags.text("message"),
        "changes": flags.many("change"),
        "platform": call.platform,
    }
    if "://" in source:
        show(call.client.stream("POST", "/images/create", query), to_stderr=False)
        return
    try:
        body = sys.stdin.buffer if source == "-" else open(source, "rb")
    except OSError as error:
        raise InvalidArgument(f"open {source}: {(error.strerror or '').lower()}") from error
    with body:
        show(call.client.stream("POST", "/images/create", query, body=body, headers=_TAR), to_stderr=False)


_PLATFORM = Flag("platform", "", STRING, "Only this platform (linux/arm64)")
COMMANDS = (
    Command(
        "image load",
        "[OPTIONS]",
        "Load images from a tar archive (docker save, OCI layout; compressed or not) or standard input.",
        load,
        (
            Flag("input", "i", STRING, "The archive"),
            _PLATFORM,
            Flag("quiet", "q", about="Do not show progress"),
        ),
    ),
    Command(
        "image save",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Write images to a tar archive, which is an OCI layout too.",
        save,
        (Flag("output", "o", STRING, "The archive, in place of standard output"), _PLATFORM),
        count=(1, None),
    ),
    Command(
        "image import",
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Make an image of a tar archive of a filesystem.",
        import_,
        (
            Flag("change", "c", LIST, "Apply a Dockerfile instruction"),
            Flag("message", "m", STRING, "Message of the image's history"),
            _PLATFORM,
        ),
        count=(1, 2),
    ),
)
