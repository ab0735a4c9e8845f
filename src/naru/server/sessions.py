"""Connections on their way from HTTP to a process. See `hijack`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Sessions:
    """The sessions being handed over just now, by the ID in their request's path."""

    def __init__(self) -> None:
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}

    def start(self, key: str, work: Coroutine[None, None, None]) -> None:
        """Run `work` beside its handler, which ends, or is cancelled, with the HTTP connection."""
        task = asyncio.get_running_loop().create_task(work)
        tasks = self._tasks.setdefault(key, set())
        tasks.add(task)
        task.add_done_callback(lambda _done: self._forget(key, task))

    def _forget(self, key: str, task: asyncio.Task[None]) -> None:
        tasks = self._tasks[key]
        tasks.discard(task)
        if not tasks:
            del self._tasks[key]

    async def settled(self, key: str) -> None:
        """Wait until the sessions of `key` are with the engine.

        `docker run` starts its container when it has read the head of its attach, which is before the engine has the
        connection; the first line of output must not get lost in between.
        """
        if tasks := self._tasks.get(key):
            await asyncio.wait(set(tasks))

    def close(self) -> None:
        """Cancel what is under way."""
        for task in [task for tasks in self._tasks.values() for task in tasks]:
            task.cancel()
