"""Volumes. Engine API, Volume."""

from __future__ import annotations

from naru.api.wire import Wire, always


class UsageData(Wire):
    """-1 where it was not worked out."""

    size: int = always(-1)
    ref_count: int = always(-1)


class Volume(Wire):
    created_at: str = ""
    driver: str = always("local")
    labels: dict[str, str] | None = always(None)
    mountpoint: str = always("")
    name: str = always("")
    options: dict[str, str] | None = always(None)
    scope: str = always("local")
    status: dict[str, str] | None = None
    usage_data: UsageData | None = None


class VolumeCreateRequest(Wire):
    """An empty name asks for a generated one."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class VolumeList(Wire):
    volumes: list[Volume] = always([])
    warnings: list[str] | None = always(None)


class VolumesPruneReport(Wire):
    volumes_deleted: list[str] | None = always(None)
    space_reclaimed: int = always(0)
