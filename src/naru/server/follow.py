"""Routes that keep talking while something goes on: logs, stats, events. Engine API, ContainerLogs, SystemEvents.

A client that goes away cancels its handler (listen.py asks aiohttp for that), and the `finally` here tells the engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from aiohttp import web

from naru.api.container import LogsOptions
from naru.api.event import EventMessage
from naru.api.stats import ContainerStats
from naru.api.wire import encode
from naru.errors import InvalidArgument, NotFound
from naru.server import query, versions
from naru.server.call import Call
from naru.server.hijack import MULTIPLEXED_STREAM, RAW_STREAM
from naru.server.routes import Route
from naru.server.verbs import LogStream, Subscription

STATS_INTERVAL_S = 1.0

# Events a listener may lag behind before it is cut off, some 4 MB; a build of a large project makes some hundreds a
# second.
MAX_WAITING_EVENTS = 8192


async def logs(call: Call) -> web.StreamResponse:
    if not (call.flag("stdout") or call.flag("stderr")):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    options = LogsOptions(
        follow=call.flag("follow"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        since_ns=query.moment_ns(call.query, "since"),
        until_ns=query.moment_ns(call.query, "until"),
        timestamps=call.flag("timestamps"),
        tail=_tail(call.text("tail")),
        details=call.flag("details"),
    )
    container = await call.run(call.engine.container_inspect, call["id"])
    stream = await call.acquire(_close, call.engine.container_logs, container.id, options)
    try:
        response = web.StreamResponse()
        multiplexed = not container.config.tty and call.version >= (1, 42)
        response.content_type = MULTIPLEXED_STREAM if multiplexed else RAW_STREAM
        await response.prepare(call.request)
        await _copy(call, stream, response)
        await response.write_eof()
        return response
    finally:
        await asyncio.shield(call.run(stream.close))


def _close(resource: LogStream | Subscription) -> None:
    resource.close()


def _tail(text: str) -> int | None:
    """Return how many last lines are asked for; None for all, as moby reads "all" and anything not a number."""
    return int(text) if text.isdecimal() else None


async def _copy(call: Call, stream: LogStream, response: web.StreamResponse) -> None:
    """Send what `stream` has, until it is finished; between reads, wait until its descriptor is readable."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    descriptor = stream.fileno()
    loop.add_reader(descriptor, _note, loop, descriptor, readable)
    try:
        while True:
            data = await call.run(stream.read)
            if data:
                await response.write(data)
            elif stream.finished:
                return
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(readable.wait(), stream.patience_s)
                loop.remove_reader(descriptor)
                readable.clear()
                loop.add_reader(descriptor, _note, loop, descriptor, readable)
    finally:
        loop.remove_reader(descriptor)


def _note(loop: asyncio.AbstractEventLoop, descriptor: int, readable: asyncio.Event) -> None:
    """Wake the copier once; the descriptor stays readable until it has read, so stop watching meanwhile."""
    loop.remove_reader(descriptor)
    readable.set()


async def stats(call: Call) -> web.StreamResponse:
    """Send a sample a second; or one, which without `one-shot` follows a first that percentages need."""
    is_stream = call.flag("stream", default=True)
    one_shot = call.flag("one-shot") and call.version >= (1, 41)
    if is_stream and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    sample = await call.run(call.engine.container_stats, call["id"], one_shot=one_shot)
    if one_shot:
        return call.answer(sample)
    if not is_stream:
        await asyncio.sleep(STATS_INTERVAL_S)
        return call.answer(await _next_sample(call, sample))
    response = web.StreamResponse()
    response.content_type = "application/json"
    await response.prepare(call.request)
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + STATS_INTERVAL_S
        await response.write(encode(sample) + b"\n")
        await asyncio.sleep(due - loop.time())
        try:
            sample = await _next_sample(call, sample)
        except NotFound:
            break
    await response.write_eof()
    return response


async def _next_sample(call: Call, previous: ContainerStats) -> ContainerStats:
    """Return a sample that has the one before beside it."""
    sample = await call.run(call.engine.container_stats, call["id"], one_shot=False)
    sample.precpu_stats, sample.preread = previous.cpu_stats, previous.read
    return sample


JSON_LINES = "application/jsonl"
JSON_SEQUENCE = "application/json-seq"
_EVENT_TYPES = (JSON_LINES, "application/x-ndjson", JSON_SEQUENCE)


def _event_type(call: Call) -> str:
    """Return the form of an event stream: what the client accepts by name, else what its version expects."""
    accepted = [part.partition(";")[0].strip() for part in call.request.headers.get("Accept", "").split(",")]
    named = next((kind for kind in accepted if kind in _EVENT_TYPES), None)
    return named or ("application/json" if call.version < (1, 52) else JSON_LINES)


class _Inbox:
    """Events on their way from whatever thread they happen in to one client."""

    def __init__(self, version: versions.Version, content_type: str) -> None:
        self._version = version
        self._start = b"\x1e" if content_type == JSON_SEQUENCE else b""  # RFC 7464
        self._loop = asyncio.get_running_loop()
        self._events: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._is_woken = False
        self.has_overflowed = False

    def put(self, event: EventMessage) -> None:
        """Add `event`; any thread may call it."""
        if self._version < (1, 46) and (event.type, event.action) == ("image", "create"):
            return
        if len(self._events) >= MAX_WAITING_EVENTS:
            self.has_overflowed = True
        else:
            self._events.append(self._start + encode(versions.reshape(event, self._version)) + b"\n")
        if not self._is_woken:
            self._is_woken = True
            try:
                self._loop.call_soon_threadsafe(self._arrived.set)
            except RuntimeError:  # the loop is closed: the server is going down
                pass

    async def take(self) -> bytes:
        """Return all waiting events as lines, waiting for the first."""
        await self._arrived.wait()
        self._arrived.clear()
        self._is_woken = False
        return self.rest()

    def rest(self) -> bytes:
        """Return all waiting events as lines; b"" if there are none."""
        return b"".join(self._events.popleft() for _ in range(len(self._events)))


async def events(call: Call) -> web.StreamResponse:
    until_ns, since_ns = query.moment_ns(call.query, "until"), query.moment_ns(call.query, "since")
    if until_ns is not None and since_ns is not None and until_ns < since_ns:
        raise InvalidArgument(
            f"`since` time ({call.text('since')}) cannot be after `until` time ({call.text('until')})"
        )
    content_type = _event_type(call)
    inbox = _Inbox(call.version, content_type)
    subscription = await call.acquire(
        _close, call.engine.system_events, call.filters(), call.text("since"), call.text("until"), inbox.put
    )
    try:
        response = web.StreamResponse()
        response.content_type = content_type
        await response.prepare(call.request)
        await _send_events(inbox, response, None if until_ns is None else query.seconds_until(until_ns))
        await response.write_eof()
        return response
    finally:
        await asyncio.shield(call.run(subscription.close))


async def _send_events(inbox: _Inbox, response: web.StreamResponse, timeout_s: float | None) -> None:
    """Send events as they come; end after `timeout_s`, or when the client does not keep up."""
    await response.write(inbox.rest())  # also sends the head, which clients wait for before they act
    try:
        async with asyncio.timeout(timeout_s):
            while not inbox.has_overflowed:
                await response.write(await inbox.take())
    except TimeoutError:
        await response.write(inbox.rest())


ROUTES = (
    Route("GET", "/containers/{id}/logs", logs, "container_logs"),
    Route("GET", "/containers/{id}/stats", stats, "container_stats"),
    Route("GET", "/events", events, "system_events"),
)
