"""Signals by Docker's names: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`."""

from __future__ import annotations

import signal

from naru.errors import InvalidArgument


def parse_signal(text: str) -> int:
    """Return the signal number of a name, with or without SIG, or of a number. InvalidArgument: not a signal."""
    word = text.strip().upper()
    if word.isdigit():
        if 1 <= int(word) < signal.NSIG:
            return int(word)
        raise InvalidArgument(f"invalid signal: {text}")
    word = word if word.startswith("SIG") else f"SIG{word}"
    base, plus, offset = word.partition("+")
    if not plus:
        base, minus, offset = word.partition("-")
        if minus and base == "SIGRTMAX" and offset.isdigit():
            return int(signal.SIGRTMAX) - int(offset)
    elif base == "SIGRTMIN" and offset.isdigit():
        return int(signal.SIGRTMIN) + int(offset)
    found = signal.Signals.__members__.get(word)
    if found is None:
        raise InvalidArgument(f"invalid signal: {text}")
    return int(found)
