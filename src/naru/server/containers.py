"""Routes of containers, streams aside. Engine API, Container."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from aiohttp import web

from naru.api.container import ContainerCreateRequest, ContainerUpdateRequest
from naru.api.wire import encode
from naru.errors import InvalidArgument
from naru.server import versions
from naru.server.call import Call, no_content
from naru.server.routes import Route

# What old clients send for "nothing": `{}`, `null`, a line end.
MAX_EMPTY_BYTES = 7


async def list_(call: Call) -> web.StreamResponse:
    filters = call.filters()
    # Parameters of their own before they were filters; stopped containers are meant, too.
    bounds = {key: [call.text(key)] for key in ("since", "before") if call.text(key)}
    found = await call.run(
        call.engine.container_list,
        all=call.flag("all") or bool(bounds),
        limit=call.number("limit") or 0,
        size=call.flag("size"),
        filters=bounds | filters,
    )
    return call.answer(found)


async def create(call: Call) -> web.StreamResponse:
    request = await call.body(ContainerCreateRequest)
    warnings = versions.normalize_create(request, call.version)
    platform = call.text("platform") if call.version >= (1, 41) else ""
    created = await call.run(call.engine.container_create, call.text("name"), request, platform)
    created.warnings += warnings
    return call.answer(created, status=201)


async def inspect(call: Call) -> web.StreamResponse:
    return call.answer(await call.run(call.engine.container_inspect, call["id"], size=call.flag("size")))


async def top(call: Call) -> web.StreamResponse:
    return call.answer(await call.run(call.engine.container_top, call["id"], ps_args=call.text("ps_args")))


async def changes(call: Call) -> web.StreamResponse:
    return call.answer(await call.run_long(call.engine.container_changes, call["id"]))


async def resize(call: Call) -> web.StreamResponse:
    height, width = screen(call)
    await call.run(call.engine.container_resize, call["id"], h=height, w=width)
    return web.Response()


def screen(call: Call) -> tuple[int, int]:
    """Return the height and width a resize asks for."""
    height, width = call.number("h"), call.number("w")
    if height is None or width is None or height < 0 or width < 0:
        raise InvalidArgument("resize needs the height and the width, h and w")
    return height, width


async def start(call: Call) -> web.StreamResponse:
    if (call.request.content_length or 0) > MAX_EMPTY_BYTES or "chunked" in call.request.headers.get(
        "Transfer-Encoding", ""
    ):
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await call.sessions.settled(call["id"])
    await call.run(call.engine.container_start, call["id"], detach_keys=call.text("detachKeys"))
    return no_content()


async def stop(call: Call) -> web.StreamResponse:
    await call.run_long(call.engine.container_stop, call["id"], signal=_stop_signal(call), t=call.number("t"))
    return no_content()


async def restart(call: Call) -> web.StreamResponse:
    await call.run_long(call.engine.container_restart, call["id"], signal=_stop_signal(call), t=call.number("t"))
    return no_content()


def _stop_signal(call: Call) -> str:
    return call.text("signal") if call.version >= (1, 42) else ""


async def kill(call: Call) -> web.StreamResponse:
    await call.run_long(call.engine.container_kill, call["id"], signal=call.text("signal"))
    return no_content()


async def update(call: Call) -> web.StreamResponse:
    request = await call.body(ContainerUpdateRequest)
    versions.normalize_update(request, call.version)
    return call.answer(await call.run(call.engine.container_update, call["id"], request))


async def rename(call: Call) -> web.StreamResponse:
    await call.run(call.engine.container_rename, call["id"], name=call.text("name"))
    return no_content()


async def pause(call: Call) -> web.StreamResponse:
    await call.run(call.engine.container_pause, call["id"])
    return no_content()


async def unpause(call: Call) -> web.StreamResponse:
    await call.run(call.engine.container_unpause, call["id"])
    return no_content()


async def wait(call: Call) -> web.StreamResponse:
    """Send the head as soon as the wait is in place, so that the client may start the container; the body later."""
    # Before 1.30 there were no conditions, and the head came with the body.
    is_told_early = call.version >= (1, 30)
    condition = (call.text("condition") if is_told_early else "") or "not-running"
    future = await call.acquire(Future.cancel, call.engine.container_wait, call["id"], condition=condition)
    response = web.StreamResponse()
    response.content_type = "application/json"
    if is_told_early and not future.done():
        await response.prepare(call.request)
    result = await asyncio.wrap_future(future)
    await response.prepare(call.request)
    await response.write(encode(result) + b"\n")
    await response.write_eof()
    return response


async def delete(call: Call) -> web.StreamResponse:
    await call.run_long(
        call.engine.container_delete, call["id"], v=call.flag("v"), force=call.flag("force"), link=call.flag("link")
    )
    return no_content()


async def prune(call: Call) -> web.StreamResponse:
    return call.answer(await call.run_long(call.engine.container_prune, filters=call.filters()))


ROUTES = (
    Route("GET", "/containers/json", list_, "container_list"),
    Route("POST", "/containers/create", create, "container_create"),
    Route("POST", "/containers/prune", prune, "container_prune"),
    Route("GET", "/containers/{id}/json", inspect, "container_inspect"),
    Route("GET", "/containers/{id}/top", top, "container_top"),
    Route("GET", "/containers/{id}/changes", changes, "container_changes"),
    Route("POST", "/containers/{id}/resize", resize, "container_resize"),
    Route("POST", "/containers/{id}/start", start, "container_start"),
    Route("POST", "/containers/{id}/stop", stop, "container_stop"),
    Route("POST", "/containers/{id}/restart", restart, "container_restart"),
    Route("POST", "/containers/{id}/kill", kill, "container_kill"),
    Route("POST", "/containers/{id}/update", update, "container_update"),
    Route("POST", "/containers/{id}/rename", rename, "container_rename"),
    Route("POST", "/containers/{id}/pause", pause, "container_pause"),
    Route("POST", "/containers/{id}/unpause", unpause, "container_unpause"),
    Route("POST", "/containers/{id}/wait", wait, "container_wait"),
    Route("DELETE", "/containers/{id}", delete, "container_delete"),
)
