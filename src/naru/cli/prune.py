"""`naru container|image|network|volume|builder|system prune`: remove what nothing uses."""

from __future__ import annotations

import sys

from naru.cli import units
from naru.cli.command import Call, Command
from naru.cli.flags import BYTES, LIST, Flag
from naru.cli.table import filters
from naru.errors import NaruError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Filters = dict[str, dict[str, bool]]


def run(call: Call) -> None:
    """Ask, remove, and say what is gone."""
    noun = call.command.path.split()[0]
    flags = call.flags
    chosen = filters([*flags.many("filter"), *_settings(call)], "--filter") or {}
    has_all = any(flag.long == "all" for flag in call.command.flags) and flags.on("all")
    nouns = [noun]
    if noun == "system":
        nouns = ["container", "network", *(["volume"] if flags.on("volumes") else []), "image"]
        if "until" in chosen and "volume" in nouns:
            raise NaruError('ERROR: The "until" filter is not supported with "--volumes"')
    if not flags.on("force") and not _confirmed(_warning(noun, nouns, has_all=has_all)):
        return
    total = 0
    for one in nouns:
        total += _prune(call, one, _filters(one, dict(chosen), noun=noun, has_all=has_all))
    if noun == "system":
        try:
            total += _prune_build_cache(call, {"all": has_all, "filters": chosen})
        except Unsupported:
            pass  # a daemon that keeps no cache of its own
    if noun != "network":
        print(f"Total reclaimed space: {units.human_size(total)}")


def _settings(call: Call) -> list[str]:
    """Return the filters of the user's settings, but those that the command line turns round."""
    given = set(call.flags.many("filter"))
    opposites = {"label": "label!", "label!": "label"}
    kept = []
    for one in call.config.prune_filters():
        name, _, value = one.partition("=")
        if f"{opposites.get(name, name)}={value}" not in given:
            kept.append(one)
    return kept


def _filters(one: str, chosen: Filters, *, noun: str, has_all: bool) -> Filters:
    if one == "image":
        chosen["dangling"] = {"false" if has_all else "true": True}
    if one == "volume" and noun == "volume" and has_all:
        chosen["all"] = {"true": True}
    return chosen


def _prune(call: Call, noun: str, chosen: Filters) -> int:
    answer = call.client.post(f"/{noun}s/prune", {"filters": chosen})
    title = {"container": "Containers", "image": "Images", "network": "Networks", "volume": "Volumes"}[noun]
    removed = answer.get(f"{title}Deleted") or []
    if removed:
        print(f"Deleted {title}:")
        for item in removed:
            print(item if isinstance(item, str) else _image_line(item))
        print()
    return int(answer.get("SpaceReclaimed") or 0)


def prune_builder(call: Call) -> None:
    """Ask, remove from the build cache, and say what is gone."""
    flags = call.flags
    has_all = flags.on("all")
    query = {
        "all": has_all,
        "filters": filters(flags.many("filter"), "--filter"),
        "keep-storage": flags.number("keep-storage") or None,
    }
    what = "build cache" if has_all else "dangling build cache"
    if flags.on("force") or _confirmed(f"WARNING! This will remove all {what}.", separator=" "):
        print(f"Total reclaimed space: {units.human_size(_prune_build_cache(call, query))}")


def _prune_build_cache(call: Call, query: dict[str, Any]) -> int:
    answer = call.client.post("/build/prune", query) or {}
    removed = answer.get("CachesDeleted") or []
    if removed:
        print("Deleted build cache objects:")
        print("\n".join(removed))
        print()
    return int(answer.get("SpaceReclaimed") or 0)


def _image_line(item: dict[str, Any]) -> str:
    return f"deleted: {item['Deleted']}" if item.get("Deleted") else f"untagged: {item['Untagged']}"


def _warning(noun: str, nouns: list[str], *, has_all: bool) -> str:
    images = "all images without at least one container associated to them" if has_all else "all dangling images"
    volumes = "all local volumes not used by at least one container"
    what = {
        "container": "all stopped containers",
        "image": images,
        "network": "all custom networks not used by at least one container",
        "volume": volumes if has_all else f"anonymous{volumes.removeprefix('all')}",
    }
    if noun != "system":
        return f"WARNING! This will remove {what[noun]}."
    what["network"] = "all networks not used by at least one container"
    what["volume"] = "all anonymous volumes not used by at least one container"
    lines = [f"  - {what[one]}" for one in nouns] + ["  - all build cache" if has_all else "  - unused build cache"]
    return "\n".join(["WARNING! This will remove:", *lines, ""])


def _confirmed(warning: str, *, separator: str = "\n") -> bool:
    print(f"{warning}{separator}Are you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() == "y"


_FORCE = Flag("force", "f", about="Do not ask")
_FILTER = Flag("filter", "", LIST, "Only those that match (until=24h, label=x)", shown="filter")
_ALL = Flag("all", "a", about="All that nothing uses, not only those without a name")

COMMANDS = (
    Command(
        "builder prune",
        "[OPTIONS]",
        "Remove cached build steps.",
        prune_builder,
        (
            Flag("all", "a", about="All that no build uses, not only what no image leads to"),
            _FILTER,
            _FORCE,
            Flag("keep-storage", "", BYTES, "Keep so much of the cache"),
        ),
    ),
    Command("container prune", "[OPTIONS]", "Remove all stopped containers.", run, (_FILTER, _FORCE)),
    Command("image prune", "[OPTIONS]", "Remove images that no container uses.", run, (_ALL, _FILTER, _FORCE)),
    Command("network prune", "[OPTIONS]", "Remove networks that no container uses.", run, (_FILTER, _FORCE)),
    Command("volume prune", "[OPTIONS]", "Remove volumes that no container uses.", run, (_ALL, _FILTER, _FORCE)),
    Command(
        "system prune",
        "[OPTIONS]",
        "Remove stopped containers, unused networks and images, and the build cache.",
        run,
        (_ALL, _FILTER, _FORCE, Flag("volumes", about="Anonymous volumes too")),
    ),
)
