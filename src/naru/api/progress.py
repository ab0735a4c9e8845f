"""The lines a pull, push, load or build sends while it works. Engine API, CreateImageInfo, BuildInfo."""

from __future__ import annotations

import msgspec

from naru.api.wire import LowerWire, always, named


class ProgressDetail(LowerWire):
    """`total` 0 where it is not known."""

    current: int = 0
    total: int = 0
    start: int = 0
    hide_counts: bool = named(False, "hidecounts")
    units: str = ""


class ErrorDetail(LowerWire):
    code: int = 0
    message: str = always("")


class ProgressMessage(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One line. `stream` is build output; `status` with `id` is a layer's state; `aux` is a result for programs.

    `progress_detail=ProgressDetail()` writes `{}`, as Docker does for a layer without a bar.
    """

    stream: str = ""
    status: str = ""
    progress_detail: ProgressDetail | None = None
    progress: str = ""
    id: str = ""
    from_: str = named("", "from")
    time: int = 0
    error_detail: ErrorDetail | None = None
    error: str = ""
    aux: dict[str, str | int] | str | None = None
