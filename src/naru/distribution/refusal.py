"""What a registry says instead of what was asked for: for good, or for now. OCI distribution-spec, Error Codes."""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING

import msgspec

from naru.errors import Forbidden, NaruError, NotFound, Unauthorized

if TYPE_CHECKING:
    from aiohttp import ClientResponse

_MAX_ERROR_BYTES = 64 << 10


class _Item(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Body(msgspec.Struct):
    errors: list[_Item] = []


class RegistryError(NaruError):
    """A registry's refusal: the status and, where it said so, distribution-spec's error code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code.lower().replace('_', ' ')}: {message}" if code else message)
        self.status = status
        self.code = code


class Passing(Exception):
    """An answer that may be another one later: 429 or 5xx; `retry_after_s` is 0 where the registry named no time."""

    def __init__(self, refusal: RegistryError, retry_after: str) -> None:
        super().__init__(str(refusal))
        self.retry_after_s = _seconds(retry_after)


async def refusal_of(response: ClientResponse) -> RegistryError | Passing:
    """Return an answer that is not what was asked for as an error to raise."""
    body = await response.content.read(_MAX_ERROR_BYTES)
    try:
        errors = msgspec.json.decode(body, type=_Body).errors
    except msgspec.MsgspecError:
        errors = []
    error = RegistryError(response.status, "", f"the registry answered {response.status}")
    if errors:
        error = RegistryError(response.status, errors[0].code, errors[0].message)
    if response.status == 429 or response.status >= 500:
        return Passing(error, response.headers.get("Retry-After", ""))
    return error


def kind_of(error: RegistryError) -> NaruError:
    """Return a refusal as a kind; its words, the registry's, are those that Docker shows."""
    if error.status == 401:
        return Unauthorized(str(error))
    if error.status == 403 or error.code == "DENIED":
        return Forbidden(str(error))
    return NotFound(str(error)) if error.status == 404 else NaruError(str(error))


def _seconds(retry_after: str) -> float:
    """Return the seconds in a Retry-After header, which are given as such or as a date. RFC 9110, 10.2.3"""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0
