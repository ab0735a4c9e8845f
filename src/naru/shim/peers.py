"""The narud connections of one shim: requests in, each answered once; events out to all.

A shim is born with one connection, and every narud that starts later makes one more through the socket file. Nothing
here ever blocks: a narud that does not read is dropped, and learns all it missed when it connects again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TypeAlias

import msgspec
from msgspec import Struct

from naru.shim import protocol
from naru.shim.loop import EPOLLIN, Loop
from naru.shim.protocol import Answer, Request, TaskEvent

# Called once, with a request's result or the error that takes its place.
Reply: TypeAlias = Callable[[object], None]
Serve: TypeAlias = Callable[[Request, list[int], Reply], None]


class Peers:
    """Serves every connection with `serve(request, fds, reply)`, which replies now or later, or raises.

    `serve` owns the descriptors it takes out of the list; the rest is closed. `on_lost` tells that a peer has gone.
    """

    def __init__(self, loop: Loop, serve: Serve, on_lost: Callable[[], None]) -> None:
        self._loop = loop
        self._serve = serve
        self._on_lost = on_lost
        self._connections: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def listen(self, listener: socket.socket) -> None:
        """Serve every connection that `listener`, now ours, accepts."""
        self._listener = listener
        listener.setblocking(False)
        self._loop.watch(listener.fileno(), EPOLLIN, self._accept)

    def stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def add(self, connection: socket.socket) -> None:
        """Serve this connection too."""
        connection.setblocking(False)
        self._connections.append(connection)
        self._loop.watch(connection.fileno(), EPOLLIN, lambda _events: self._receive(connection))

    def tell(self, event: TaskEvent) -> None:
        """Push an event to every peer."""
        for connection in list(self._connections):
            self._send(connection, event)

    def _accept(self, _events: int) -> None:
        if self._listener is not None:
            try:
                self.add(self._listener.accept()[0])
            except (BlockingIOError, ConnectionAbortedError):
                pass

    def _receive(self, connection: socket.socket) -> None:
        try:
            message = protocol.receive(connection)
        except BlockingIOError:
            return
        except OSError:
            message = None
        if message is None:
            self._drop(connection)
            return
        body, fds = message
        try:
            ask = protocol.ask_decoder.decode(body)
        except msgspec.MsgspecError:
            self._drop(connection)  # not our narud, or not our protocol
        else:
            self._answer(connection, ask, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _answer(self, connection: socket.socket, ask: protocol.Ask, fds: list[int]) -> None:
        def reply(result: object) -> None:
            if isinstance(result, Exception):
                answer = Answer(ask.id, failure=protocol.failure_of(result))
            else:
                answer = Answer(ask.id, result=protocol.encode(result))
            if connection in self._connections:
                self._send(connection, answer)

        try:
            self._serve(ask.request, fds, reply)
        except Exception as error:  # the peer decides what an error means; the shim goes on
            reply(error)

    def _send(self, connection: socket.socket, message: Struct) -> None:
        try:
            protocol.send(connection, message)
        except OSError:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._loop.forget(connection.fileno())
            connection.close()
            self._on_lost()
