"""One repository at one registry, as an HTTP client sees it: addresses, authentication, retries, resumed downloads.

Lives inside one event loop, for one operation. https always, but for registries on this machine and those named as
insecure, where https without verification and then http are tried, as Docker does. Proxies come from the
environment, trusted authorities from `trust`, so that a host behind a TLS-inspecting proxy works.
OCI distribution-spec, Pull
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from naru.distribution.authorization import Authorizer
from naru.distribution.challenge import Credentials
from naru.distribution.refusal import Passing, RegistryError, refusal_of
from naru.distribution.trust import is_insecure, tls_context
from naru.errors import Unavailable
from naru.oci.reference import DEFAULT_DOMAIN

# The domain `docker.io` is a name in references only; its registry answers here (as in every Docker client).
_DOCKER_IO_HOST = "registry-1.docker.io"
# An unreachable registry must not keep the library's fall-back waiting. A reachable one answers in well under a second.
CONNECT_TIMEOUT_S = 3.0
# A registry that sends nothing for this long in the middle of an answer counts as gone.
READ_TIMEOUT_S = 30.0
TRIES = 5
_FIRST_DELAY_S = 0.4
_MAX_DELAY_S = 10.0
# A registry that limits its clients names up to a minute or two; what asks for more is not worth waiting for.
_MAX_RETRY_AFTER_S = 120.0

Body = Callable[[], AsyncIterator[bytes]]
"""Makes a request's body; called again where the request is sent again."""


class RegistryClient:
    """Requests below `/v2/<repository>/`. An async context manager; use it in the loop that entered it."""

    def __init__(
        self,
        domain: str,
        repository: str,
        *,
        credentials: Credentials | None = None,
        insecure_registries: Collection[str] = (),
        scopes: Collection[str] | None = None,
        wants_identity_token: bool = False,
    ) -> None:
        """`scopes` are what a token must allow; `None`: to pull from `repository`."""
        self.host = _DOCKER_IO_HOST if domain == DEFAULT_DOMAIN else domain
        self.base = f"https://{self.host}"
        self._repository = repository
        self._credentials = credentials or Credentials()
        self._scopes = [f"repository:{repository}:pull"] if scopes is None else list(scopes)
        self._wants_identity_token = wants_identity_token
        self._is_insecure = is_insecure(self.host, insecure_registries)

    async def __aenter__(self) -> RegistryClient:
        self._session = open_session(self.host, insecure=self._is_insecure)
        self.authorizer = Authorizer(
            self._session,
            self.host,
            self._credentials,
            self._scopes,
            is_insecure=self._is_insecure,
            wants_identity_token=self._wants_identity_token,
        )
        try:
            await self._reach()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def document(
        self, path: str, *, accept: Collection[str], limit_bytes: int
    ) -> tuple[bytes, Mapping[str, str]]:
        """Return a small answer and its headers. RegistryError; Unavailable: no answer after some tries."""
        failure: Exception | None = None
        for attempt in range(TRIES):
            await asyncio.sleep(delay_s(attempt, failure))
            try:
                async with self.exchange(
                    "GET", path, headers={"Accept": ", ".join(accept)} if accept else {}, expected=(200, 206)
                ) as response:
                    body = b""
                    while len(body) <= limit_bytes and (piece := await response.content.readany()):
                        body += piece
                    if len(body) > limit_bytes:
                        raise RegistryError(response.status, "", f"the answer is larger than {limit_bytes} bytes")
                    return body, response.headers
            except passing() as error:
                failure = error
        raise Unavailable(self.unreachable(failure)) from failure

    async def stream(self, path: str, size_bytes: int) -> AsyncIterator[bytes]:
        """Yield the `size_bytes` bytes of a blob; where a connection breaks, the next one goes on from there.

        Tries count from zero after each piece that arrived. RegistryError; Unavailable.
        """
        received = 0
        attempt = 0
        failure: Exception | None = None
        while received < size_bytes:
            if attempt >= TRIES:
                raise Unavailable(self.unreachable(failure)) from failure
            await asyncio.sleep(delay_s(attempt, failure))
            attempt += 1
            try:
                headers = {"Range": f"bytes={received}-"} if received else {}
                async with self.exchange("GET", path, headers=headers, expected=(200, 206)) as response:
                    to_skip = 0 if response.status == 206 else received
                    async for piece in response.content.iter_any():
                        if to_skip:  # a server without ranges starts over
                            piece, to_skip = piece[to_skip:], max(0, to_skip - len(piece))
                        if piece:
                            received += len(piece)
                            attempt = 0
                            yield piece
                failure = Unavailable(f"the connection ended after {received} of {size_bytes} bytes")
            except passing() as error:
                failure = error

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        size_bytes: int = 0,
        expected: Collection[int] = (200,),
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and yield its answer, authenticating once when asked to.

        `target` is a path below the repository, or a URL that the registry gave. `body` yields `size_bytes` bytes.
        RegistryError, Unauthorized: another answer than `expected`; one of `passing()`: none, or one that may change.
        """
        url = urljoin(f"{self.base}/v2/{self._repository}/" if self._repository else f"{self.base}/v2/", target)
        # What the registry gave as an upload's address may be on another host, which is not to see our credentials.
        is_ours = urlsplit(url)[:2] == urlsplit(self.base)[:2]
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Length"] = str(size_bytes)
        for is_retry in (False, True):
            used = await self.authorizer.header() if is_ours else ""
            if used:
                sent["Authorization"] = used
            # aiohttp drops Authorization when a redirect (to a blob store) leaves the registry's origin.
            async with self._session.request(
                method,
                URL(url, encoded=True),
                headers=sent,
                data=body() if body is not None else None,
                allow_redirects=body is None,
                timeout=_timeout(read_timeout_s),
            ) as response:
                if response.status == 401 and is_ours and not is_retry:
                    self.authorizer.learn(response)
                    await self.authorizer.instead_of(used)
                    sent.pop("Authorization", None)
                    continue
                if response.status in expected:
                    yield response
                    return
                if response.status == 401 and self.authorizer.lacks_credentials:
                    raise RegistryError(401, "", "no basic auth credentials")
                raise await refusal_of(response)

    def unreachable(self, failure: Exception | None) -> str:
        """Return in Docker's words that the registry did not answer, and why."""
        return f'Get "{self.base}/v2/": {reason_of(failure)}'

    async def _reach(self) -> None:
        """Find the address that answers `/v2/` and learn what it asks for. Not retried: the fall-back is waiting."""
        addresses = [f"https://{self.host}", *([f"http://{self.host}"] if self._is_insecure else [])]
        failure: Exception | None = None
        for base in addresses:
            self.base = base
            try:
                async with self._session.get(f"{base}/v2/", allow_redirects=False) as response:
                    if response.status == 401:
                        self.authorizer.learn(response)
                    elif response.status >= 500:
                        raise Unavailable(f'Get "{base}/v2/": the registry answered {response.status}')
                    return
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                failure = failure or error
        self.base = addresses[0]
        raise Unavailable(self.unreachable(failure)) from failure


def open_session(host: str, *, insecure: bool) -> aiohttp.ClientSession:
    """Return a session for requests to `host[:port]` and where it redirects to; the caller closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls_context(host, insecure=insecure), limit_per_host=8),
        timeout=_timeout(READ_TIMEOUT_S),
        trust_env=True,
        auto_decompress=False,
        headers={"User-Agent": "naru", "Accept-Encoding": "identity"},
    )


def passing() -> tuple[type[Exception], ...]:
    """Return what may go better at the next try. A function, because naming it loads aiohttp's client."""
    return Passing, TimeoutError, aiohttp.ClientError, OSError


def delay_s(attempt: int, failure: Exception | None) -> float:
    """Return how long to wait before try `attempt` (0: the first): ever longer, or what the registry said."""
    if attempt == 0:
        return 0.0
    if isinstance(failure, Passing) and failure.retry_after_s:
        return min(failure.retry_after_s, _MAX_RETRY_AFTER_S)
    return float(min(_FIRST_DELAY_S * 2 ** (attempt - 1), _MAX_DELAY_S) * random.uniform(0.75, 1.25))


def reason_of(failure: Exception | None) -> str:
    """Return in few words why there was no answer."""
    if isinstance(failure, asyncio.TimeoutError):
        return "no answer in time"
    if not isinstance(failure, aiohttp.ClientConnectorError):
        return str(failure) or type(failure).__name__
    error = failure.os_error
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError) or (error.errno or 0) <= 0:  # a failed name lookup has a number of its own kind
        return error.strerror or str(error)
    return os.strerror(error.errno or 0).lower()  # asyncio's words would be others


def _timeout(read_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=None, connect=CONNECT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=read_s
    )
