"""Looking into a container: `naru top`, `port`, `diff`, `export`."""

from __future__ import annotations

import sys

from naru.cli.command import Call, Command
from naru.cli.flags import STRING, Flag
from naru.cli.table import aligned
from naru.client.connection import quoted
from naru.errors import InvalidArgument, NaruError

_CHANGES = "CAD"  # modified, added, deleted: the API's 0, 1, 2


def top(call: Call) -> None:
    """List processes; what follows the name is for ps."""
    name, *options = call.arguments
    found = call.client.get(f"/containers/{quoted(name)}/top", {"ps_args": " ".join(options)})
    lines = [found["Titles"], *found["Processes"]]
    print(aligned(lines, least=20, gap=3), end="")


def port(call: Call) -> None:
    """List published ports, or where one of them is."""
    name, *asked = call.arguments
    found = call.client.get(f"/containers/{quoted(name)}/json")
    published = found["NetworkSettings"].get("Ports") or {}
    if asked:
        wanted = asked[0] if "/" in asked[0] else f"{asked[0]}/tcp"
        if not published.get(wanted):
            raise NaruError(f"Error: No public port '{asked[0]}' published for {name}")
        for binding in published[wanted]:
            print(_bound(binding))
        return
    lines = [f"{one} -> {_bound(binding)}" for one, bindings in published.items() for binding in bindings or ()]
    for line in sorted(lines, key=lambda line: int(line.partition("/")[0])):
        print(line)


def _bound(binding: dict[str, str]) -> str:
    address = binding["HostIp"]
    return f"[{address}]:{binding['HostPort']}" if ":" in address else f"{address}:{binding['HostPort']}"


def diff(call: Call) -> None:
    """List changed (C), added (A) and deleted (D) paths."""
    name = call.arguments[0]
    if not name:
        raise InvalidArgument("Container name cannot be empty")
    for change in call.client.get(f"/containers/{quoted(name)}/changes") or ():
        print(_CHANGES[change["Kind"]], change["Path"])


def export(call: Call) -> None:
    """Write the filesystem as a tar archive."""
    from naru.cli.image_archive import write_out

    path = call.flags.text("output")
    if not path and sys.stdout.isatty():
        raise InvalidArgument("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    with call.client.open("GET", f"/containers/{quoted(call.arguments[0])}/export") as response:
        write_out(response, path)


COMMANDS = (
    Command(
        "container top",
        "CONTAINER [ps OPTIONS]",
        "List the processes of a container.",
        top,
        count=(1, None),
        interspersed=False,
    ),
    Command("container port", "CONTAINER [PRIVATE_PORT[/PROTO]]", "List published ports.", port, count=(1, 2)),
    Command(
        "container diff",
        "CONTAINER",
        "List what was changed (C), added (A) and deleted (D) in a container's filesystem.",
        diff,
        count=(1, 1),
    ),
    Command(
        "container export",
        "[OPTIONS] CONTAINER",
        "Write a container's filesystem as a tar archive.",
        export,
        (Flag("output", "o", STRING, "The archive, in place of standard output"),),
        count=(1, 1),
    ),
)
