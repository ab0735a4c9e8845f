"""`naru system df`: what takes disk space."""

from __future__ import annotations

from datetime import UTC, datetime

from naru.cli import units
from naru.cli.command import Call, Command
from naru.cli.flags import BOOL, Flag
from naru.cli.ps import FORMAT
from naru.cli.table import columns, print_rows, short_id, shortened
from naru.cli.template import Row
from naru.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADERS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}


class UsageRow(Row):
    """One kind of thing in the list."""

    kind = "formatter.diskUsageContext"


def run(call: Call) -> None:
    """Print a line for each kind of thing, or with --verbose for each thing."""
    form = call.flags.text("format")
    if call.flags.on("verbose"):
        if form:
            raise InvalidArgument("the verbose and the format options conflict")
        _print_each(call.client.get("/system/df"))
        return
    print_rows(_rows(call.client.get("/system/df")), _HEADERS, list(_HEADERS), form)


def _rows(usage: dict[str, Any]) -> list[UsageRow]:
    images, containers = usage.get("Images") or [], usage.get("Containers") or []
    volumes, cache = usage.get("Volumes") or [], usage.get("BuildCache") or []
    layers = usage.get("LayersSize") or 0
    used = sum(
        image["Size"] - image["SharedSize"]
        for image in images
        if image.get("Containers", 0) > 0 and image.get("SharedSize", -1) >= 0
    )
    running = [one for one in containers if one["State"] in ("running", "paused", "restarting")]
    own = sum(one.get("SizeRw") or 0 for one in containers)
    busy = sum(one.get("SizeRw") or 0 for one in running)
    sizes = [(_size(volume), (volume.get("UsageData") or {}).get("RefCount", 0)) for volume in volumes]
    kept = sum(item["Size"] for item in cache if not item.get("Shared"))
    in_use = sum(item["Size"] for item in cache if item.get("InUse") and not item.get("Shared"))
    return [
        _row("Images", len(images), sum(one.get("Containers", 0) > 0 for one in images), layers, layers - used),
        _row("Containers", len(containers), len(running), own, own - busy),
        _row(
            "Local Volumes",
            len(volumes),
            sum(count > 0 for _, count in sizes),
            sum(size for size, _ in sizes),
            sum(size for size, count in sizes if count == 0),
        ),
        _row("Build Cache", len(cache), sum(bool(one.get("InUse")) for one in cache), kept, kept - in_use, share=False),
    ]


def _row(kind: str, count: int, active: int, size: int, reclaimable: int, *, share: bool = True) -> UsageRow:
    reclaimable = max(reclaimable, 0)
    percent = f" ({reclaimable * 100 // size}%)" if share and size > 0 else ""
    return UsageRow(
        Type=kind,
        TotalCount=str(count),
        Active=str(active),
        Size=units.human_size(size),
        Reclaimable=units.human_size(reclaimable) + percent,
    )


def _size(volume: dict[str, Any]) -> int:
    return max(int((volume.get("UsageData") or {}).get("Size", 0)), 0)


def _print_each(usage: dict[str, Any]) -> None:
    lines = [["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]]
    for image in usage.get("Images") or ():
        name, _, tag = (image.get("RepoTags") or ["<none>:<none>"])[0].rpartition(":")
        shared = image.get("SharedSize", -1)
        parts = [units.human_size(size) for size in (shared, image["Size"] - shared)] if shared >= 0 else ["N/A"] * 2
        sizes = [units.human_size(image["Size"], 3), *parts]
        lines.append([name, tag, short_id(image["Id"]), _since(image), *sizes, str(image.get("Containers", 0))])
    print("Images space usage:\n\n" + columns(lines))
    lines = [["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"]]
    for one in usage.get("Containers") or ():
        volumes = str(sum(mount.get("Driver") == "local" for mount in one.get("Mounts") or ()))
        size, names = units.human_size(one.get("SizeRw") or 0, 3), ",".join(one["Names"]).replace("/", "")
        command = f'"{shortened(one["Command"], 20)}"'
        lines.append([short_id(one["Id"]), one["Image"], command, volumes, size, _since(one), one["Status"], names])
    print("Containers space usage:\n\n" + columns(lines))
    lines = [["VOLUME NAME", "LINKS", "SIZE"]]
    for volume in usage.get("Volumes") or ():
        links = str((volume.get("UsageData") or {}).get("RefCount", 0))
        lines.append([volume["Name"], links, units.human_size(_size(volume))])
    print("Local Volumes space usage:\n\n" + columns(lines))
    cache = usage.get("BuildCache") or []
    print(f"Build cache usage: {units.human_size(sum(item['Size'] for item in cache))}\n")
    lines = [["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"]]
    for item in cache:
        times = [units.ago(units.parse_time(item[key])) if item.get(key) else "" for key in ("CreatedAt", "LastUsedAt")]
        state = [units.human_size(item["Size"], 3), *times, str(item["UsageCount"]), str(item["Shared"]).lower()]
        lines.append([item["ID"][:12], item["Type"], *state])
    print(columns(lines), end="")


def _since(item: dict[str, Any]) -> str:
    return units.ago(datetime.fromtimestamp(item["Created"], UTC))


COMMANDS = (
    Command(
        "system df",
        "[OPTIONS]",
        "Show what takes disk space.",
        run,
        (FORMAT, Flag("verbose", "v", BOOL, "A line for each thing")),
    ),
)
