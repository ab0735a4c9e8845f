"""Finding and executing the program, with the words and exit codes that Docker's users know: 127 and 126."""

from __future__ import annotations

import errno
import os
import stat

from naru.runtime.step import Refused, reason

NOT_FOUND = 127
CANNOT_RUN = 126


def find(name: str, search_path: str) -> str:
    """Return the path of program `name` for the calling user, in `search_path` if it has no slash.

    Refused: nothing there (127), or a directory or nothing this user may execute (126).
    """
    if "/" in name:
        problem = _problem(name)
        if problem is None:
            return name
        stat_failed = problem in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
        words = os.strerror(problem).lower()
        raise Refused(
            f'exec: "{name}": stat {name}: {words}' if stat_failed else f'exec: "{name}": {words}', _code(problem)
        )
    for directory in search_path.split(":"):
        path = f"{directory or '.'}/{name}"
        if _problem(path) is None:
            return path
    raise Refused(f'exec: "{name}": executable file not found in $PATH', NOT_FOUND)


def execute(path: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Become the program; returns only by raising Refused with Docker's words."""
    try:
        os.execve(path, arguments, environment)
    except OSError as error:
        raise Refused(
            f"exec {path}: {reason(OSError(error.errno, os.strerror(error.errno or 0)))}", _code(error.errno or 0)
        )


def _problem(path: str) -> int | None:
    """The errno that says why `path` cannot be executed by the effective user, or None."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.errno or errno.ENOENT
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    if not os.access(path, os.X_OK, effective_ids=True):
        return errno.EACCES
    return None


def _code(number: int) -> int:
    return NOT_FOUND if number in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG) else CANNOT_RUN
