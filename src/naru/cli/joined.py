"""Being attached to a container: stream, exit code, resizing and signals, for `run`, `start -a` and `attach`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

from naru.cli import terminal
from naru.cli.command import Call, complain
from naru.cli.session import Session, Signals
from naru.client.http import Broken
from naru.errors import InvalidArgument, NaruError, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from naru.client.connection import Client
    from naru.client.http import Response


def detach_keys(call: Call) -> str:
    """Return the keys that detach: of the flag, else of the user's settings. InvalidArgument: not keys."""
    keys = call.flags.text("detach-keys") or call.config.text("detachKeys")
    if keys:
        terminal.DetachKeys(keys)
    return keys


def check_terminal(*, has_terminal: bool, takes_input: bool) -> None:
    """Raise InvalidArgument if a terminal session is to be typed into from what is not one."""
    import os

    if has_terminal and takes_input and not os.isatty(0):
        raise InvalidArgument("the input device is not a TTY")


class Joined:
    """One container and our terminal, joined. Use: wait, attach, start it, then `run`."""

    def __init__(self, client: Client, container: str, *, has_terminal: bool, keys: str) -> None:
        self._client = client
        self._path = f"/containers/{container}"
        self._has_terminal = has_terminal
        self._keys = keys

    def run(
        self,
        *,
        streams: set[str],
        condition: str,
        is_proxy: bool,
        start: Callable[[], None] | None,
        logs: bool = False,
    ) -> int:
        """Attach `streams`, `start`, carry the streams until it exits; return its exit code (0 if detached).

        `condition`: which exit is meant, as in ContainerWait. Errors of `start` propagate with all undone but its own.
        """
        takes_input = "stdin" in streams
        query = dict.fromkeys(streams, True) | {"stream": True, "logs": logs, "detachKeys": self._keys}
        with Signals(is_proxy=is_proxy, is_resize=self._has_terminal) as signals:
            stream, held = self._client.hijack(f"{self._path}/attach", query)
            try:
                exited = self._client.open("POST", f"{self._path}/wait", {"condition": condition})
                try:
                    if start is not None:
                        start()
                except NaruError:
                    if condition == "removed":
                        _read(exited)
                    raise
                if self._has_terminal:
                    self._resize()
                session = Session(
                    stream,
                    held,
                    signals,
                    is_terminal=self._has_terminal,
                    takes_input=takes_input,
                    detach_keys=self._keys,
                    on_resize=self._resize,
                    on_signal=self._kill if is_proxy else None,
                )
                if not session.run(exited):
                    return 0
            finally:
                stream.close()
        return self._exit_code(exited)

    def _exit_code(self, exited: Response) -> int:
        """Return the exit code; if the daemon went away meanwhile, ask the next one."""
        try:
            return _read(exited)
        except Broken:
            pass
        try:
            return _read(self._client.open("POST", f"{self._path}/wait", {"condition": "not-running"}))
        except (NotFound, Unavailable) as error:
            complain(f"Error waiting for container: {error}")
            return 125

    def _resize(self) -> None:
        if size := terminal.size():
            try:
                self._client.post(f"{self._path}/resize", {"h": size[0], "w": size[1]})
            except NaruError:
                pass  # it has exited: then its size does not matter

    def _kill(self, number: int) -> None:
        name = signal.Signals(number).name.removeprefix("SIG") if number in list(signal.Signals) else str(number)
        try:
            self._client.post(f"{self._path}/kill", {"signal": name})
        except NaruError:
            pass  # it has exited, which is what signals are mostly for


def _read(exited: Response) -> int:
    with exited:
        answer = json.loads(exited.read() or b"null")
    if not isinstance(answer, dict):
        raise Broken("the daemon ended the wait without an answer")
    if (error := answer.get("Error")) and error.get("Message"):
        complain(f"Error waiting for container: {error['Message']}")
        return 125
    return int(answer["StatusCode"])
