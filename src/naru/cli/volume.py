"""`naru volume ls`, `create`, `rm`, `update`. What is for volumes of a cluster is passed on: a daemon may have one."""

from __future__ import annotations

from naru.cli import environment, units
from naru.cli.command import Call, Command, each
from naru.cli.flags import BOOL, BYTES, LIST, MAP, STRING, Flag
from naru.cli.ps import FORMAT
from naru.cli.table import filters, print_rows
from naru.client.connection import quoted
from naru.errors import InvalidArgument
from naru.template.values import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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

    kind = "*formatter.volumeContext"


def list_(call: Call) -> None:
    """List volumes by name."""
    flags = call.flags
    found = call.client.get("/volumes", {"filters": filters(flags.many("filter"))})["Volumes"] or []
    found.sort(key=lambda volume: volume["Name"])
    if flags.on("cluster"):
        found = [volume for volume in found if volume.get("ClusterVolume")]
    rows = [row(volume) for volume in found]
    is_quiet = flags.on("quiet")
    form = flags.text("format") or ("" if is_quiet else call.config.text("volumesFormat"))
    default, raw = ["Driver", "Name"], {"name": "Name", "driver": "Driver"}
    if flags.on("cluster"):
        default, form = ["Name", "Group", "Driver", "Availability", "Status"], ""
    print_rows(rows, _HEADERS, default, form, raw=raw, quiet="Name" if is_quiet else "")


def row(volume: dict[str, Any]) -> VolumeRow:
    """Return a volume as the list, and `system df`, show it."""
    labels = volume.get("Labels") or {}
    usage = volume.get("UsageData")
    cluster = (volume.get("ClusterVolume") or {}).get("Spec") or {}
    made = VolumeRow(
        Name=volume["Name"],
        Driver=volume["Driver"],
        Scope=volume["Scope"],
        Mountpoint=volume["Mountpoint"],
        Labels=",".join(f"{name}={value}" for name, value in labels.items()),
        Links=str(usage["RefCount"]) if usage else "N/A",
        Size=units.human_size(usage["Size"]) if usage else "N/A",
        Availability=cluster.get("Availability") or "N/A",
        Group=cluster.get("Group") or "N/A",
        Status=_cluster_status(volume),
    )
    made["Label"] = lambda name: labels.get(name, "")
    return made


def _cluster_status(volume: dict[str, Any]) -> str:
    cluster = volume.get("ClusterVolume")
    if not cluster:
        return "N/A"
    if not (cluster.get("Info") or {}).get("VolumeID"):
        return "pending creation"
    states = {published.get("State") for published in cluster.get("PublishStatus") or ()}
    return "in use" if "published" in states else "created"


def create(call: Call) -> None:
    """Create a volume and print its name."""
    flags = call.flags
    if call.arguments and flags.given("name"):
        raise InvalidArgument(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )
    request: dict[str, Any] = {
        "Name": call.arguments[0] if call.arguments else flags.text("name"),
        "Driver": flags.text("driver"),
        "DriverOpts": flags.map("opt"),
        "Labels": environment.labels([], flags.many("label")),
    }
    if any(flags.given(name) for name in _CLUSTER_NAMES):
        request["ClusterVolumeSpec"] = _cluster_spec(call)
    print(call.client.post("/volumes/create", None, request)["Name"])


def _cluster_spec(call: Call) -> dict[str, Any]:
    """Return what the volume of a cluster is to be like. Engine API, ClusterVolumeSpec"""
    flags = call.flags
    kind = {"block": "BlockVolume", "mount": "MountVolume"}.get(flags.text("type"))
    if kind is None:
        raise InvalidArgument(f"invalid volume type: {flags.text('type')}: must be block or mount")
    secrets = [{"Key": key, "Secret": secret} for key, secret in sorted(flags.map("secret").items())]
    sides = {"Requisite": "topology-required", "Preferred": "topology-preferred"}
    topologies = {
        side: [{"Segments": environment.pairs(one.split(","))} for one in flags.many(name)]
        for side, name in sides.items()
        if flags.many(name)
    }
    spec: dict[str, Any] = {
        "Group": flags.text("group"),
        "AccessMode": {"Scope": flags.text("scope"), "Sharing": flags.text("sharing"), kind: {}},
        "AccessibilityRequirements": topologies,
        "CapacityRange": {"RequiredBytes": flags.number("required-bytes"), "LimitBytes": flags.number("limit-bytes")},
        "Secrets": secrets,
        "Availability": flags.text("availability"),
    }
    return {field: value for field, value in spec.items() if value not in ("", [])}


def update(call: Call) -> None:
    """Change a cluster volume's availability."""
    name = call.arguments[0] if call.arguments else ""
    volume = call.client.get(f"/volumes/{quoted(name)}")
    cluster = volume.get("ClusterVolume")
    if not cluster:
        raise InvalidArgument("can only update cluster volumes")
    if call.flags.given("availability"):
        spec = {**cluster["Spec"], "Availability": call.flags.text("availability")}
        version = {"version": cluster["Version"]["Index"]}
        call.client.open("PUT", f"/volumes/{quoted(cluster['ID'])}", version, body={"Spec": spec}).read()


def remove(call: Call) -> int:
    """Remove volumes."""
    query = {"force": call.flags.on("force")}
    return each(call, lambda name: call.client.delete(f"/volumes/{quoted(name)}", query))


_AVAILABILITY = Flag("availability", "", STRING, "Cluster volume: active, pause or drain", default="active")
_CLUSTER_FLAGS = (
    _AVAILABILITY,
    Flag("group", "", STRING, "Cluster volume: its group"),
    Flag("limit-bytes", "", BYTES, "Cluster volume: largest size"),
    Flag("required-bytes", "", BYTES, "Cluster volume: least size"),
    Flag("scope", "", STRING, "Cluster volume: on how many nodes at a time, single or multi", default="single"),
    Flag("secret", "", MAP, "Cluster volume: secret for its driver (key=secret)"),
    Flag("sharing", "", STRING, "Cluster volume: none, readonly, onewriter or all", default="none"),
    Flag("topology-preferred", "", LIST, "Cluster volume: where it would better be (region=a,zone=b)"),
    Flag("topology-required", "", LIST, "Cluster volume: where it must be reachable"),
    Flag("type", "", STRING, "Cluster volume: mount or block", default="block"),
)
_CLUSTER_NAMES = tuple(flag.long for flag in _CLUSTER_FLAGS)

COMMANDS = (
    Command(
        "volume ls",
        "[OPTIONS]",
        "List volumes.",
        list_,
        (
            Flag("cluster", "", BOOL, "Only volumes of a cluster"),
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
            *_CLUSTER_FLAGS,
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
    Command(
        "volume update",
        "[OPTIONS] [VOLUME]",
        "Change a cluster volume. Other volumes have nothing that could be changed.",
        update,
        (_AVAILABILITY,),
        count=(1, 1),
    ),
)
