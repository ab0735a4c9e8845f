"""Our own terminal: raw mode, its size, the keys that detach from a session."""

from __future__ import annotations

import os
import termios
from types import TracebackType

from naru.errors import InvalidArgument

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROL_SIGNS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


class RawMode:
    """Context in which terminal `fd` passes every key on unread and unechoed. Does nothing if it is no terminal."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> RawMode:
        if os.isatty(self._fd):
            self._before = termios.tcgetattr(self._fd)
            raw = termios.tcgetattr(self._fd)
            raw[0] &= ~(
                termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
                | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
            )  # fmt: skip
            raw[1] &= ~termios.OPOST
            raw[2] = (raw[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
            raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
            raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._fd, termios.TCSADRAIN, raw)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
            self._before = None


def size() -> tuple[int, int] | None:
    """Return the height and width of the terminal that shows our output; None if that is not a terminal."""
    for fd in (1, 0, 2):
        try:
            columns, lines = os.get_terminal_size(fd)
        except OSError:
            continue
        if columns and lines:
            return lines, columns
    return None


class DetachKeys:
    """Finds the key sequence that detaches in what is typed; the keys before it are passed on."""

    def __init__(self, keys: str) -> None:
        """`keys` as in `ctrl-p,ctrl-q`, "" for these. InvalidArgument: not such a list."""
        self._sequence = _parse(keys or DEFAULT_DETACH_KEYS)
        self._matched = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """Return what to pass on of `typed`, and True if the sequence is complete."""
        passed = bytearray()
        for byte in typed:
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(passed), True
                continue
            passed += self._sequence[: self._matched]
            self._matched = 1 if byte == self._sequence[0] else 0
            if not self._matched:
                passed.append(byte)
        return bytes(passed), False


def _parse(keys: str) -> bytes:
    sequence = bytearray()
    for key in keys.split(","):
        letter = key.removeprefix("ctrl-")
        if key == letter and len(key) == 1 and key.isascii():
            sequence.append(ord(key))
        elif len(letter) == 1 and "a" <= letter <= "z":
            sequence.append(ord(letter) - ord("a") + 1)
        elif letter in _CONTROL_SIGNS and key != letter:
            sequence.append(_CONTROL_SIGNS[letter])
        else:
            raise InvalidArgument(f"invalid detach keys ({keys}): unknown character: '{key}'")
    return bytes(sequence)
