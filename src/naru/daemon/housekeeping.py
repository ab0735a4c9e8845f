"""Keeps narud small when it is idle: an hour after a build it should look as it did before.

malloc keeps what threads have freed, in the arenas of threads that are long gone: 47 MB of narud became 300 to 350
after making Debian three times, of which 220 were free; with both measures here it is 70 to 80. At the top of an arena
free memory goes back at once, which malloc_trim does not do; what lies between used blocks is given back afterwards.
Large blocks still come from the arenas: mapped one by one (malloc's default, 128 KiB) the same work took three times
as long in page faults.
"""

from __future__ import annotations

import asyncio
import gc
import logging

from naru.kernel.memory import give_back_free, keep_free_at_most, resident_bytes

log = logging.getLogger(__name__)

_PERIOD_S = 10.0
# What one period may add without it being worth the work; and what still grows is in use.
_WORTH_BYTES = 16 << 20
_FREE_TOP_BYTES = 4 << 20
_MAPPED_FROM_BYTES = 32 << 20  # the most that malloc takes


async def keep_small() -> None:
    """Give memory back whenever it has grown and then stopped growing; runs until cancelled."""
    keep_free_at_most(_FREE_TOP_BYTES, mapped_from_bytes=_MAPPED_FROM_BYTES)
    await asyncio.to_thread(_tidy)  # what imports and recovery needed
    floor = before = resident_bytes()
    while True:
        await asyncio.sleep(_PERIOD_S)
        now = resident_bytes()
        if now > floor + _WORTH_BYTES and now <= before + _WORTH_BYTES:
            await asyncio.to_thread(_tidy)
            floor = now = resident_bytes()
            log.debug("%d MB resident", floor >> 20)
        before = now


def _tidy() -> None:
    gc.collect()
    give_back_free()
