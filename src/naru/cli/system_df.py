"""`naru system df`: what takes disk space."""

from __future__ import annotations

from naru.cli import units
from naru.cli.command import Call, Command
from naru.cli.flags import BOOL, Flag
from naru.cli.images import rows as image_rows
from naru.cli.ps import FORMAT
from naru.cli.ps import row as container_row
from naru.cli.table import columns, print_rows, print_value, short_id, yes
from naru.cli.volume import row as volume_row
from naru.template.times import exact_time, parse_time
from naru.template.values import Row

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


_RAW = {label.lower(): field for field, label in _HEADERS.items()}
# Kind: field to title, in the tables of --verbose
_THINGS = {
    "Images": {
        "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE",
        "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
    },
    "Containers": {
        "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "LocalVolumes": "LOCAL VOLUMES", "Size": "SIZE",
        "RunningFor": "CREATED", "Status": "STATUS", "Names": "NAMES",
    },
    "Volumes": {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"},
    "BuildCache": {
        "ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED",
        "LastUsedSince": "LAST USED", "UsageCount": "USAGE", "Shared": "SHARED",
    },
}  # fmt: skip


class CacheRow(Row):
    """One step in the build cache."""

    kind = "*formatter.buildCacheContext"


class UsageRow(Row):
    """One kind of thing in the list."""

    kind = "*formatter.diskUsageContext"


def run(call: Call) -> None:
    """Print a line for each kind of thing, or with --verbose for each thing."""
    form = call.flags.text("format")
    if call.flags.on("verbose"):
        usage = call.client.get("/system/df")
        if form in ("", "table"):
            _print_each(usage)
        else:
            print_value(_things(usage), form, prefix="template parsing error: ")
        return
    print_rows(_rows(call.client.get("/system/df")), _HEADERS, list(_HEADERS), form, raw=_RAW)


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


def _things(usage: dict[str, Any]) -> dict[str, list[Row]]:
    """Return a row for each thing, by kind; images under the first of their names."""
    caches = usage.get("BuildCache") or ()
    return {
        "Images": [
            image for sent in usage.get("Images") or () for image in image_rows(_first_name(sent), is_whole=True)
        ],
        "Containers": [container_row(_own_size(sent), is_whole=True) for sent in usage.get("Containers") or ()],
        "Volumes": [volume_row(sent) for sent in usage.get("Volumes") or ()],
        "BuildCache": [_cache_row(sent) for sent in caches],
    }


def _first_name(image: dict[str, Any]) -> dict[str, Any]:
    return {**image, "RepoTags": (image.get("RepoTags") or [])[:1]}


def _own_size(container: dict[str, Any]) -> dict[str, Any]:
    return {**container, "SizeRootFs": 0}


def _cache_row(item: dict[str, Any]) -> Row:
    times = {key: units.ago(parse_time(item[key])) if item.get(key) else "" for key in ("CreatedAt", "LastUsedAt")}
    return CacheRow(
        ID=item["ID"],
        Parent=item.get("Parent", ""),
        CacheType=item["Type"],
        Size=units.human_size(item["Size"], 3),
        CreatedAt=_exact(item.get("CreatedAt")),
        CreatedSince=times["CreatedAt"],
        LastUsedAt=_exact(item.get("LastUsedAt")),
        LastUsedSince=times["LastUsedAt"],
        UsageCount=str(item["UsageCount"]),
        InUse=yes(item.get("InUse")),
        Shared=yes(item.get("Shared")),
        Description=item.get("Description", ""),
    )


def _exact(time: str | None) -> str:
    return exact_time(time) if time else ""


def _print_each(usage: dict[str, Any]) -> None:
    """Print the things in tables, IDs and commands shortened."""
    things = _things(usage)
    things["Containers"] = [container_row(_own_size(sent), is_whole=False) for sent in usage.get("Containers") or ()]
    for image in things["Images"]:
        image["ID"] = short_id(str(image["ID"]))
    for cache in things["BuildCache"]:
        cache["ID"] = short_id(str(cache["ID"])) + ("*" if cache["InUse"] == "true" else "")
    total = sum(item["Size"] for item in usage.get("BuildCache") or () if not item.get("Shared"))
    titles = {
        "Images": "Images space usage:",
        "Containers": "\nContainers space usage:",
        "Volumes": "\nLocal Volumes space usage:",
        "BuildCache": f"\nBuild cache usage: {units.human_size(total)}",
    }
    for kind, fields in _THINGS.items():
        print(titles[kind] + "\n")
        lines = [list(fields.values()), *([row.cell(field) for field in fields] for row in things[kind])]
        print(columns(lines), end="")


COMMANDS = (
    Command(
        "system df",
        "[OPTIONS]",
        "Show what takes disk space.",
        run,
        (FORMAT, Flag("verbose", "v", BOOL, "A line for each thing")),
    ),
)
