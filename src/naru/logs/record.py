"""One line of a container's log as the json-file driver keeps it."""

from __future__ import annotations

import msgspec
from msgspec import Struct

# A piece of a longer line has no newline; moby's limit for one, which the writer keeps too.
_NEWLINE = "\n"


class Record(Struct):
    """A line, or with no newline at its end a piece of one: `time` is RFC 3339 with nanoseconds."""

    log: str
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] = {}

    @property
    def is_partial(self) -> bool:
        """Does more of this line follow, or would have if the container had not ended?"""
        return not self.log.endswith(_NEWLINE)


_decoder = msgspec.json.Decoder(Record)


def decode(line: bytes) -> Record | None:
    """Return the record that `line` holds; None for one that a power cut has torn."""
    try:
        return _decoder.decode(line)
    except msgspec.MsgspecError:
        return None
