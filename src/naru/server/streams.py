"""Bytes between a worker thread that blocks and a connection that does not: never more in flight than a few chunks.

`BodyReader` is the request's body as a file to read; `BodyWriter` the response's body as a file to write;
`ProgressWriter` the callback that sends JSON lines. All three are used in worker threads. A client that went away
appears in them as ConnectionError.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from aiohttp import web

from naru.api.progress import ErrorDetail, ProgressMessage
from naru.api.wire import encode
from naru.build.failure import StepFailed
from naru.errors import Corrupt, InvalidArgument
from naru.server.call import Call
from naru.server.errors import message_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

T = TypeVar("T")

# Tar writers write 512 bytes at a time; one hop to the loop costs some 100 µs.
WRITE_BUFFER_BYTES = 256 << 10


def body_reader(call: Call) -> BinaryIO:
    """Return the request's body as a blocking file, for a worker thread."""
    return cast(BinaryIO, io.BufferedReader(_BodyReader(call), 128 << 10))


@contextmanager
def archive_judged() -> Iterator[None]:
    """What is wrong with an archive that the client sends is its mistake, not ours."""
    try:
        yield
    except Corrupt as error:
        raise InvalidArgument(str(error)) from error


class _Bridge:
    """Runs coroutines on the loop for a worker thread, until the request is over."""

    def __init__(self, call: Call) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._request = call.request

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the coroutine's result; raises ConnectionError if the client is gone."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            coroutine.close()
            raise ConnectionResetError("the client closed the connection")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class _BodyReader(io.RawIOBase):
    """The request's body; reading waits for the client, so a slow reader slows the client down."""

    def __init__(self, call: Call) -> None:
        self._bridge = _Bridge(call)
        self._content = call.request.content
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if not self._rest and not self._content.at_eof():
            self._rest = memoryview(self._bridge.wait_for(self._content.readany()))
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class _BodyWriter(io.RawIOBase):
    """The response's body; headers go out with the first bytes, so an error before them can still be a status."""

    def __init__(self, call: Call, response: web.StreamResponse) -> None:
        self._bridge = _Bridge(call)
        self._request = call.request
        self._response = response

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        content = bytes(data)
        self._bridge.wait_for(self._send(content))
        return len(content)

    async def _send(self, data: bytes) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)
        await self._response.write(data)


async def stream_file(
    call: Call, produce: Callable[[BinaryIO], None], *, content_type: str, headers: dict[str, str] | None = None
) -> web.StreamResponse:
    """Answer with what `produce` writes to a file, sent while it is written.

    An error before the first byte is answered as any other; after it, the connection is cut (by `app`), which is how
    HTTP says that a body of unknown length is incomplete.
    """
    response = web.StreamResponse(headers=headers)
    response.content_type = content_type
    raw = _BodyWriter(call, response)

    def run() -> None:
        with_buffer = io.BufferedWriter(raw, WRITE_BUFFER_BYTES)
        try:
            produce(cast(BinaryIO, with_buffer))
            with_buffer.flush()
        except BaseException:
            with_buffer.detach()  # or its destructor would send what is left
            raise

    await call.run_long(run)
    if not response.prepared:
        await response.prepare(call.request)
    await response.write_eof()
    return response


async def stream_progress(
    call: Call, work: Callable[[Callable[[ProgressMessage], None]], None], *, always_ok: bool = False
) -> web.StreamResponse:
    """Answer with the messages `work` reports, a JSON object a line, each sent at once.

    An error before the first message has its own status (but `always_ok` keeps it at 200); after it, it is the last
    message, as clients expect.
    """
    response = web.StreamResponse()
    response.content_type = "application/json"
    raw = _BodyWriter(call, response)

    def report(message: ProgressMessage) -> None:
        raw.write(encode(message) + b"\r\n")

    try:
        await call.run_long(work, report)
    except ConnectionError:
        raise
    except Exception as error:
        if not response.prepared and not always_ok:
            raise
        text = message_of(error)
        code = error.exit_code if isinstance(error, StepFailed) else 0
        last = ProgressMessage(error=text, error_detail=ErrorDetail(code=code, message=text))
        if not response.prepared:
            await response.prepare(call.request)
        await response.write(encode(last) + b"\r\n")
    if not response.prepared:
        await response.prepare(call.request)
    await response.write_eof()
    return response
