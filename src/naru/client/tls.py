"""TLS to a daemon on a socket that still behaves as one: it can close its sending half, and send without waiting.

`ssl.SSLSocket` can do neither: the end of `run -i`'s input would never be told, and input that waits for room while
the output waits to be read would stand still. Imported where an address asks for TLS only: `ssl` costs 10 ms.
RFC 8446, 6.1
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable

from naru.client.address import Tls
from naru.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

_CHUNK_BYTES = 64 << 10


def context(tls: Tls) -> ssl.SSLContext:
    """Return the settings for the TLS library. InvalidArgument: a file is missing or no good."""
    made = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    if not tls.is_verified:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    file = tls.authority
    try:
        if tls.is_verified and tls.authority:  # none: the host's own
            made.load_verify_locations(tls.authority)
        file = tls.certificate
        if tls.certificate and os.path.exists(tls.certificate):
            made.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidArgument(f"could not read the TLS file {file}: {reason(error)}") from error
    return made


def reason(error: OSError) -> str:
    """Say why, in words: the TLS library's own text names a line of its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason.replace('_', ' ').lower()}"
    return error.strerror or str(error)


class Secured(socket.socket):
    """A connected socket with TLS inside. OSError, of which ssl.SSLError is one, as for any socket."""

    def __init__(self, raw: socket.socket, settings: ssl.SSLContext, host: str) -> None:
        """Take `raw` over and shake hands."""
        super().__init__(raw.family, raw.type, raw.proto, raw.detach())
        self._received, self._sealed = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = settings.wrap_bio(self._received, self._sealed, server_hostname=host)
        self._clear = b""
        self._unsent = b""
        self._in_flight = 0
        try:
            self._complete(self._tls.do_handshake)
        except BaseException:
            self.close()
            raise

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return up to `size` bytes; b"" once the other side has closed its half."""
        if not self._clear:
            try:
                self._clear = self._complete(lambda: self._tls.read(_CHUNK_BYTES))
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
        data, self._clear = self._clear[:size], self._clear[size:]
        return data

    def pending(self) -> int:
        """Return how many bytes `recv` has at hand, which poll cannot see."""
        if not self._clear:
            try:
                self._clear = self._tls.read(_CHUNK_BYTES)
            except ssl.SSLError:
                pass  # nothing whole yet, or the end: `recv` will meet it again
        return len(self._clear)

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        """Send some of `data` and return how much. BlockingIOError: call again with the same data."""
        if not self._in_flight:
            self._in_flight = self._tls.write(data[:_CHUNK_BYTES])
        self._push(flags)
        count, self._in_flight = self._in_flight, 0
        return count

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        """Send all of `data`."""
        while data:
            data = data[self.send(data, flags) :]

    def shutdown(self, how: int) -> None:
        """SHUT_WR: say that no more will come, and go on receiving. BlockingIOError: call again."""
        if how != socket.SHUT_WR:
            super().shutdown(how)
            return
        self.pending()  # what has come in is data, and would be taken for an offence after the goodbye
        if not self._unsent:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # wants the other side's goodbye, which comes at the end
        self._push(socket.MSG_DONTWAIT)

    def _complete(self, step: Callable[[], T]) -> T:
        """Return what `step` returns once enough has been received for it."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._try_push()
                if data := super().recv(_CHUNK_BYTES):
                    self._received.write(data)
                else:
                    self._received.write_eof()
            finally:
                self._try_push()

    def _try_push(self) -> None:
        try:
            self._push(socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass  # `send` has the rest of it; who waits here would not read what the other side wants to be read first

    def _push(self, flags: int = 0) -> None:
        self._unsent += self._sealed.read()
        while self._unsent:
            self._unsent = self._unsent[super().send(self._unsent, flags) :]
