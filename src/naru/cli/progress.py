"""How a pull, push, load or build goes: the daemon's progress messages on a terminal, or as plain lines.

Engine API, ImageCreate; plain lines are Docker's, so that scripts read the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator

from naru.errors import NaruError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    Message = dict[str, Any]


def show(
    messages: Iterable[Message],
    *,
    to_stderr: bool,
    is_quiet: bool = False,
    is_pull: bool = False,
    on_aux: Callable[[Message], None] | None = None,
) -> None:
    """Show the messages to their end. NaruError: one of them is an error.

    Of a pull, a status without an id before anything else is a notice: the image will not come from where it was asked
    for (our daemon makes official images itself where no registry answers). It goes to stderr even if quiet, and all
    that follows with it, so that stdout is the same either way.
    """
    first, messages = _peeked(iter(messages))
    is_notice = is_pull and bool(first.get("status")) and not first.get("id")
    out = sys.stderr if to_stderr or is_notice else sys.stdout
    if is_quiet:
        for message in messages:
            if not _check(message, on_aux) and message is first and is_notice:
                print_plain(message, sys.stderr)
        return
    if out.isatty():
        from naru.cli.progress_display import Display

        with Display(out) as display:
            for message in messages:
                if not _check(message, on_aux):
                    display.take(message)
        return
    for message in messages:
        if not _check(message, on_aux):
            print_plain(message, out)


def _peeked(messages: Iterator[Message]) -> tuple[Message, Iterable[Message]]:
    """Return the first message ({} if none comes), and all of them."""
    for first in messages:
        return first, _chained(first, messages)
    return {}, ()


def _chained(first: Message, rest: Iterator[Message]) -> Iterator[Message]:
    yield first
    yield from rest


def print_plain(message: Message, out: TextIO) -> None:
    """Print one message as a line; the many of a running bar are left out."""
    if "stream" in message:
        out.write(str(message["stream"]))
        out.flush()
        return
    if (message.get("progressDetail") or {}) != {} or message.get("progress"):
        return
    status = str(message.get("status", ""))
    if not status:
        return
    name = str(message.get("id") or "")
    out.write(f"{name}: {status}\n" if name else f"{status}\n")
    out.flush()


def _check(message: Message, on_aux: Callable[[Message], None] | None) -> bool:
    """Raise for an error, hand over an aux message; True if there is nothing to show."""
    if detail := message.get("errorDetail"):
        raise NaruError(str(detail.get("message") or message.get("error")))
    if message.get("error"):
        raise NaruError(str(message["error"]))
    if "aux" in message:
        if on_aux is not None:
            on_aux(message["aux"])
        return True
    return False
