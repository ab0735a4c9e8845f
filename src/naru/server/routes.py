"""Method and path to handler: Docker's paths have slashes inside names, which is why this table is ours.

`{id}` takes one path segment, `{name:path}` any number (`/images/localhost:5000/web/json`). The first segment picks a
short list, tried in order, so write fixed paths before those with variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from naru.server.call import Handler

_VARIABLE = re.compile(r"\{(\w+)(:path)?\}")


@dataclass(frozen=True, slots=True)
class Route:
    """`verb` names the engine's method that the handler cannot do without; "" if it needs none."""

    method: str
    path: str
    handler: Handler
    verb: str = ""


class Routes:
    """All routes, looked up by method and path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_start: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            start = (route.method, route.path.split("/", 2)[1])
            self._by_start.setdefault(start, []).append((_pattern(route.path), route))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route and its variables, or None. `path` is decoded and without version."""
        parts = path.split("/", 2)
        for pattern, route in self._by_start.get((method, parts[1] if len(parts) > 1 else ""), ()):
            match = pattern.fullmatch(path)
            if match is not None:
                return route, match.groupdict()
        return None


def _pattern(path: str) -> re.Pattern[str]:
    parts, end = [], 0
    for variable in _VARIABLE.finditer(path):
        parts += [re.escape(path[end : variable.start()])]
        parts += [f"(?P<{variable[1]}>{'.+' if variable[2] else '[^/]+'})"]
        end = variable.end()
    return re.compile("".join([*parts, re.escape(path[end:])]) + "/?", re.DOTALL)
