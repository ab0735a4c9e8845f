"""DNS over TCP: messages with their length before each, on a non-blocking socket watched by somebody's epoll.

RFC 7766
"""

from __future__ import annotations

import errno
import select
import socket

_LENGTH_BYTES = 2
_CHUNK_BYTES = 64 << 10
# A peer that asks and does not read; a largest message and some.
_MOST_UNSENT_BYTES = 256 << 10
_AGAIN = (errno.EAGAIN, errno.EINPROGRESS, errno.ENOTCONN)


class DnsStream:
    """One connection, `end`, which the maker registers with `epoll` for EPOLLIN and closes."""

    def __init__(self, end: socket.socket, epoll: select.epoll) -> None:
        end.setblocking(False)
        self.end = end
        self._epoll = epoll
        self._received = bytearray()
        self._unsent = bytearray()

    def turn(self, mask: int) -> list[bytes] | None:
        """Do what an event asks for, and return the messages that are complete; None when the connection is over."""
        if mask & select.EPOLLOUT and not self._flush():
            return None
        if not mask & ~select.EPOLLOUT:
            return []
        try:
            data = self.end.recv(_CHUNK_BYTES)
        except OSError as error:
            return [] if error.errno == errno.EAGAIN else None
        if not data:
            return None
        self._received += data
        return self._complete()

    def send(self, message: bytes) -> bool:
        """Send a message, now or when the peer reads; False: it does not, or it is gone."""
        self._unsent += len(message).to_bytes(_LENGTH_BYTES, "big") + message
        return self._flush() and len(self._unsent) <= _MOST_UNSENT_BYTES

    def _complete(self) -> list[bytes]:
        messages = []
        while len(self._received) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._received[:_LENGTH_BYTES], "big")
            if len(self._received) < end:
                break
            messages.append(bytes(self._received[_LENGTH_BYTES:end]))
            del self._received[:end]
        return messages

    def _flush(self) -> bool:
        try:
            while self._unsent:
                del self._unsent[: self.end.send(self._unsent)]
        except OSError as error:
            if error.errno not in _AGAIN:
                return False
        self._epoll.modify(self.end, select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0))
        return True
