"""Runs one operation's coroutine for a caller that blocks: a private event loop that lives as long as the call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from naru.errors import Unavailable

T = TypeVar("T")

_LOOK_AT_CANCELLED_S = 0.2


def run(work: Coroutine[Any, Any, T], cancelled: threading.Event | None = None) -> T:
    """Run `work` and return its result; unlike asyncio.run, do not wait for a name lookup that is stuck.

    Unavailable: `cancelled` was set meanwhile.
    """

    async def watched() -> T:
        running = asyncio.ensure_future(work)
        timeout_s = None if cancelled is None else _LOOK_AT_CANCELLED_S
        while not (await asyncio.wait([running], timeout=timeout_s))[0]:
            if cancelled is not None and cancelled.is_set():
                running.cancel()
        return running.result()

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(watched())
    except asyncio.CancelledError:
        raise Unavailable("the transfer was cancelled") from None
    finally:
        loop.close()
