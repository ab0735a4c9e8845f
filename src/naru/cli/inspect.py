"""`naru inspect`, for anything, and `naru container|image|network|volume inspect`."""

from __future__ import annotations

import json

from naru.cli.command import Call, Command, complain
from naru.cli.flags import BOOL, STRING, Flag
from naru.cli.table import parsed, rendered
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
_OF_SWARM = ("config", "node", "plugin", "secret", "service", "task")  # the other kinds of Docker's CLI


def run(call: Call) -> int:
    """Print a JSON list, or each by the template; what was not found is reported after."""
    form, asked = call.flags.text("format"), _asked(call)
    if form:
        parsed(form)  # before anything is asked for
    found: list[tuple[str, Any]] = []
    failed: list[str] = []
    for name in call.arguments:
        try:
            found.append(_find(call, name, asked))
        except NaruError as error:
            failed.append(str(error))
    if form and form != "json":
        from naru.cli.documents import document

        texts = []
        for noun, sent in found:
            try:
                texts.append(rendered(document(noun.capitalize(), sent), form))
            except InvalidArgument as error:
                failed.append(str(error))
        print("\n".join(texts))
    else:
        layout: dict[str, Any] = {"separators": (",", ":")} if form else {"indent": 4}
        print(json.dumps([sent for _, sent in found], ensure_ascii=False, **layout))
    for text in failed:
        complain(text)
    return 1 if failed else 0


def _asked(call: Call) -> str:
    """Return the kind of things to look among, "" for all. InvalidArgument: not one that can be inspected."""
    noun = call.command.path.rpartition(" ")[0]
    if noun:
        return noun
    kind = call.flags.text("type")
    if kind and kind not in _PATHS:
        known = ", ".join(f'"{kind}"' for kind in sorted([*_PATHS, *_OF_SWARM]))
        reason = "not offered by naru" if kind in _OF_SWARM else f"must be one of {known}"
        raise InvalidArgument(f'unknown type: "{kind}": {reason}')
    return kind


def _find(call: Call, name: str, asked: str) -> tuple[str, Any]:
    """Return what `name` names, and which kind of thing it is."""
    if asked:
        return asked, call.client.get(_PATHS[asked].format(quoted(name)), _query(call, asked))
    for kind in _PATHS:
        try:
            return kind, call.client.get(_PATHS[kind].format(quoted(name)), _query(call, kind))
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
