"""`naru ps`: the list of containers."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from naru.cli import units
from naru.cli.command import Call, Command, complain
from naru.cli.flags import INT, LIST, STRING, Flag
from naru.cli.table import filters, print_rows, short_id, shortened
from naru.template.values import NIL, Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
}
_RAW = {
    "container_id": "ID",
    "image": "Image",
    "command": "Command",
    "created_at": "CreatedAt",
    "state": "State",
    "status": "Status",
    "names": "Names",
    "labels": "Labels",
    "ports": "Ports",
}
_DEFAULT = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]


class ContainerRow(Row):
    """One container in the list."""

    kind = "*formatter.ContainerContext"


def run(call: Call) -> None:
    """List containers."""
    flags = call.flags
    form = flags.text("format") or ("" if flags.on("quiet") else call.config.text("psFormat"))
    if flags.on("quiet") and form:
        complain("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        form = "raw" if form == "raw" else ""
    with_size = flags.on("size") or "Size" in form or "json .}}" in form
    limit = 1 if flags.on("latest") else max(flags.number("last"), 0)
    query = {
        "all": flags.on("all") or limit > 0,
        "limit": limit or None,
        "size": with_size,
        "filters": filters(flags.many("filter")),
    }
    found = call.client.get("/containers/json", query)
    rows = [row(container, is_whole=flags.on("no-trunc")) for container in found]
    default, raw = (_DEFAULT, _RAW) if not flags.on("size") else ([*_DEFAULT, "Size"], {**_RAW, "size": "Size"})
    print_rows(rows, HEADERS, default, form, raw=raw, quiet="ID" if flags.on("quiet") else "")


def row(container: dict[str, Any], *, is_whole: bool) -> ContainerRow:
    """Return a container as the list, and `system df`, show it."""
    created = datetime.fromtimestamp(container["Created"], UTC)
    command = container["Command"] if is_whole else shortened(container["Command"], 20)
    labels = container.get("Labels") or {}
    mounts = container.get("Mounts") or []
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    names = [name.removeprefix("/") for name in container.get("Names") or ()]
    made = ContainerRow(
        ID=container["Id"] if is_whole else short_id(container["Id"]),
        Image=_image(container, is_whole=is_whole),
        Command=json.dumps(command, ensure_ascii=False),
        CreatedAt=units.local_time(created),
        RunningFor=units.ago(created),
        Status=container["Status"],
        State=container["State"],
        Ports=ports(container.get("Ports") or []),
        Names=",".join(names if is_whole else [name for name in names if "/" not in name]),
        Size=_size(container),
        Labels=",".join(f"{name}={value}" for name, value in labels.items()),
        Mounts=",".join(_mount(mount, is_whole=is_whole) for mount in mounts),
        LocalVolumes=str(sum(mount.get("Driver") == "local" for mount in mounts)),
        Networks=",".join(networks),
        Platform=container.get("Platform") or NIL,
    )
    made["Label"] = lambda name: labels.get(name, "")
    return made


def _image(container: dict[str, Any], *, is_whole: bool) -> str:
    image = str(container["Image"])
    if not image:
        return "<no image>"
    if is_whole:
        return image
    if image.startswith("sha256:") or short_id(image) == short_id(str(container.get("ImageID", ""))):
        return short_id(image)
    return image.partition("@")[0]


def _size(container: dict[str, Any]) -> str:
    own = units.human_size(container.get("SizeRw") or 0, 3)
    whole = container.get("SizeRootFs") or 0
    return f"{own} (virtual {units.human_size(whole, 3)})" if whole > 0 else own


def _mount(mount: dict[str, Any], *, is_whole: bool) -> str:
    name = str(mount.get("Name") or mount.get("Source") or "")
    return name if is_whole else shortened(name, 15)


def ports(published: list[dict[str, Any]]) -> str:
    """Return ports as the list shows them: `0.0.0.0:8080->80/tcp, 443/tcp`, runs of equal ports as ranges."""
    ordered = sorted(published, key=lambda port: (port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0)))
    runs: dict[tuple[str, str], list[list[int]]] = {}
    others = []
    for port in ordered:
        private, public, address = port["PrivatePort"], port.get("PublicPort", 0), port.get("IP", "")
        if address and public != private:
            others.append(f"{_host(address)}:{public}->{private}/{port['Type']}")
            continue
        run_list = runs.setdefault((address, port["Type"]), [])
        if run_list and run_list[-1][1] == private - 1:
            run_list[-1][1] = private
        elif not run_list or run_list[-1][1] != private:
            run_list.append([private, private])
    groups = []
    for (address, protocol), spans in runs.items():
        for first, last in spans:
            span = str(first) if first == last else f"{first}-{last}"
            groups.append((first, f"{_host(address)}:{span}->{span}/{protocol}" if address else f"{span}/{protocol}"))
    return ", ".join([*(text for _, text in sorted(groups, key=lambda group: group[0])), *others])


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


FORMAT = Flag("format", "", STRING, "table, json, 'table TEMPLATE' or a Go TEMPLATE ('{{.Names}}: {{.Status}}')")
COMMANDS = (
    Command(
        "container ls",
        "[OPTIONS]",
        "List containers, the running ones unless asked otherwise.",
        run,
        (
            Flag("all", "a", about="Those that do not run too"),
            Flag("filter", "f", LIST, "Only those that match (status=exited, label=x)", shown="filter"),
            FORMAT,
            Flag("last", "n", INT, "The so many created last", default=-1),
            Flag("latest", "l", about="The one created last"),
            Flag("no-trunc", about="Do not shorten anything"),
            Flag("quiet", "q", about="Only IDs"),
            Flag("size", "s", about="Show how much disk they use"),
        ),
    ),
)
