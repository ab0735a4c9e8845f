"""The kinds of error a caller can act on; `server` and `cli` map a kind to a status or exit code, once.

Messages are lower case without a full stop, subject then reason, outer to inner; texts that Docker clients
match (`No such image: web:latest`) are copied exactly. Advice for people goes in `hint`.
"""

from __future__ import annotations


class NaruError(Exception):
    """Base of every kind. `str(error)` is the one-line message; `hint` is optional advice."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidArgument(NaruError):
    """The request itself is wrong (HTTP 400)."""


class Unauthorized(NaruError):
    """Credentials are missing or wrong (HTTP 401)."""


class Forbidden(NaruError):
    """Known, but not allowed (HTTP 403)."""


class NotFound(NaruError):
    """The named thing does not exist (HTTP 404)."""


class Conflict(NaruError):
    """The thing's state does not allow it (HTTP 409)."""


class NotModified(NaruError):
    """Already so, nothing done (HTTP 304)."""


class Unsupported(NaruError):
    """This host, kernel or engine cannot do it (HTTP 501)."""


class Unavailable(NaruError):
    """Not reachable or not ready now; trying later may work (HTTP 503)."""


class Corrupt(NaruError):
    """A digest, size or record does not match its content (HTTP 500)."""


class CannotStart(InvalidArgument):
    """A container's process could not be started; `exit_code` is what a shell would say (126, 127, else 128)."""

    def __init__(self, message: str, *, exit_code: int = 128, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
