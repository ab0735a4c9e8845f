"""`naru events`: what happens in the daemon, as it happens."""

from __future__ import annotations

from datetime import UTC, datetime

from naru.cli import units
from naru.cli.command import Call, Command
from naru.cli.flags import LIST, STRING, Flag
from naru.cli.table import NotATemplate, filters, print_value
from naru.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PREFIX = "template parsing error: "


def run(call: Call) -> None:
    """Print events until --until, or for ever."""
    flags = call.flags
    query = {
        "since": units.timestamp(flags.text("since")),
        "until": units.timestamp(flags.text("until")),
        "filters": filters(flags.many("filter")),
    }
    form = flags.text("format")
    for event in call.client.stream("GET", "/events", query):
        if form:
            _print_by_template(event, form)
        else:
            print(line(event))
        _flush()


def _print_by_template(event: dict[str, Any], form: str) -> None:
    from naru.cli.documents import document

    try:
        print_value(document("Event", event, kind="*events.Message"), form)
    except InvalidArgument as error:
        raise NotATemplate(f"Error parsing format: {str(error).removeprefix(_PREFIX)}") from None


def line(event: dict[str, Any]) -> str:
    """Return an event as a line: time, type, action, ID, attributes."""
    nano = int(event.get("timeNano") or event["time"] * 10**9)
    moment = datetime.fromtimestamp(nano // 10**9, UTC).astimezone()
    zone = moment.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    time = f"{moment:%Y-%m-%dT%H:%M:%S}.{nano % 10**9:09d}{zone}"
    actor = event["Actor"]
    attributes = ", ".join(f"{name}={value}" for name, value in sorted((actor.get("Attributes") or {}).items()))
    text = f"{time} {event['Type']} {event['Action']} {actor['ID']}"
    return f"{text} ({attributes})" if attributes else text


def _flush() -> None:
    import sys

    sys.stdout.flush()


COMMANDS = (
    Command(
        "system events",
        "[OPTIONS]",
        "Follow what happens in the daemon.",
        run,
        (
            Flag("filter", "f", LIST, "Only those that match (type=container, event=die)", shown="filter"),
            Flag("format", "", STRING, "json, or a Go TEMPLATE"),
            Flag("since", "", STRING, "Begin at this time, or this long ago"),
            Flag("until", "", STRING, "End at this time"),
        ),
    ),
)
