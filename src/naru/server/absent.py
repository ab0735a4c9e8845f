"""What we are not, said in the words clients test for: no swarm, no plugins. Engine API, Swarm and Plugin."""

from __future__ import annotations

from aiohttp import web

from naru.errors import NotFound, Unavailable, Unsupported
from naru.server.call import Call
from naru.server.routes import Route


async def no_swarm(call: Call) -> web.StreamResponse:
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
        "swarm and try again."
    )


async def no_swarm_to_leave(call: Call) -> web.StreamResponse:
    raise Unavailable("This node is not part of a swarm")


async def swarm_unsupported(call: Call) -> web.StreamResponse:
    raise Unsupported("swarm mode is not offered by this engine")


async def plugins(call: Call) -> web.StreamResponse:
    return call.answer([])


async def no_such_plugin(call: Call) -> web.StreamResponse:
    raise NotFound(f'plugin "{call["name"]}" not found')


async def plugins_unsupported(call: Call) -> web.StreamResponse:
    raise Unsupported("plugins are not offered by this engine")


_SWARM_NOUNS = ("nodes", "services", "tasks", "secrets", "configs")

ROUTES = (
    Route("GET", "/swarm", no_swarm),
    Route("GET", "/swarm/unlockkey", no_swarm),
    Route("POST", "/swarm/init", swarm_unsupported),
    Route("POST", "/swarm/join", swarm_unsupported),
    Route("POST", "/swarm/leave", no_swarm_to_leave),
    Route("POST", "/swarm/{verb}", no_swarm),
    *(Route("GET", f"/{noun}", no_swarm) for noun in _SWARM_NOUNS),
    *(Route("POST", f"/{noun}/create", no_swarm) for noun in _SWARM_NOUNS),
    *(Route("GET", f"/{noun}/{{id:path}}", no_swarm) for noun in _SWARM_NOUNS),
    *(Route("POST", f"/{noun}/{{id}}/update", no_swarm) for noun in _SWARM_NOUNS),
    *(Route("DELETE", f"/{noun}/{{id}}", no_swarm) for noun in _SWARM_NOUNS),
    Route("PUT", "/volumes/{name}", no_swarm),
    Route("GET", "/plugins", plugins),
    Route("GET", "/plugins/privileges", plugins_unsupported),
    Route("POST", "/plugins/pull", plugins_unsupported),
    Route("POST", "/plugins/create", plugins_unsupported),
    Route("GET", "/plugins/{name:path}/json", no_such_plugin),
    Route("POST", "/plugins/{name:path}/{verb}", no_such_plugin),
    Route("DELETE", "/plugins/{name:path}", no_such_plugin),
)
