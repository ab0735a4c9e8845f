"""One repository at one registry, as an HTTP client sees it: addresses, authentication, retries, resumed downloads.

Lives inside one event loop, for one operation. https always, but for registries on this machine and those named as
insecure, where https without verification and then http are tried, as Docker does. Proxies come from the
environment, trusted authorities from the host's bundle (`SSL_CERT_FILE`), so that a host behind a TLS-inspecting
proxy works. OCI distribution-spec, Pull; distribution's token authentication specification
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec

from naru.distribution.challenge import Challenge, Credentials, parse_challenges
from naru.errors import NaruError, Unauthorized, Unavailable
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
_MAX_ERROR_BYTES = 64 << 10
_MAX_TOKEN_BYTES = 1 << 20


class _Token(msgspec.Struct):
    """A token server's answer; older ones say `token`, OAuth2 ones `access_token`."""

    token: str = ""
    access_token: str = ""


class _ErrorItem(msgspec.Struct):
    code: str = ""
    message: str = ""


class _ErrorBody(msgspec.Struct):
    errors: list[_ErrorItem] = []


class RegistryError(NaruError):
    """A registry's refusal: the status and, where it said so, distribution-spec's error code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code.lower().replace('_', ' ')}: {message}" if code else message)
        self.status = status
        self.code = code


class RegistryClient:
    """GETs below `/v2/<repository>/`. An async context manager; use it in the loop that entered it."""

    def __init__(
        self,
        domain: str,
        repository: str,
        *,
        credentials: Credentials | None = None,
        insecure_registries: Collection[str] = (),
    ) -> None:
        self.host = _DOCKER_IO_HOST if domain == DEFAULT_DOMAIN else domain
        self._repository = repository
        self._credentials = credentials or Credentials()
        self._is_insecure = is_insecure(self.host, insecure_registries)
        self._base = f"https://{self.host}"
        self._authorization = ""
        self._challenges: list[Challenge] = []
        self._authorizing = asyncio.Lock()

    async def __aenter__(self) -> RegistryClient:
        context = ssl.create_default_context()
        if self._is_insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit_per_host=8),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=CONNECT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
            ),
            trust_env=True,
            auto_decompress=False,
            headers={"User-Agent": "naru", "Accept-Encoding": "identity"},
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
            await self._back_off(attempt, failure)
            try:
                async with self._get(path, {"Accept": ", ".join(accept)} if accept else {}) as response:
                    body = b""
                    while len(body) <= limit_bytes and (piece := await response.content.readany()):
                        body += piece
                    if len(body) > limit_bytes:
                        raise RegistryError(response.status, "", f"the answer is larger than {limit_bytes} bytes")
                    return body, response.headers
            except _Passing as error:
                failure = error
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                failure = error
        raise Unavailable(self._unreachable(failure)) from failure

    async def stream(self, path: str, size_bytes: int) -> AsyncIterator[bytes]:
        """Yield the `size_bytes` bytes of a blob; where a connection breaks, the next one goes on from there.

        Tries count from zero after each piece that arrived. RegistryError; Unavailable.
        """
        received = 0
        attempt = 0
        failure: Exception | None = None
        while received < size_bytes:
            if attempt >= TRIES:
                raise Unavailable(self._unreachable(failure)) from failure
            await self._back_off(attempt, failure)
            attempt += 1
            try:
                headers = {"Range": f"bytes={received}-"} if received else {}
                async with self._get(path, headers) as response:
                    to_skip = 0 if response.status == 206 else received
                    async for piece in response.content.iter_any():
                        if to_skip:  # a server without ranges starts over
                            piece, to_skip = piece[to_skip:], max(0, to_skip - len(piece))
                        if piece:
                            received += len(piece)
                            attempt = 0
                            yield piece
                failure = Unavailable(f"the connection ended after {received} of {size_bytes} bytes")
            except _Passing as error:
                failure = error
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                failure = error

    async def _reach(self) -> None:
        """Find the address that answers `/v2/` and learn what it asks for. Not retried: the fall-back is waiting."""
        addresses = [f"https://{self.host}", *([f"http://{self.host}"] if self._is_insecure else [])]
        failure: Exception | None = None
        for base in addresses:
            self._base = base
            try:
                async with self._session.get(f"{base}/v2/", allow_redirects=False) as response:
                    if response.status == 401:
                        self._learn(response)
                    elif response.status >= 500:
                        raise Unavailable(f'Get "{base}/v2/": the registry answered {response.status}')
                    return
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                failure = failure or error
        self._base = addresses[0]
        raise Unavailable(self._unreachable(failure)) from failure

    def _unreachable(self, failure: Exception | None) -> str:
        if isinstance(failure, asyncio.TimeoutError):
            reason = "no answer in time"
        elif isinstance(failure, aiohttp.ClientConnectorError):
            reason = failure.os_error.strerror or str(failure.os_error)
        else:
            reason = str(failure) or type(failure).__name__
        return f'Get "{self._base}/v2/": {reason}'

    async def _back_off(self, attempt: int, failure: Exception | None) -> None:
        if attempt == 0:
            return
        delay_s = min(_FIRST_DELAY_S * 2 ** (attempt - 1), _MAX_DELAY_S) * random.uniform(0.75, 1.25)
        if isinstance(failure, _Passing) and failure.retry_after_s:
            delay_s = min(failure.retry_after_s, _MAX_DELAY_S)
        await asyncio.sleep(delay_s)

    @asynccontextmanager
    async def _get(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open `path`, authenticating once when asked to; only an answer of 200 or 206 is yielded."""
        url = f"{self._base}/v2/{self._repository}/{path}"
        for is_retry in (False, True):
            used = self._authorization
            if not used and self._challenges:
                used = await self._authorize(used)
            sent = {**headers, "Authorization": used} if used else headers
            # aiohttp drops Authorization when a redirect (to a blob store) leaves the registry's origin.
            async with self._session.get(url, headers=sent) as response:
                if response.status == 401 and not is_retry:
                    self._learn(response)
                    await self._authorize(used)
                    continue
                if response.status == 429 or response.status >= 500:
                    raise _Passing(response.status, response.headers.get("Retry-After", ""))
                if response.status not in (200, 206):
                    raise await _refusal(response)
                yield response
                return

    def _learn(self, response: aiohttp.ClientResponse) -> None:
        self._challenges = [
            challenge
            for header in response.headers.getall("WWW-Authenticate", [])
            for challenge in parse_challenges(header)
        ]

    async def _authorize(self, rejected: str) -> str:
        """Return an Authorization header to use instead of `rejected`; one request at a time asks for it."""
        async with self._authorizing:
            if self._authorization == rejected:
                self._authorization = await self._answer(rejected)
            return self._authorization

    async def _answer(self, rejected: str) -> str:
        for challenge in self._challenges:
            if challenge.scheme == "bearer":
                return await self._token(challenge)
            if challenge.scheme == "basic" and self._credentials.basic not in ("", rejected):
                return self._credentials.basic
        return ""

    async def _token(self, challenge: Challenge) -> str:
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        realm = urljoin(f"{self._base}/v2/", challenge.parameters.get("realm", ""))
        fields = {
            "service": challenge.parameters.get("service", ""),
            "scope": f"repository:{self._repository}:pull",
        }
        has_secret = bool(self._credentials.basic or self._credentials.identity_token)
        if has_secret and urlsplit(realm).scheme != "https" and not self._is_insecure:
            raise Unauthorized(f"{self.host}: its token server does not use https: no credentials sent")
        if self._credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self._credentials.identity_token,
                "client_id": "naru",
            }
            request = self._session.post(realm, data={**fields, **form})
        else:
            basic = self._credentials.basic
            request = self._session.get(realm, params=fields, headers={"Authorization": basic} if basic else {})
        async with request as response:
            if response.status in (401, 403):
                raise Unauthorized(f"{self.host}: unauthorized: incorrect username or password")
            if response.status != 200:
                raise _Passing(response.status, response.headers.get("Retry-After", ""))
            body = await response.content.read(_MAX_TOKEN_BYTES)
        try:
            token = msgspec.json.decode(body, type=_Token)
        except msgspec.MsgspecError:
            raise Unavailable(f"{self.host}: its token server gave no token") from None
        return f"Bearer {token.token or token.access_token}"


class _Passing(Exception):
    """An answer that may be another one later: 429 or 5xx."""

    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(f"the registry answered {status}")
        self.retry_after_s = float(retry_after) if retry_after.isdecimal() else 0.0


async def _refusal(response: aiohttp.ClientResponse) -> RegistryError:
    body = await response.content.read(_MAX_ERROR_BYTES)
    try:
        errors = msgspec.json.decode(body, type=_ErrorBody).errors
    except msgspec.MsgspecError:
        errors = []
    if errors:
        return RegistryError(response.status, errors[0].code, errors[0].message)
    return RegistryError(response.status, "", f"the registry answered {response.status}")


def is_insecure(host: str, named: Collection[str]) -> bool:
    """Whether http will do for `host[:port]`: this machine's own, or in `named` by name, address or network."""
    name = urlsplit(f"//{host}").hostname or ""
    if host in named or name in named or name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in _networks(named))


def _networks(named: Collection[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for text in named:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            continue
    return found
