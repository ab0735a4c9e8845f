"""`naru images`, `rmi`, `tag` and `history`."""

from __future__ import annotations

from datetime import UTC, datetime

from naru.cli import reference, units
from naru.cli.command import Call, Command, complain
from naru.cli.flags import BOOL, LIST, STRING, STRINGS, Flag
from naru.cli.ps import FORMAT
from naru.cli.table import filters, print_rows, short_id, shortened
from naru.client.connection import quoted
from naru.errors import InvalidArgument, NaruError, NotFound
from naru.template.values import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NONE = "<none>"
HEADERS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}
_RAW = {"repository": "Repository", "tag": "Tag", "image_id": "ID", "created_at": "CreatedAt", "virtual_size": "Size"}
_HISTORY_HEADERS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}


class ImageRow(Row):
    """One name of an image in the list."""

    kind = "*formatter.imageContext"


class HistoryRow(Row):
    """One step of an image's history."""

    kind = "*formatter.historyContext"


def run(call: Call) -> None:
    """List images, a line for each of their names."""
    flags = call.flags
    chosen = filters(flags.many("filter")) or {}
    if call.arguments:
        chosen.setdefault("reference", {})[call.arguments[0]] = True
    found = call.client.get("/images/json", {"all": flags.on("all"), "filters": chosen})
    form = flags.text("format") or ("" if flags.on("quiet") else call.config.text("imagesFormat"))
    listed = [row for image in found for row in rows(image, digests=flags.on("digests"), is_whole=flags.on("no-trunc"))]
    digest = ["Digest"] if flags.on("digests") else []
    raw = {**_RAW, "digest": "Digest"} if digest else _RAW
    default = ["Repository", "Tag", *digest, "ID", "CreatedSince", "Size"]
    print_rows(listed, HEADERS, default, form, raw=raw, quiet="ID" if flags.on("quiet") else "")


def rows(image: dict[str, Any], *, digests: bool = False, is_whole: bool) -> list[ImageRow]:
    """Return an image as the list, and `system df`, show it: a row for each of its names."""
    tags = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
    by_repository: dict[str, str] = {}
    for one in image.get("RepoDigests") or ():
        repository, _, digest = one.partition("@")
        if repository != _NONE:
            by_repository[repository] = digest
    names = []
    for tag in sorted(tags):
        repository, _, version = tag.rpartition(":")
        names.append((repository, version, by_repository.get(repository, _NONE) if digests else _NONE))
    if not names:
        names = [(repository, _NONE, digest) for repository, digest in by_repository.items()]
    created = datetime.fromtimestamp(image["Created"], UTC)
    size = units.human_size(image["Size"], 3)
    shared = image.get("SharedSize", -1)
    return [
        ImageRow(
            Repository=reference.familiar(repository),
            Tag=tag,
            Digest=digest,
            ID=image["Id"] if is_whole else short_id(image["Id"]),
            CreatedSince=units.ago(created),
            CreatedAt=units.local_time(created),
            Size=size,
            Containers=str(image["Containers"]) if image.get("Containers", -1) >= 0 else "N/A",
            VirtualSize=units.human_size(image["Size"]),
            SharedSize=units.human_size(shared) if shared >= 0 else "N/A",
            UniqueSize=units.human_size(image["Size"] - shared) if shared >= 0 else "N/A",
        )
        for repository, tag, digest in names or [(_NONE, _NONE, _NONE)]
    ]


def remove(call: Call) -> int:
    """Remove names of images, and images without a name."""
    flags = call.flags
    failed: list[str] = []
    is_fatal = False
    query = {"force": flags.on("force"), "noprune": flags.on("no-prune"), "platforms": flags.many("platform")}
    for name in call.arguments:
        try:
            removed = call.client.delete(f"/images/{quoted(name)}", query)
        except NaruError as error:
            is_fatal = is_fatal or not isinstance(error, NotFound)
            failed.append(str(error))
            continue
        for item in removed or ():
            print(f"Deleted: {item['Deleted']}" if item.get("Deleted") else f"Untagged: {item['Untagged']}", flush=True)
    for text in failed:
        complain(text)
    return 1 if failed and (is_fatal or not flags.on("force")) else 0


def tag(call: Call) -> None:
    """Give an image another name."""
    source, target = call.arguments
    try:
        repository, version = reference.split(reference.tagged(target))
    except InvalidArgument as error:
        raise InvalidArgument(f'Error parsing reference: "{target}" is not a valid repository/tag: {error}') from None
    call.client.post(f"/images/{quoted(source)}/tag", {"repo": repository, "tag": version})


def history(call: Call) -> None:
    """Show the steps an image was made in, the last first."""
    flags = call.flags
    is_whole, is_human = flags.on("no-trunc"), flags.on("human")
    found = call.client.get(f"/images/{quoted(call.arguments[0])}/history", {"platform": flags.text("platform")})
    rows = []
    for item in found:
        created = datetime.fromtimestamp(item["Created"], UTC)
        identifier = item["Id"] if is_whole or item["Id"] == "<missing>" else short_id(item["Id"])
        command = " ".join((item["CreatedBy"] or "").replace("\t", " ").split(" "))
        since = units.ago(created) if item["Created"] > 0 else "N/A"
        at = created.astimezone().isoformat(timespec="seconds").replace("+00:00", "Z")
        rows.append(
            HistoryRow(
                ID=identifier,
                CreatedSince=since if is_human else at,
                CreatedAt=at,
                CreatedBy=command if is_whole else shortened(command, 45),
                Size=units.human_size(item["Size"], 3) if is_human else str(item["Size"]),
                Comment=item["Comment"],
            )
        )
    headers = _HISTORY_HEADERS if is_human else {**_HISTORY_HEADERS, "CreatedSince": "CREATED AT"}
    default = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"]
    print_rows(rows, headers, default, flags.text("format"), quiet="ID" if flags.on("quiet") else "")


_PLATFORM = Flag("platform", "", STRING, "Platform of the image (linux/arm64)")
COMMANDS = (
    Command(
        "image ls",
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List images.",
        run,
        (
            Flag("all", "a", about="Intermediate images too"),
            Flag("digests", about="Show digests"),
            Flag("filter", "f", LIST, "Only those that match (dangling=true)", shown="filter"),
            FORMAT,
            Flag("no-trunc", about="Do not shorten anything"),
            Flag("quiet", "q", about="Only IDs"),
        ),
        count=(0, 1),
    ),
    Command(
        "image rm",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Remove images by name or ID.",
        remove,
        (
            Flag("force", "f", about="Even if it has several names or stopped containers"),
            Flag("no-prune", about="Keep untagged parents"),
            Flag("platform", "", STRINGS, "Remove only these platforms"),
        ),
        count=(1, None),
    ),
    Command("image tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Give an image another name.", tag, count=(2, 2)),
    Command(
        "image history",
        "[OPTIONS] IMAGE",
        "Show how an image was made, the last step first.",
        history,
        (
            FORMAT,
            Flag("human", "H", BOOL, "Sizes and times for people", default=True),
            Flag("no-trunc", about="Do not shorten anything"),
            _PLATFORM,
            Flag("quiet", "q", about="Only IDs"),
        ),
        count=(1, 1),
    ),
)
