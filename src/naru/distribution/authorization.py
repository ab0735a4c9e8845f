"""The Authorization header for one registry: learnt from its challenges, fetched once for all requests that need it.

Lives inside one event loop, for one operation. distribution's token authentication specification, and the OAuth2 one
where an identity token (a refresh token) stands for the password.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec

from naru.distribution.challenge import Challenge, Credentials, parse_challenges
from naru.distribution.refusal import refusal_of
from naru.errors import Unauthorized, Unavailable

_MAX_TOKEN_BYTES = 1 << 20
_CLIENT_ID = "naru"


class _Token(msgspec.Struct):
    """A token server's answer; older ones say `token`, OAuth2 ones `access_token`."""

    token: str = ""
    access_token: str = ""
    refresh_token: str = ""


class Authorizer:
    """Answers a registry's challenges with the user's credentials, for `scopes` such as `repository:a/b:pull`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        host: str,
        credentials: Credentials,
        scopes: Sequence[str],
        *,
        is_insecure: bool,
        wants_identity_token: bool = False,
    ) -> None:
        self._session = session
        self._host = host
        self._credentials = credentials
        self._scopes = list(scopes)
        self._is_insecure = is_insecure
        self._wants_identity_token = wants_identity_token
        self._challenges: list[Challenge] = []
        self._learnt_at = ""
        self._header = ""
        self._asking = asyncio.Lock()
        self.identity_token = ""
        """What the token server gave to be used in place of the password, where it was asked to."""

    @property
    def lacks_credentials(self) -> bool:
        """Whether the registry wants a user's name and password, and there are none."""
        return not self._credentials.basic and any(challenge.scheme == "basic" for challenge in self._challenges)

    def learn(self, response: aiohttp.ClientResponse) -> None:
        """Take the challenges of a 401."""
        self._learnt_at = str(response.url)
        self._challenges = [
            challenge
            for header in response.headers.getall("WWW-Authenticate", [])
            for challenge in parse_challenges(header)
        ]

    async def header(self) -> str:
        """Return what to send; nothing where nothing was asked for."""
        if not self._header and self._challenges:
            return await self.instead_of(self._header)
        return self._header

    async def instead_of(self, rejected: str) -> str:
        """Return what to send in place of `rejected`; one request at a time asks for it."""
        async with self._asking:
            if self._header == rejected:
                self._header = await self._answer(rejected)
            return self._header

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
        realm = urljoin(self._learnt_at, challenge.parameters.get("realm", ""))
        has_secret = bool(self._credentials.basic or self._credentials.identity_token)
        if has_secret and urlsplit(realm).scheme != "https" and not self._is_insecure:
            raise Unauthorized(f"{self._host}: its token server does not use https: no credentials sent")
        async with self._request(realm, challenge.parameters.get("service", "")) as response:
            if response.status in (401, 403):
                raise Unauthorized("unauthorized: incorrect username or password")
            if response.status != 200:
                raise await refusal_of(response)
            body = await response.content.read(_MAX_TOKEN_BYTES)
        try:
            token = msgspec.json.decode(body, type=_Token)
        except msgspec.MsgspecError:
            raise Unavailable(f"{self._host}: its token server gave no token") from None
        self.identity_token = token.refresh_token or self.identity_token
        return f"Bearer {token.token or token.access_token}"

    def _request(self, realm: str, service: str) -> aiohttp.client._RequestContextManager:
        if self._credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self._credentials.identity_token,
                "client_id": _CLIENT_ID,
                "service": service,
                "scope": " ".join(self._scopes),
            }
            return self._session.post(realm, data=form)
        fields = [("service", service), *(("scope", scope) for scope in self._scopes)]
        if self._wants_identity_token:
            fields += [("offline_token", "true"), ("client_id", _CLIENT_ID)]
        basic = self._credentials.basic
        if basic:
            fields.append(("account", self._credentials.username))
        return self._session.get(realm, params=fields, headers={"Authorization": basic} if basic else {})
