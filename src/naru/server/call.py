"""One request on its way through: what a route may ask of it, and the ways to answer.

A route is an `async def` from a `Call` to a response: decode, call one verb, encode. Verbs block, so they run in
worker threads: short ones in one pool, those that may take as long as a network or a person (`long`) in another, so
that ten pulls never make a `ps` wait.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from naru.api.wire import decode, encode
from naru.errors import InvalidArgument
from naru.server import query, versions
from naru.server.errors import message_of
from naru.server.sessions import Sessions
from naru.server.verbs import Verbs
from naru.server.versions import Version

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

# A create request with every field in use is some 20 KB; labels and environments of large compose files reach 1 MB.
MAX_JSON_BYTES = 8 << 20

# Threads are made on demand. 32 short verbs at once keep two cores busy several times over; long ones only wait.
SHORT_WORKERS = 32
LONG_WORKERS = 128


class Workers:
    """The threads in which verbs run."""

    def __init__(self) -> None:
        self.short: Executor = ThreadPoolExecutor(SHORT_WORKERS, thread_name_prefix="verb")
        self.long: Executor = ThreadPoolExecutor(LONG_WORKERS, thread_name_prefix="long-verb")

    def close(self) -> None:
        """Take no more work; what runs is not waited for."""
        self.short.shutdown(wait=False, cancel_futures=True)
        self.long.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class Call:
    """A request, its API version, its path's variables, and the engine it is for."""

    request: web.Request
    version: Version
    variables: dict[str, str]
    engine: Verbs
    workers: Workers
    sessions: Sessions

    def __getitem__(self, variable: str) -> str:
        return self.variables[variable]

    @property
    def query(self) -> MultiMapping[str]:
        """The query parameters."""
        return self.request.query

    def text(self, name: str, default: str = "") -> str:
        """Return a query parameter as it is."""
        return self.request.query.get(name, default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a query parameter as a boolean."""
        return query.flag(self.request.query, name, default=default)

    def number(self, name: str) -> int | None:
        """Return a query parameter as a number; None where it is missing."""
        return query.number(self.request.query, name)

    def filters(self) -> dict[str, list[str]]:
        """Return the `filters` parameter."""
        return query.filters(self.request.query)

    async def body(self, kind: type[S]) -> S:
        """Return the JSON body. InvalidArgument: empty, too large, not JSON, or not a `kind`."""
        return await self.body_or_none(kind) or _refuse_empty()

    async def body_or_none(self, kind: type[S]) -> S | None:
        """Return the JSON body, None where there is none or where it says `null`, as some clients do."""
        request = self.request
        if not request.body_exists:
            return None
        content = bytearray()
        async for chunk in request.content.iter_any():
            content += chunk
            if len(content) > MAX_JSON_BYTES:
                raise InvalidArgument(f"request body larger than {MAX_JSON_BYTES} bytes")
        text = bytes(content)
        if text.strip() in (b"", b"null"):
            return None
        if request.content_type != "application/json":  # also keeps a browser's form from being a request of ours
            raise InvalidArgument(
                f"unsupported Content-Type header ({request.content_type}): must be 'application/json'"
            )
        return decode(kind, text)

    async def run(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `verb` in a worker thread. It is carried out even if the client does not wait for the answer."""
        return await self._done(self.workers.short, functools.partial(verb, *args, **kwargs), _look_at)

    async def run_long(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `verb` in a thread of its own kind, for what may take minutes."""
        return await self._done(self.workers.long, functools.partial(verb, *args, **kwargs), _look_at)

    async def acquire(
        self, release: Callable[[T], object], verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `verb` as `run` does, for a result that must be given back: `release` gets it if the client leaves."""

        def released(future: asyncio.Future[T]) -> None:
            if _look_at(future):
                self.workers.short.submit(release, future.result())

        return await self._done(self.workers.short, functools.partial(verb, *args, **kwargs), released)

    async def _done(self, executor: Executor, verb: Callable[[], T], left: Callable[[asyncio.Future[T]], object]) -> T:
        """Return what `verb` returns; if the client leaves before, `left` is called at the end."""
        future = asyncio.get_running_loop().run_in_executor(executor, verb)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(left)
            raise

    def answer(self, value: Any, *, status: int = 200) -> web.Response:
        """Return `value` as the JSON body, in the shape of the client's API version."""
        body = encode(versions.reshape(value, self.version)) + b"\n"
        return web.Response(status=status, body=body, content_type="application/json")


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


def _look_at(future: asyncio.Future[Any]) -> bool:
    """Return whether a verb nobody waited for has a result; log an error that nobody foresaw."""
    if future.cancelled():
        return False
    error = future.exception()
    if error is not None and not isinstance(error, ConnectionError):  # which says that the client has left
        message_of(error)
    return error is None


def no_content() -> web.Response:
    """Return the empty answer of a verb that has nothing to say."""
    return web.Response(status=204)


def _refuse_empty() -> Any:
    raise InvalidArgument("invalid JSON: got EOF while reading request body")
