"""Routes of extra processes in a container. Engine API, Exec."""

from __future__ import annotations

from aiohttp import web

from naru.api.exec import ExecCreateRequest, ExecStartRequest
from naru.server.call import Call
from naru.server.containers import screen
from naru.server.hijack import Connection, hijack, input_held
from naru.server.routes import Route


async def create(call: Call) -> web.StreamResponse:
    request = await call.body(ExecCreateRequest)
    if call.version < (1, 42):
        request.console_size = None
    return call.answer(await call.run(call.engine.container_exec, call["id"], request), status=201)


async def start(call: Call) -> web.StreamResponse:
    request = await call.body_or_none(ExecStartRequest) or ExecStartRequest()
    if call.version < (1, 42):
        request.console_size = None
    if request.detach:
        await call.run(call.engine.exec_start, call["id"], request, None, b"")
        return web.Response()
    # What the client asks for here decides, not what the exec was created with: moby, ContainerExecStart.
    with input_held(call):
        process = await call.run(call.engine.exec_inspect, call["id"])

        def session(connection: Connection) -> None:
            call.engine.exec_start(process.id, request, connection.fd, connection.prefix)

        return await hijack(call, multiplexed=not request.tty, session=session)


async def resize(call: Call) -> web.StreamResponse:
    height, width = screen(call)
    await call.run(call.engine.exec_resize, call["id"], h=height, w=width)
    return web.Response()


async def inspect(call: Call) -> web.StreamResponse:
    return call.answer(await call.run(call.engine.exec_inspect, call["id"]))


ROUTES = (
    Route("POST", "/containers/{id}/exec", create, "container_exec"),
    Route("POST", "/exec/{id}/start", start, "exec_start"),
    Route("POST", "/exec/{id}/resize", resize, "exec_resize"),
    Route("GET", "/exec/{id}/json", inspect, "exec_inspect"),
)
