"""Fetch files of a package archive: kept-alive connections, the host's proxies, bounded patience.

Plain HTTP is what a Debian mirror normally speaks; what makes the bytes trustworthy is the signed index and the
hashes in it, never the connection. The host's CA bundle (`SSL_CERT_FILE`, as OpenSSL reads it) serves https.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import proxy_bypass

from naru.errors import Corrupt, NotFound, Unavailable
from naru.library.apt_config import without_credentials

# Observed against mirrors behind a CDN: a kept-alive connection is closed between two requests now and then, and
# a cold object may answer 503 once. Three tries got through every time; more would only hide an outage.
TRIES = 3
TIMEOUT_S = 30.0
THREADS = 8
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that must turn out to have this size and SHA-256."""

    uri: str
    size_bytes: int
    sha256: str


class Fetcher:
    """GETs by many threads; each keeps one connection per server open. Close it when done."""

    def __init__(self, *, proxies: Mapping[str, str], credentials: Mapping[str, tuple[str, str]]) -> None:
        self._proxies = proxies
        self._credentials = credentials
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def get(self, uri: str, *, limit_bytes: int = 256 << 20) -> bytes:
        """Return the content of `uri`. NotFound: the server says 404. Unavailable: it cannot be had now."""
        parts = urlsplit(uri)
        if parts.scheme in ("file", "copy"):
            return _read_file(unquote(parts.path), uri)
        for _redirect in range(_MAX_REDIRECTS):
            status, location, content = self._request(uri, limit_bytes)
            if status == 200:
                return content
            if status in _REDIRECTS and location:
                uri = urljoin(uri, location)
            elif status in (404, 410):
                raise NotFound(f"{without_credentials(uri)}: not there")
            else:
                raise Unavailable(f"{without_credentials(uri)}: the server answered {status}")
        raise Unavailable(f"{without_credentials(uri)}: redirected too often")

    def get_verified(self, wanted: Wanted) -> bytes:
        """Return the content of `wanted`. Corrupt: it has another size or hash."""
        content = self.get(wanted.uri, limit_bytes=wanted.size_bytes)
        if len(content) != wanted.size_bytes or hashlib.sha256(content).hexdigest() != wanted.sha256:
            raise Corrupt(f"{without_credentials(wanted.uri)}: size or SHA-256 is not the one in the signed index")
        return content

    def each(self, items: Iterable[tuple[T, Wanted]], then: Callable[[T, bytes], None]) -> Iterator[T]:
        """Fetch all in parallel, call `then` in the fetching thread, and yield each item when it is through.

        The first error stops what has not begun and is raised.
        """

        def one(item: T, wanted: Wanted) -> None:
            then(item, self.get_verified(wanted))

        with ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as pool:
            running = {pool.submit(one, item, wanted): item for item, wanted in items}
            try:
                for done in as_completed(running):
                    done.result()
                    yield running[done]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def close(self) -> None:
        """Close every connection, whichever thread opened it."""
        with self._lock:
            opened, self._opened = self._opened, []
        for connection in opened:
            connection.close()

    def _request(self, uri: str, limit_bytes: int) -> tuple[int, str, bytes]:
        failure: Exception | None = None
        for _try in range(TRIES):
            connection, target, headers = self._connection(uri)
            try:
                connection.request("GET", target, headers=headers)
                response = connection.getresponse()
                content = response.read(limit_bytes + 1)
                if not response.isclosed():
                    raise Corrupt(f"{without_credentials(uri)}: longer than {limit_bytes} bytes")
                if response.status < 500 and response.status != 429:
                    return response.status, response.headers.get("Location", ""), content
                failure = Unavailable(f"the server answered {response.status}")
            except (OSError, http.client.HTTPException) as error:
                failure = error
            except Corrupt:
                self._drop(uri)
                raise
            self._drop(uri)
        raise Unavailable(f"{without_credentials(uri)}: {failure}") from failure

    def _proxy(self, uri: str) -> str:
        parts = urlsplit(uri)
        proxy = self._proxies.get(parts.scheme, "")
        return "" if not proxy or proxy_bypass(parts.hostname or "") else proxy

    def _connection(self, uri: str) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """Return this thread's connection for `uri`, the request target, and the headers it needs."""
        parts = urlsplit(uri)
        proxy = self._proxy(uri)
        headers = {"User-Agent": "naru", "Accept-Encoding": "identity"}
        if authorization := self._authorization(uri):
            headers["Authorization"] = authorization
        target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        if proxy and parts.scheme == "http":
            target = without_credentials(uri)
            if credentials := _basic(proxy):
                headers["Proxy-Authorization"] = credentials
        held: dict[tuple[str, str, str], http.client.HTTPConnection] = self._local.__dict__.setdefault("held", {})
        key = (parts.scheme, parts.netloc, proxy)
        if key not in held:
            held[key] = _open(uri, proxy)
            with self._lock:
                self._opened.append(held[key])
        return held[key], target, headers

    def _drop(self, uri: str) -> None:
        parts = urlsplit(uri)
        held = self._local.__dict__.get("held", {})
        if connection := held.pop((parts.scheme, parts.netloc, self._proxy(uri)), None):
            connection.close()

    def _authorization(self, uri: str) -> str:
        if basic := _basic(uri):
            return basic
        parts = urlsplit(uri)
        host = parts.netloc.rpartition("@")[2]
        pair = self._credentials.get(host) or self._credentials.get(parts.hostname or "")
        # apt_auth.conf(5): a password that is not tied to http by its entry is sent over https only.
        if pair is None or parts.scheme != "https":
            return ""
        return "Basic " + base64.b64encode(":".join(pair).encode()).decode()


def _open(uri: str, proxy: str) -> http.client.HTTPConnection:
    parts = urlsplit(uri)
    host, port = parts.hostname or "", parts.port
    if not proxy:
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme == "http":
        return http.client.HTTPConnection(via.hostname or "", via.port or 80, timeout=TIMEOUT_S)
    tunnel = http.client.HTTPSConnection(
        via.hostname or "", via.port or 80, timeout=TIMEOUT_S, context=ssl.create_default_context()
    )
    credentials = _basic(proxy)
    tunnel.set_tunnel(host, port or 443, {"Proxy-Authorization": credentials} if credentials else {})
    return tunnel


def _basic(uri: str) -> str:
    parts = urlsplit(uri if "://" in uri else f"http://{uri}")
    if not parts.username:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _read_file(path: str, uri: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{uri}: not there") from None
