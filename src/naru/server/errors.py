"""The one table from a kind of error to an HTTP status, and the body Docker gives an error."""

from __future__ import annotations

import errno
import logging
import os

from aiohttp import web

from naru import errors
from naru.api.wire import encode

log = logging.getLogger(__name__)

# The first kind that fits counts.
STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.NotModified, 304),
    (errors.InvalidArgument, 400),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Corrupt, 500),
    (errors.Unsupported, 501),
    (errors.Unavailable, 503),
    (errors.NaruError, 500),
)


def status_of(error: BaseException) -> int:
    """Return the HTTP status of `error`; 500 for what nobody foresaw."""
    if isinstance(error, web.HTTPException):
        return error.status
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def message_of(error: BaseException) -> str:
    """Return what the client is told, hint included; logs an error that is no kind of ours."""
    if isinstance(error, errors.NaruError):
        return f"{error} ({error.hint})" if error.hint else str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        said = os.strerror(error.errno).lower()
        return f"{error.filename}: {said}" if error.filename else said
    if not isinstance(error, web.HTTPException):
        log.error("unexpected error", exc_info=error)
    return str(error) or type(error).__name__


def error_response(error: BaseException) -> web.Response:
    """Return `error` as a response: `{"message": …}`, or nothing at all for 304."""
    status = status_of(error)
    if status == 304:
        return web.Response(status=304)
    body = encode({"message": message_of(error)}) + b"\n"
    return web.Response(status=status, body=body, content_type="application/json")
