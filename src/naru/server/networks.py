"""Routes of networks. Engine API, Network."""

from __future__ import annotations

from aiohttp import web

from naru.api.network import NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest
from naru.server.call import Call, no_content
from naru.server.routes import Route


async def list_(call: Call) -> web.StreamResponse:
    return call.answer(await call.run(call.engine.network_list, filters=call.filters()))


async def inspect(call: Call) -> web.StreamResponse:
    found = await call.run(
        call.engine.network_inspect, call["id"], verbose=call.flag("verbose"), scope=call.text("scope")
    )
    return call.answer(found)


async def create(call: Call) -> web.StreamResponse:
    request = await call.body(NetworkCreateRequest)
    if call.version < (1, 48):
        request.enable_ipv4 = None
    return call.answer(await call.run(call.engine.network_create, request), status=201)


async def connect(call: Call) -> web.StreamResponse:
    request = await call.body(NetworkConnectRequest)
    await call.run(call.engine.network_connect, call["id"], request)
    return web.Response()


async def disconnect(call: Call) -> web.StreamResponse:
    await call.run(call.engine.network_disconnect, call["id"], await call.body(NetworkDisconnectRequest))
    return web.Response()


async def delete(call: Call) -> web.StreamResponse:
    await call.run(call.engine.network_delete, call["id"])
    return no_content()


async def prune(call: Call) -> web.StreamResponse:
    return call.answer(await call.run_long(call.engine.network_prune, filters=call.filters()))


ROUTES = (
    Route("GET", "/networks", list_, "network_list"),
    Route("POST", "/networks/create", create, "network_create"),
    Route("POST", "/networks/prune", prune, "network_prune"),
    Route("GET", "/networks/{id}", inspect, "network_inspect"),
    Route("POST", "/networks/{id}/connect", connect, "network_connect"),
    Route("POST", "/networks/{id}/disconnect", disconnect, "network_disconnect"),
    Route("DELETE", "/networks/{id}", delete, "network_delete"),
)
