"""`naru volume ls`, `create`, `rm`."""

from __future__ import annotations

from naru.cli import environment
from naru.cli.command import Call, Command, each
from naru.cli.flags import LIST, MAP, STRING, Flag, UsageError
from naru.cli.ps import FORMAT
from naru.cli.table import filters, print_rows
from naru.cli.template import Row
from naru.client.connection import quoted

_HEADERS = {
    "Name": "VOLUME NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "Availability": "AVAILABILITY",
    "Group": "GROUP",
    "Status": "STATUS",
}


class VolumeRow(Row):
    """One volume in the list."""

    kind = "formatter.volumeContext"


def list_(call: Call) -> None:
    """List volumes by name."""
    flags = call.flags
    found = call.client.get("/volumes", {"filters": filters(flags.many("filter"))})["Volumes"] or []
    found.sort(key=lambda volume: volume["Name"])
    if flags.on("quiet") and not flags.text("format"):
        for volume in found:
            print(volume["Name"])
        return
    rows = []
    for volume in found:
        labels = volume.get("Labels") or {}
        row = VolumeRow(
            Name=volume["Name"],
            Driver=volume["Driver"],
            Scope=volume["Scope"],
            Mountpoint=volume["Mountpoint"],
            Labels=",".join(f"{name}={value}" for name, value in labels.items()),
            Links="N/A",
            Size="N/A",
            Availability="N/A",
            Group="N/A",
            Status="N/A",
        )
        row["Label"] = lambda name, labels=labels: labels.get(name, "")
        rows.append(row)
    form = flags.text("format") or call.config.text("volumesFormat")
    print_rows(rows, _HEADERS, ["Driver", "Name"], form)


def create(call: Call) -> None:
    """Create a volume and print its name."""
    flags = call.flags
    if call.arguments and flags.given("name"):
        raise UsageError(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )
    request = {
        "Name": call.arguments[0] if call.arguments else flags.text("name"),
        "Driver": flags.text("driver"),
        "DriverOpts": flags.map("opt"),
        "Labels": environment.labels([], flags.many("label")),
    }
    print(call.client.post("/volumes/create", None, request)["Name"])


def remove(call: Call) -> int:
    """Remove volumes."""
    query = {"force": call.flags.on("force")}
    return each(call, lambda name: call.client.delete(f"/volumes/{quoted(name)}", query))


COMMANDS = (
    Command(
        "volume ls",
        "[OPTIONS]",
        "List volumes.",
        list_,
        (
            Flag("filter", "f", LIST, "Only those that match (dangling=true)", shown="filter"),
            FORMAT,
            Flag("quiet", "q", about="Only names"),
        ),
    ),
    Command(
        "volume create",
        "[OPTIONS] [VOLUME]",
        "Create a volume and print its name.",
        create,
        (
            Flag("driver", "d", STRING, "Driver", default="local"),
            Flag("label", "", LIST, "Label (key=value)"),
            Flag("name", "", STRING, is_hidden=True),
            Flag("opt", "o", MAP, "Option of the driver (type=tmpfs)"),
        ),
        count=(0, 1),
    ),
    Command(
        "volume rm",
        "[OPTIONS] VOLUME [VOLUME...]",
        "Remove volumes that no container uses.",
        remove,
        (Flag("force", "f", about="No error for one that does not exist"),),
        count=(1, None),
    ),
)
