"""`naru commit`: an image of a container's changes."""

from __future__ import annotations

from naru.cli import reference
from naru.cli.command import Call, Command
from naru.cli.flags import BOOL, LIST, STRING, Flag


def run(call: Call) -> None:
    """Commit and print the image's ID."""
    flags = call.flags
    name, *target = call.arguments
    repository, tag = reference.split(reference.tagged(target[0])) if target else ("", "")
    query = {
        "container": name,
        "repo": repository,
        "tag": tag,
        "author": flags.text("author"),
        "comment": flags.text("message"),
        "changes": flags.many("change"),
        "pause": "1" if flags.on("pause") else "0",
    }
    print(call.client.post("/commit", query)["Id"])


COMMANDS = (
    Command(
        "container commit",
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Make an image of a container's changes.",
        run,
        (
            Flag("author", "a", STRING, "Who made it"),
            Flag("change", "c", LIST, "Apply a Dockerfile instruction"),
            Flag("message", "m", STRING, "Message of the image's history"),
            Flag("pause", "p", BOOL, "Freeze the container meanwhile", default=True),
        ),
        count=(1, 2),
    ),
)
