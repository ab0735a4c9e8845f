"""Search a registry by a term: the search of Docker's first registry protocol, `GET /v1/search?q=&n=`, which Docker Hub
and some others still answer, and the only one that Docker's clients know. Engine API, ImageSearch
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import quote

import aiohttp
import msgspec

from naru.api.system import AuthConfig
from naru.distribution.challenge import Credentials
from naru.distribution.client import open_session, reason_of
from naru.distribution.loop import run
from naru.distribution.trust import is_insecure
from naru.errors import Corrupt, Unauthorized, Unavailable, Unsupported
from naru.oci.reference import DEFAULT_DOMAIN

_DOCKER_IO_HOST = "index.docker.io"
_ANSWER_LIMIT_BYTES = 4 << 20


class Match(msgspec.Struct):
    """One repository found."""

    name: str
    description: str | None = None
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Answer(msgspec.Struct):
    results: list[Match] | None = None


def search(
    domain: str,
    term: str,
    *,
    limit: int,
    auth: AuthConfig | None = None,
    insecure_registries: Collection[str] = (),
) -> list[Match]:
    """Return at most `limit` repositories of the registry that it finds by `term`, in its order.

    Unavailable: no answer. Unauthorized. Unsupported: this registry has no search.
    """
    host = _DOCKER_IO_HOST if domain == DEFAULT_DOMAIN else domain
    return run(_search(host, term, limit, Credentials.of(auth), is_insecure(host, insecure_registries)))


async def _search(host: str, term: str, limit: int, credentials: Credentials, insecure: bool) -> list[Match]:
    addresses = [f"https://{host}", *([f"http://{host}"] if insecure else [])]
    headers = {"Authorization": credentials.basic} if credentials.basic else {}
    failure: Exception | None = None
    async with open_session(host, insecure=insecure) as session:
        for base in addresses:
            try:
                async with session.get(
                    f"{base}/v1/search?q={quote(term, safe='')}&n={limit}", headers=headers
                ) as response:
                    return (await _read(response, host))[:limit]
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                failure = failure or error
    raise Unavailable(f'Get "{addresses[0]}/v1/search": {reason_of(failure)}') from failure


async def _read(response: aiohttp.ClientResponse, host: str) -> list[Match]:
    if response.status in (401, 403):
        raise Unauthorized(f"search at {host}: the registry answered {response.status}")
    if response.status == 404:
        raise Unsupported(f"search at {host}: this registry has no search")
    if response.status != 200:
        raise Unavailable(f"search at {host}: the registry answered {response.status}")
    body = await response.content.read(_ANSWER_LIMIT_BYTES)
    while len(body) < _ANSWER_LIMIT_BYTES and (piece := await response.content.readany()):
        body += piece
    try:
        return msgspec.json.decode(body, type=_Answer).results or []
    except msgspec.MsgspecError as error:
        raise Corrupt(f"search at {host}: {error}") from error
