"""What a log server is to be told of a container's output: which driver, its options, whose output it is."""

from __future__ import annotations

from msgspec import Struct

# Docker's names; engine/log_config.py knows the other drivers, which only keep files.
DRIVERS = ("fluentd", "journald", "syslog")

# What the courier says at the end if it does not just end itself: what is still to be delivered takes time, and is held
# open, so that the log may be removed.
HELD = b"\0held"


class Delivery(Struct, frozen=True, kw_only=True):
    """How `path`, the container's log, is carried on; `options` are Docker's, checked already.

    `attributes` are the labels and variables asked for by `labels`, `env` and their `-regex` forms. With `is_blocking`
    the container waits where undelivered output would be removed.
    """

    driver: str
    path: str
    options: dict[str, str]
    container_id: str
    container_name: str
    image_name: str
    tag: str
    attributes: dict[str, str] = {}
    is_blocking: bool = False


def cursor_path(log_path: str) -> str:
    """Return the file that says how far a log has been delivered."""
    return f"{log_path}.cursor"
