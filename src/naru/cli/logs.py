"""`naru logs`: what a container has printed."""

from __future__ import annotations

from naru.cli import units
from naru.cli.command import Call, Command
from naru.cli.flags import STRING, Flag
from naru.cli.session import Frames, to_standard_streams, write_all
from naru.client.connection import quoted
from naru.errors import InvalidArgument


def run(call: Call) -> int:
    """Print the logs, and with --follow what comes."""
    flags = call.flags
    path = f"/containers/{quoted(call.arguments[0])}"
    found = call.client.get(f"{path}/json")
    query = {
        "stdout": True,
        "stderr": True,
        "follow": flags.on("follow"),
        "timestamps": flags.on("timestamps"),
        "details": flags.on("details"),
        "since": units.timestamp(flags.text("since")),
        "until": units.timestamp(flags.text("until")),
        "tail": flags.text("tail"),
    }
    for name in ("since", "until"):
        if query[name] and not str(query[name]).replace(".", "", 1).isdigit():
            asked = flags.text(name)
            raise InvalidArgument(f'invalid value for "{name}": failed to parse value as time or duration: "{asked}"')
    frames = Frames(to_standard_streams)
    with call.client.open("GET", f"{path}/logs", query) as response:
        while data := response.some():
            if found["Config"]["Tty"]:
                write_all(1, data)
            else:
                frames.feed(data)
    return 0


COMMANDS = (
    Command(
        "container logs",
        "[OPTIONS] CONTAINER",
        "Show what a container has printed.",
        run,
        (
            Flag("details", about="Show the extra attributes of the log driver"),
            Flag("follow", "f", about="Stay, and show what comes"),
            Flag("since", "", STRING, "Only since this time, or this long ago (42m)"),
            Flag("tail", "n", STRING, "So many lines from the end", default="all"),
            Flag("timestamps", "t", about="Show the time of each line"),
            Flag("until", "", STRING, "Only until this time, or this long ago"),
        ),
        count=(1, 1),
    ),
)
