"""Routes of volumes. Engine API, Volume."""

from __future__ import annotations

from aiohttp import web

from naru.api.volume import VolumeCreateRequest
from naru.server.call import Call, no_content
from naru.server.routes import Route


async def list_(call: Call) -> web.StreamResponse:
    return call.answer(await call.run(call.engine.volume_list, filters=call.filters()))


async def create(call: Call) -> web.StreamResponse:
    request = await call.body_or_none(VolumeCreateRequest) or VolumeCreateRequest()
    return call.answer(await call.run(call.engine.volume_create, request), status=201)


async def inspect(call: Call) -> web.StreamResponse:
    return call.answer(await call.run(call.engine.volume_inspect, call["name"]))


async def delete(call: Call) -> web.StreamResponse:
    await call.run(call.engine.volume_delete, call["name"], force=call.flag("force"))
    return no_content()


async def prune(call: Call) -> web.StreamResponse:
    filters = call.filters()
    if call.version < (1, 42):  # before, named volumes were always among those removed
        filters.setdefault("all", ["true"])
    return call.answer(await call.run_long(call.engine.volume_prune, filters=filters))


ROUTES = (
    Route("GET", "/volumes", list_, "volume_list"),
    Route("POST", "/volumes/create", create, "volume_create"),
    Route("POST", "/volumes/prune", prune, "volume_prune"),
    Route("GET", "/volumes/{name}", inspect, "volume_inspect"),
    Route("DELETE", "/volumes/{name}", delete, "volume_delete"),
)
