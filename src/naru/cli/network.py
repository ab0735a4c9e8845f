"""`naru network ls`, `create`, `rm`, `connect`, `disconnect`."""

from __future__ import annotations

from naru.cli import environment
from naru.cli.command import Call, Command, complain, each
from naru.cli.flags import BOOL, INT, LIST, MAP, STRING, STRINGS, Flag
from naru.cli.ps import FORMAT
from naru.cli.table import filters, print_rows, short_id, yes
from naru.client.connection import quoted
from naru.errors import InvalidArgument, NotFound
from naru.template.times import exact_time
from naru.template.values import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADERS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}


_RAW = {"network_id": "ID", "name": "Name", "driver": "Driver", "scope": "Scope"}


class NetworkRow(Row):
    """One network in the list."""

    kind = "*network.networkContext"


def list_(call: Call) -> None:
    """List networks by name."""
    flags = call.flags
    found = call.client.get("/networks", {"filters": filters(flags.many("filter"))})
    found.sort(key=lambda network: network["Name"])
    is_whole = flags.on("no-trunc")
    rows = [_row(network, is_whole=is_whole) for network in found]
    is_quiet = flags.on("quiet")
    form = flags.text("format") or ("" if is_quiet else call.config.text("networksFormat"))
    print_rows(rows, _HEADERS, ["ID", "Name", "Driver", "Scope"], form, raw=_RAW, quiet="ID" if is_quiet else "")


def _row(network: dict[str, Any], *, is_whole: bool) -> NetworkRow:
    labels = network.get("Labels") or {}
    try:
        created = exact_time(network["Created"])
    except (KeyError, ValueError):
        created = ""
    row = NetworkRow(
        ID=network["Id"] if is_whole else short_id(network["Id"]),
        Name=network["Name"],
        Driver=network["Driver"],
        Scope=network["Scope"],
        IPv4=yes(network.get("EnableIPv4")),
        IPv6=yes(network.get("EnableIPv6")),
        Internal=yes(network.get("Internal")),
        Labels=",".join(f"{name}={value}" for name, value in labels.items()),
        CreatedAt=created,
    )
    row["Label"] = lambda name: labels.get(name, "")
    return row


def create(call: Call) -> None:
    """Create a network and print its ID."""
    flags = call.flags
    request: dict[str, Any] = {
        "Name": call.arguments[0],
        "CheckDuplicate": True,  # daemons before API 1.44 would make a second one of the same name
        "Driver": flags.text("driver"),
        "Options": flags.map("opt"),
        "IPAM": {"Driver": flags.text("ipam-driver"), "Options": flags.map("ipam-opt"), "Config": _pools(call)},
        "Internal": flags.on("internal"),
        "Attachable": flags.on("attachable"),
        "Ingress": flags.on("ingress"),
        "Scope": flags.text("scope"),
        "ConfigOnly": flags.on("config-only"),
        "Labels": environment.labels([], flags.many("label")),
    }
    for field, name in (("EnableIPv4", "ipv4"), ("EnableIPv6", "ipv6")):
        if flags.given(name):
            request[field] = flags.on(name)
    if flags.given("config-from"):
        request["ConfigFrom"] = {"Network": flags.text("config-from")}
    answer = call.client.post("/networks/create", None, request)
    if answer.get("Warning"):
        complain(f"WARNING: {answer['Warning']}")
    print(answer["Id"])


def _pools(call: Call) -> list[dict[str, Any]]:
    """Return the address pools: each range, gateway and reserved address goes to the subnet that holds it."""
    from ipaddress import ip_address, ip_network

    flags = call.flags
    pools: list[dict[str, Any]] = [{"Subnet": subnet} for subnet in flags.many("subnet")]
    if not any(flags.given(name) for name in ("ip-range", "gateway", "aux-address")):
        return pools  # the daemon says what is wrong with a subnet
    try:
        nets = [ip_network(pool["Subnet"], strict=False) for pool in pools]

        def holder(kind: str, text: str) -> dict[str, Any]:
            address = ip_address(text.partition("/")[0])
            for pool, net in zip(pools, nets, strict=True):
                if address in net:
                    return pool
            raise InvalidArgument(f"no matching subnet for {kind} {text}")

        for value in flags.many("ip-range"):
            holder("range", value)["IPRange"] = value
        for value in flags.many("gateway"):
            holder("gateway", value)["Gateway"] = value
        for name, value in flags.map("aux-address").items():
            holder("aux-address", value).setdefault("AuxiliaryAddresses", {})[name] = value
    except ValueError as error:
        raise InvalidArgument(f"invalid address: {error}") from None
    return pools


def remove(call: Call) -> int:
    """Remove networks."""
    is_forced = call.flags.on("force")

    def act(name: str) -> None:
        try:
            call.client.delete(f"/networks/{quoted(name)}")
        except NotFound:
            if not is_forced:
                raise
        else:
            print(name, flush=True)

    return each(call, act, echo=False)


def connect(call: Call) -> None:
    """Connect a container."""
    flags = call.flags
    network, container = call.arguments
    addresses: dict[str, Any] = {}
    for field, name in (("IPv4Address", "ip"), ("IPv6Address", "ip6")):
        if flags.given(name):
            addresses[field] = flags.text(name)
    if flags.given("link-local-ip"):
        addresses["LinkLocalIPs"] = flags.many("link-local-ip")
    endpoint = {
        "IPAMConfig": addresses,
        "Aliases": flags.many("alias"),
        "Links": flags.many("link"),
        "DriverOpts": environment.pairs(flags.many("driver-opt")),
        "GwPriority": flags.number("gw-priority"),
    }
    request = {"Container": container, "EndpointConfig": {field: value for field, value in endpoint.items() if value}}
    call.client.post(f"/networks/{quoted(network)}/connect", None, request)


def disconnect(call: Call) -> None:
    """Disconnect a container."""
    network, container = call.arguments
    request = {"Container": container, "Force": call.flags.on("force")}
    call.client.post(f"/networks/{quoted(network)}/disconnect", None, request)


COMMANDS = (
    Command(
        "network ls",
        "[OPTIONS]",
        "List networks.",
        list_,
        (
            Flag("filter", "f", LIST, "Only those that match (driver=bridge)", shown="filter"),
            FORMAT,
            Flag("no-trunc", about="Do not shorten anything"),
            Flag("quiet", "q", about="Only IDs"),
        ),
    ),
    Command(
        "network create",
        "[OPTIONS] NETWORK",
        "Create a network and print its ID.",
        create,
        (
            Flag("attachable", "", BOOL, "Let containers be attached by hand"),
            Flag("aux-address", "", MAP, "Address to leave alone (name=address)"),
            Flag("config-from", "", STRING, "Network to copy the configuration of"),
            Flag("config-only", "", BOOL, "Only a configuration for other networks"),
            Flag("driver", "d", STRING, "Driver", default="bridge"),
            Flag("gateway", "", STRINGS, "Gateway of the subnet"),
            Flag("ingress", "", BOOL, "Make it the routing mesh of a swarm"),
            Flag("internal", "", BOOL, "No way out"),
            Flag("ip-range", "", STRINGS, "Part of the subnet to take addresses from"),
            Flag("ipam-driver", "", STRING, "Address management driver", default="default"),
            Flag("ipam-opt", "", MAP, "Option of the address management"),
            Flag("ipv4", "", BOOL, "Give IPv4 addresses", default=True),
            Flag("ipv6", "", BOOL, "Give IPv6 addresses"),
            Flag("label", "", LIST, "Label (key=value)"),
            Flag("opt", "o", MAP, "Option of the driver"),
            Flag("scope", "", STRING, "Scope"),
            Flag("subnet", "", STRINGS, "Subnet (10.9.0.0/24)"),
        ),
        count=(1, 1),
    ),
    Command(
        "network rm",
        "NETWORK [NETWORK...]",
        "Remove networks that no container uses.",
        remove,
        (Flag("force", "f", BOOL, "No error for one that does not exist"),),
        count=(1, None),
    ),
    Command(
        "network connect",
        "[OPTIONS] NETWORK CONTAINER",
        "Connect a container to a network.",
        connect,
        (
            Flag("alias", "", STRINGS, "Further name on this network"),
            Flag("driver-opt", "", STRINGS, "Option of the driver"),
            Flag("gw-priority", "", INT, "The network with the highest has the default gateway"),
            Flag("ip", "", STRING, "IPv4 address"),
            Flag("ip6", "", STRING, "IPv6 address"),
            Flag("link", "", LIST, "Make another container known by name"),
            Flag("link-local-ip", "", STRINGS, "Link-local address"),
        ),
        count=(2, 2),
    ),
    Command(
        "network disconnect",
        "[OPTIONS] NETWORK CONTAINER",
        "Disconnect a container from a network.",
        disconnect,
        (Flag("force", "f", BOOL, "Even if the container does not answer"),),
        count=(2, 2),
    ),
)
