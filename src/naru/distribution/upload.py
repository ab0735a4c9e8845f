"""One blob on its way to a registry: perhaps it is there, perhaps a repository next door lends it; else it is sent.

    HEAD   blobs/<digest>                     200: it is there
    POST   blobs/uploads/?mount=&from=        201: lent by another repository; 202: an upload session has begun
    PUT    <session>?digest=                  a small blob, in one piece
    PATCH  <session>, PUT <session>?digest=   a large one, as one stream from the content store
    GET    <session>                          after a broken connection: how much has arrived; the rest follows

OCI distribution-spec, Push
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO
from urllib.parse import quote, urljoin

import aiohttp

from naru.content.store import ContentStore
from naru.distribution.client import READ_TIMEOUT_S, TRIES, RegistryClient, delay_s, passing
from naru.distribution.refusal import RegistryError
from naru.errors import Unavailable
from naru.oci.image import Descriptor

# Below it a second request costs more than what a broken connection would lose.
_ONE_PIECE_BYTES = 1 << 20
_READ_BYTES = 256 << 10
# A registry over an object store copies and hashes the whole blob before it answers the last request.
_COMMIT_TIMEOUT_S = 300.0
_OCTETS = {"Content-Type": "application/octet-stream"}


class Outcome(Enum):
    """What had to be done for a blob."""

    EXISTED = "existed"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"


@dataclass(frozen=True, slots=True)
class Placed:
    """A blob that is in the repository now; `source` is the repository that lent it."""

    outcome: Outcome
    source: str = ""


class Upload:
    """Brings `blob` from the content store to the client's repository."""

    def __init__(
        self,
        client: RegistryClient,
        content: ContentStore,
        blob: Descriptor,
        *,
        sources: Sequence[str] = (),
        on_sent: Callable[[int], None] = lambda _size: None,
        on_retry: Callable[[float], None] = lambda _delay_s: None,
    ) -> None:
        """`sources` are repositories of the same registry that may lend it; `on_sent` is told the bytes so far."""
        self._client = client
        self._content = content
        self._blob = blob
        self._sources = list(sources)
        self._on_sent = on_sent
        self._on_retry = on_retry
        self._session = ""
        self._arrived = 0
        self._is_resumed = False
        # What `on_sent` raised: its listener is gone. aiohttp makes a failed connection of it.
        self._unheard: Exception | None = None

    async def run(self) -> Placed:
        """Return how it went. RegistryError: refused. Unavailable: no answer after some tries. What `on_sent` raises.

        Tries count from zero after each one that brought the upload further.
        """
        failure: Exception | None = None
        attempt = 0
        furthest = 0
        is_sent = False
        while attempt < TRIES:
            if attempt:
                wait_s = delay_s(attempt, failure)
                self._on_retry(wait_s)
                await asyncio.sleep(wait_s)
            attempt += 1
            try:
                if not await self._resumes():
                    if await self._exists():
                        return Placed(Outcome.UPLOADED if is_sent else Outcome.EXISTED)
                    source = await self._begin()
                    if source:
                        return Placed(Outcome.MOUNTED, source)
                if self._arrived > furthest:
                    furthest, attempt = self._arrived, 1
                is_sent = True
                await self._send()
                return Placed(Outcome.UPLOADED)
            except RegistryError as error:
                if not self._session or not self._is_resumed:
                    raise
                self._session = ""  # it cannot go on where it said it could: once more, from the beginning
                failure = error
            except passing() as error:
                if self._unheard is not None:
                    raise self._unheard from None
                failure = error
        raise Unavailable(f"blob {self._blob.digest}: {self._client.unreachable(failure)}") from failure

    async def _exists(self) -> bool:
        try:
            async with self._client.exchange("HEAD", f"blobs/{self._blob.digest}"):
                return True
        except RegistryError:  # an answer to HEAD has no words; the next request is refused with some
            return False

    async def _begin(self) -> str:
        """Begin an upload, unless one of the sources lends the blob, which is then returned."""
        self._arrived, self._is_resumed = 0, False
        while True:
            source = self._sources.pop(0) if self._sources else ""
            mount = f"?mount={quote(self._blob.digest)}&from={quote(source, safe='')}" if source else ""
            async with self._client.exchange("POST", f"blobs/uploads/{mount}", expected=(201, 202)) as response:
                if response.status == 201:
                    return source
                self._session = _location(response, "")
            if not self._sources:
                return ""

    async def _resumes(self) -> bool:
        """Whether the session goes on, and from where; False where there is none, or the registry gave it up."""
        if not self._session:
            return False
        try:
            async with self._client.exchange("GET", self._session, expected=(204,)) as response:
                first, _, last = response.headers.get("Range", "").removeprefix("bytes=").partition("-")
                session = _location(response, self._session)
        except RegistryError:
            first, last, session = "", "", ""
        # "0-0" is said of one byte and of none. Both are sooner sent again than told apart.
        if first != "0" or not last.isdecimal() or not 0 < int(last) < self._blob.size:
            self._session = ""
            return False
        self._session, self._arrived, self._is_resumed = session, int(last) + 1, True
        return True

    async def _send(self) -> None:
        left = self._blob.size - self._arrived
        with self._content.open(self._blob.digest) as file:
            if self._arrived == 0 and left <= _ONE_PIECE_BYTES:
                await self._commit(file, left)
                return
            if left:
                # The specification has a Content-Range for each of several chunks. Not every registry takes chunks;
                # all take one stream without the header, and those that can resume, the rest with it.
                chunk = {"Content-Range": f"{self._arrived}-{self._blob.size - 1}"} if self._arrived else {}
                session = self._session
                async with (
                    asyncio.timeout(READ_TIMEOUT_S) as deadline,
                    self._client.exchange(
                        "PATCH",
                        session,
                        headers=_OCTETS | chunk,
                        body=lambda: self._pieces(file, deadline),
                        size_bytes=left,
                        expected=(202, 204),
                    ) as response,
                ):
                    self._session = _location(response, session)
        await self._commit(None, 0)

    async def _commit(self, file: BinaryIO | None, size_bytes: int) -> None:
        """Say that this is all, and what its digest has to be; `file` is sent along."""
        target = f"{self._session}{'&' if '?' in self._session else '?'}digest={quote(self._blob.digest)}"
        async with (
            asyncio.timeout(READ_TIMEOUT_S if file else None) as deadline,
            self._client.exchange(
                "PUT",
                target,
                headers=_OCTETS,
                body=(lambda: self._pieces(file, deadline)) if file else None,
                size_bytes=size_bytes,
                expected=(201, 204),
                read_timeout_s=_COMMIT_TIMEOUT_S,
            ),
        ):
            self._session = ""

    async def _pieces(self, file: BinaryIO, deadline: asyncio.Timeout) -> AsyncIterator[bytes]:
        """Yield what is left; `deadline` is for one piece, and after the last one the client's own is in force."""
        loop = asyncio.get_running_loop()
        sent = self._arrived
        file.seek(sent)
        while piece := await asyncio.to_thread(file.read, _READ_BYTES):
            yield piece
            sent += len(piece)
            try:
                self._on_sent(sent)
            except Exception as error:
                self._unheard = error
                raise
            is_last = sent >= self._blob.size
            deadline.reschedule(None if is_last else loop.time() + READ_TIMEOUT_S)


def _location(response: aiohttp.ClientResponse, otherwise: str) -> str:
    """Return the upload's address as an answer gives it, for the next request. RegistryError: there is none."""
    location = response.headers.get("Location", "")
    if not location and not otherwise:
        raise RegistryError(response.status, "", "the registry gave no address to upload to")
    return urljoin(str(response.url), location) if location else otherwise
