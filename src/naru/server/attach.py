"""Routes that join a client to a container's standard streams. Engine API, ContainerAttach."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from naru.api.container import AttachOptions
from naru.errors import InvalidArgument
from naru.server.call import Call
from naru.server.hijack import Connection, hijack, input_held
from naru.server.routes import Route

_CHUNK_BYTES = 64 << 10


def _options(call: Call, *, multiplexed: bool, prefix: bytes = b"", has_all_streams: bool = False) -> AttachOptions:
    return AttachOptions(
        stdin=has_all_streams or call.flag("stdin"),
        stdout=has_all_streams or call.flag("stdout"),
        stderr=has_all_streams or call.flag("stderr"),
        stream=call.flag("stream"),
        logs=call.flag("logs"),
        detach_keys=call.query.get("detachKeys"),
        multiplexed=multiplexed,
        prefix=prefix,
    )


async def attach(call: Call) -> web.StreamResponse:
    with input_held(call):
        container = await call.run(call.engine.container_inspect, call["id"])
        multiplexed = not container.config.tty

        def session(connection: Connection) -> None:
            options = _options(call, multiplexed=multiplexed, prefix=connection.prefix)
            call.engine.container_attach(container.id, options, connection.fd)

        return await hijack(call, multiplexed=multiplexed, session=session)


async def attach_websocket(call: Call) -> web.StreamResponse:
    """Carry the streams in messages, both kinds of output in one, as terminals in browsers expect."""
    container = await call.run(call.engine.container_inspect, call["id"])
    messages = web.WebSocketResponse()
    if not messages.can_prepare(call.request):
        raise InvalidArgument("attach/ws needs a WebSocket's opening handshake")
    # Before 1.42, the parameters that choose streams were not looked at.
    options = _options(call, multiplexed=False, has_all_streams=call.version < (1, 42))
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def join() -> None:
        with theirs:  # the thread's, which may outlive this handler
            call.engine.container_attach(container.id, options, theirs.fileno())

    try:
        await call.run_long(join)
    except BaseException:
        ours.close()
        raise
    reader, writer = await asyncio.open_connection(sock=ours)
    output: asyncio.Task[None] | None = None
    try:
        await messages.prepare(call.request)
        output = asyncio.get_running_loop().create_task(_send_output(reader, messages))
        async for message in messages:
            if message.type in (web.WSMsgType.TEXT, web.WSMsgType.BINARY):
                writer.write(message.data.encode() if message.type is web.WSMsgType.TEXT else message.data)
                await writer.drain()
    finally:
        if output is not None:
            output.cancel()
        writer.close()
    return messages


async def _send_output(reader: asyncio.StreamReader, messages: web.WebSocketResponse) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            await messages.send_bytes(data)
        await messages.close()
    except ConnectionError:
        pass


ROUTES = (
    Route("POST", "/containers/{id}/attach", attach, "container_attach"),
    Route("GET", "/containers/{id}/attach/ws", attach_websocket, "container_attach"),
)
