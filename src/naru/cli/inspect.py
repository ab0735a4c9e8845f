"""`naru inspect`, for anything, and `naru container|image|network|volume inspect`."""

from __future__ import annotations

import json

from naru.cli.command import Call, Command, complain
from naru.cli.flags import BOOL, STRING, Flag
from naru.cli.table import print_value
from naru.client.connection import quoted
from naru.errors import InvalidArgument, NaruError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def run(call: Call) -> int:
    """Print a JSON list, or each by the template; what was not found is reported after."""
    form = call.flags.text("format")
    found: list[Any] = []
    failed: list[str] = []
    for name in call.arguments:
        try:
            document = _find(call, name)
        except NaruError as error:
            failed.append(str(error))
            break  # as in Docker's: what follows is not looked up
        found.append(document)
    if form:
        for document in found:
            print_value(document, form)
        if not found:
            print()
    else:
        print(json.dumps(found, ensure_ascii=False, indent=4))
    for text in failed:
        complain(text)
    return 1 if failed else 0


def _find(call: Call, name: str) -> Any:
    noun = call.command.path.rpartition(" ")[0]
    if noun:
        return call.client.get(_PATHS[noun].format(quoted(name)), _query(call, noun))
    asked = call.flags.text("type")
    if asked:
        if asked not in _PATHS:
            known = ", ".join(f'"{kind}"' for kind in _PATHS)
            raise InvalidArgument(f'unknown type: "{asked}": must be one of {known}')
        return call.client.get(_PATHS[asked].format(quoted(name)), _query(call, asked))
    for kind in _PATHS:
        try:
            return call.client.get(_PATHS[kind].format(quoted(name)), _query(call, kind))
        except NotFound:
            continue
    raise NotFound(f"Error: No such object: {name}")


def _query(call: Call, noun: str) -> dict[str, object]:
    flags = call.flags
    if noun == "container":
        return {"size": flags.on("size")}
    if noun == "network" and call.command.path != "inspect":
        return {"verbose": flags.on("verbose")}
    if noun == "image" and call.command.path != "inspect":
        return {"platform": flags.text("platform")}
    return {}


_FORMAT = Flag("format", "f", STRING, "json, or a Go TEMPLATE ('{{.State.Status}}')")
_SIZE = Flag("size", "s", BOOL, "Measure how much disk a container uses")


def _command(noun: str, extra: tuple[Flag, ...] = ()) -> Command:
    argument = noun.upper()
    return Command(
        f"{noun} inspect",
        f"[OPTIONS] {argument} [{argument}...]",
        f"Show everything about {noun}s.",
        run,
        (_FORMAT, *extra),
        count=(1, None),
    )


COMMANDS = (
    _command("container", (_SIZE,)),
    _command("image", (Flag("platform", "", STRING, "Platform of the image (linux/arm64)"),)),
    _command("network", (Flag("verbose", "v", BOOL, "Show what helps to find faults"),)),
    _command("volume"),
    Command(
        "inspect",
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Show everything about containers, images, networks or volumes.",
        run,
        (_FORMAT, _SIZE, Flag("type", "", STRING, "Look among these only: container, image, network, volume")),
        count=(1, None),
    ),
)
