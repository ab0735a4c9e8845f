"""TLS in front of the API: each connection is decrypted here and goes on to HTTP through a socket pair.

asyncio's own TLS ends a connection as soon as the client says it has no more to send, which is how every Docker client
ends the input of `docker run -i`; the output would be lost. Here the two directions end on their own. And since HTTP
only ever sees plain sockets, taking a connection away from it is the same with and without TLS. RFC 8446, 6.1
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from naru.errors import InvalidArgument

HANDSHAKE_TIMEOUT_S = 10.0
_CHUNK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Tls:
    """Our certificate and key; with `ca`, clients must show a certificate it signed (`--tlsverify`)."""

    certificate: str
    key: str
    ca: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return it for the TLS library. InvalidArgument: a file is missing or no good."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        what = f'certificate "{self.certificate}" and key "{self.key}"'
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.ca is not None:
                what = f'CA "{self.ca}"'
                context.load_verify_locations(self.ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except OSError as err:  # ssl.SSLError is one
            raise InvalidArgument(f"could not load the TLS {what}: {err.strerror or err}") from err
        return context


class TlsSite(web.BaseSite):
    """A listening socket whose connections speak TLS."""

    def __init__(self, runner: web.AppRunner, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(runner)
        self._socket = sock
        self._context = context

    @property
    def name(self) -> str:
        """Where it listens, for people."""
        return f"https://{self._socket.getsockname()[:2]}"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        http = self._runner.server
        assert http is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Terminator(self._context, http), sock=self._socket, backlog=1024
        )


class _Terminator(asyncio.Protocol):
    """One client's connection: TLS on `transport`, plain bytes on one end of a socket pair, HTTP on the other."""

    def __init__(self, context: ssl.SSLContext, http: Callable[[], asyncio.BaseProtocol]) -> None:
        self._http = http
        self._loop = asyncio.get_running_loop()
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)
        self._plain: asyncio.StreamWriter | None = None
        self._is_greeted = False
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timeout = self._loop.call_later(HANDSHAKE_TIMEOUT_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._received.write(data)
        try:
            if not self._is_greeted:
                self._tls.do_handshake()
                self._greeted()
            self._pass_on()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:
            self._flush()  # the alert that says why
            self._transport.close()
        else:
            self._flush()

    def _greeted(self) -> None:
        self._is_greeted = True
        self._timeout.cancel()
        self._transport.pause_reading()  # until HTTP is there
        self._start(self._serve())

    def _pass_on(self) -> None:
        """Give what is decrypted to HTTP; the rest of a record stays where it is until more comes."""
        if self._plain is None:
            return
        try:
            while data := self._read():
                self._plain.write(data)
        except ssl.SSLWantReadError:
            pass
        if self._plain.transport.get_write_buffer_size() > _CHUNK_BYTES:
            self._transport.pause_reading()
            self._start(self._drain(self._plain))

    def _read(self) -> bytes:
        """Return decrypted bytes. At the end of what the client sends, pass the end on and return b""."""
        assert self._plain is not None
        try:
            data = self._tls.read(_CHUNK_BYTES)
        except ssl.SSLZeroReturnError:
            data = b""
        if not data and self._plain.can_write_eof() and not self._plain.is_closing():
            self._plain.write_eof()
        return data

    async def _drain(self, plain: asyncio.StreamWriter) -> None:
        try:
            await plain.drain()
        except ConnectionError:
            return
        self._transport.resume_reading()

    async def _serve(self) -> None:
        """Connect HTTP, then encrypt what it, or whoever takes the connection from it, has to say."""
        ours, theirs = socket.socketpair()
        reader, self._plain = await asyncio.open_connection(sock=ours)
        theirs.setblocking(False)
        await self._loop.connect_accepted_socket(self._http, theirs)
        try:
            self.data_received(b"")  # what came with the handshake
            self._transport.resume_reading()
            while data := await reader.read(_CHUNK_BYTES):
                self._tls.write(data)
                self._flush()
                await self._may_write.wait()
            self._say_goodbye()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            self._plain.close()
            self._transport.close()

    def _say_goodbye(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # wants the client's goodbye, which we do not wait for
            pass
        self._flush()

    def _flush(self) -> None:
        if data := self._to_send.read():
            self._transport.write(data)

    def _start(self, work: asyncio._CoroutineLike[None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def eof_received(self) -> bool:
        """Keep our direction open: what the client asked for may still be on its way to it."""
        if self._plain is not None and not self._plain.is_closing():
            self._plain.write_eof()
        return self._plain is not None

    def connection_lost(self, error: Exception | None) -> None:
        self._timeout.cancel()
        self._may_write.set()
        if self._plain is not None:
            self._plain.close()
