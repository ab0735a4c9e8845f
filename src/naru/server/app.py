"""The Engine API as an aiohttp application over one engine. It decides nothing: routes decode, call, encode."""

from __future__ import annotations

import re
from typing import cast

from aiohttp import web

from naru import __version__
from naru.errors import NotFound, Unsupported
from naru.server import (
    absent,
    archives,
    attach,
    build,
    containers,
    exec,
    follow,
    images,
    networks,
    system,
    versions,
    volumes,
)
from naru.server.call import Call, Workers
from naru.server.errors import error_response, message_of
from naru.server.routes import Routes
from naru.server.sessions import Sessions
from naru.server.verbs import Verbs

ROUTES = (
    *system.ROUTES,
    *containers.ROUTES,
    *attach.ROUTES,
    *exec.ROUTES,
    *follow.ROUTES,
    *archives.ROUTES,
    *images.ROUTES,
    *build.ROUTES,
    *networks.ROUTES,
    *volumes.ROUTES,
    *absent.ROUTES,
)

_VERSION_PREFIX = re.compile(r"/v([0-9]{1,4}\.[0-9]{1,4})(/.*)", re.DOTALL)

_HEADERS = {
    "Api-Version": versions.NEWEST_TEXT,
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Naru/{__version__} (linux)",
}

_HAS_BEGUN = web.RequestKey("has_begun", bool)


def make_app(engine: object) -> web.Application:
    """Return the application that serves `engine`, an object with the methods of `verbs.Verbs`.

    A method it does not have is answered 501. Run it with `handler_cancellation`, as `listen.serve` does.
    """
    dispatcher = _Dispatcher(cast(Verbs, engine))
    app = web.Application(client_max_size=0)
    app.router.add_route("*", r"/{path:[\s\S]*}", dispatcher.dispatch)
    app.on_response_prepare.append(_add_headers)
    app.on_cleanup.append(dispatcher.close)
    return app


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    request[_HAS_BEGUN] = True


class _Dispatcher:
    """Finds the route of a request, runs it, and makes an error into an answer."""

    def __init__(self, engine: Verbs) -> None:
        self._engine = engine
        self._routes = Routes(ROUTES)
        self._workers = Workers()
        self._sessions = Sessions()

    async def dispatch(self, request: web.Request) -> web.StreamResponse:
        """Answer `request`; an error once the answer has begun can only be told by cutting the connection."""
        try:
            return await self._answer(request)
        except Exception as error:
            transport = request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client closed the connection") from error
            if _HAS_BEGUN not in request:
                return error_response(error)
            message_of(error)
            transport.abort()
            raise ConnectionAbortedError("answer cut short") from error

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, version = request.path, versions.NEWEST
        prefixed = _VERSION_PREFIX.fullmatch(path)
        if prefixed is not None:
            version, path = versions.parse(prefixed[1]), prefixed[2]
        found = self._routes.find(request.method, path)
        if found is None:
            raise NotFound("page not found")
        route, variables = found
        if route.verb and not hasattr(self._engine, route.verb):
            raise Unsupported(f"{route.verb.replace('_', ' ')} is not offered by this engine")
        return await route.handler(Call(request, version, variables, self._engine, self._workers, self._sessions))

    async def close(self, app: web.Application) -> None:
        """End the sessions' set-ups still under way and take no more work."""
        self._sessions.close()
        self._workers.close()
