"""Who waits for a container to stop, and the futures that tell them. Engine API, ContainerWait."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from naru.api.container import ContainerWaitError, ContainerWaitResponse
from naru.errors import InvalidArgument

CONDITIONS = ("not-running", "next-exit", "removed")


class Waiters:
    """Futures by container. Adding one is done under the container's lock, so that no exit falls in between."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[str, Future[ContainerWaitResponse]]]] = {}

    def add(self, container_id: str, condition: str) -> Future[ContainerWaitResponse]:
        """Return a future of the exit that meets `condition`. InvalidArgument: no such condition."""
        if condition not in CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition}"')
        future: Future[ContainerWaitResponse] = Future()
        with self._lock:
            self._waiting.setdefault(container_id, []).append((condition, future))
        future.add_done_callback(lambda done: self._forget(container_id, done) if done.cancelled() else None)
        return future

    def _forget(self, container_id: str, future: Future[ContainerWaitResponse]) -> None:
        """Drop one who waits no more; the container may run for years."""
        with self._lock:
            kept = [entry for entry in self._waiting.pop(container_id, []) if entry[1] is not future]
            if kept:
                self._waiting[container_id] = kept

    def exited(self, container_id: str, exit_code: int, error: str = "") -> None:
        """Resolve everyone who waits for an exit."""
        self._resolve(container_id, ("not-running", "next-exit"), exit_code, error)

    def removed(self, container_id: str, exit_code: int) -> None:
        """Resolve everyone: the container is gone."""
        self._resolve(container_id, CONDITIONS, exit_code, "")

    def _resolve(self, container_id: str, conditions: tuple[str, ...], exit_code: int, error: str) -> None:
        with self._lock:
            waiting = self._waiting.pop(container_id, [])
            kept = [entry for entry in waiting if entry[0] not in conditions]
            if kept:
                self._waiting[container_id] = kept
        response = ContainerWaitResponse(
            status_code=exit_code, error=ContainerWaitError(message=error) if error else None
        )
        for condition, future in waiting:
            if condition in conditions and future.set_running_or_notify_cancel():
                future.set_result(response)
