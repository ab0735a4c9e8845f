"""Routes of the engine itself: ping, version, information, disk use, log in. Engine API, System."""

from __future__ import annotations

from aiohttp import web

from naru.api.system import AuthConfig
from naru.server import versions
from naru.server.call import Call, no_content
from naru.server.routes import Route

# The classic builder, POST /build; 2 would send the docker CLI to a BuildKit session we do not speak yet.
BUILDER_VERSION = "1"

_PING_HEADERS = {
    "Builder-Version": BUILDER_VERSION,
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}


async def ping(call: Call) -> web.StreamResponse:
    body = b"" if call.request.method == "HEAD" else b"OK"
    return web.Response(body=body, headers=_PING_HEADERS, content_type="text/plain", charset="utf-8")


async def version(call: Call) -> web.StreamResponse:
    return call.answer(await call.run(call.engine.system_version))


async def info(call: Call) -> web.StreamResponse:
    return call.answer(await call.run(call.engine.system_info))


async def auth(call: Call) -> web.StreamResponse:
    answer = await call.run_long(call.engine.system_auth, await call.body(AuthConfig))
    return call.answer(answer) if answer.status or answer.identity_token else no_content()


async def data_usage(call: Call) -> web.StreamResponse:
    kinds = call.query.getall("type", []) if call.version >= (1, 42) else []
    usage = await call.run_long(call.engine.system_data_usage, type=kinds)
    return call.answer(versions.shown_usage(usage, call.version, verbose=call.flag("verbose")))


ROUTES = (
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version, "system_version"),
    Route("GET", "/info", info, "system_info"),
    Route("POST", "/auth", auth, "system_auth"),
    Route("GET", "/system/df", data_usage, "system_data_usage"),
)
