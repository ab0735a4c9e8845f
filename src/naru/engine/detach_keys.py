"""Key sequences that end an attachment without ending the container: `ctrl-p,ctrl-q`."""

from __future__ import annotations

from naru.errors import InvalidArgument

DEFAULT = b"\x10\x11"


def parse(text: str | None) -> bytes:
    """Return the bytes of a comma-separated key sequence; None or "" is Docker's default.

    InvalidArgument: a key that is neither one character nor `ctrl-` and one of a-z @ [ \\ ] ^ _.
    """
    if not text:
        return DEFAULT
    keys = bytearray()
    for word in text.split(","):
        if len(word) == 1:
            keys += word.encode()
        elif word.startswith("ctrl-") and len(word) == 6 and (word[5].isalpha() or word[5] in "@[\\]^_"):
            keys.append(ord(word[5].upper()) & 0x1F)
        else:
            raise InvalidArgument(f"Invalid escape keys ({text}) provided")
    return bytes(keys)
