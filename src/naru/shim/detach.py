"""The key sequence by which a client leaves a terminal without ending it."""

from __future__ import annotations


class DetachKeys:
    """Looks for `keys` in a client's input. An incomplete match is held back until it is decided."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return the input to pass on, and whether the client detached (what follows the keys is dropped)."""
        if not self._keys:
            return data, False
        data = self._held + data
        at = data.find(self._keys)
        if at >= 0:
            self._held = b""
            return data[:at], True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        self._held = b""
        return data, False
