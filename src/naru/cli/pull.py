"""`naru pull` and `naru push`, and the pull inside `naru run`."""

from __future__ import annotations

from naru.cli import reference
from naru.cli.command import Call, Command
from naru.cli.config_file import encoded
from naru.cli.content_trust import CONTENT_TRUST, check_trust
from naru.cli.flags import BOOL, STRING, Flag
from naru.cli.progress import show
from naru.client.connection import quoted


def pull_image(
    call: Call, name: str, *, platform: str, is_quiet: bool, to_stderr: bool, all_tags: bool = False
) -> None:
    """Pull an image and show how it goes. Errors of the pull propagate."""
    whole = name if all_tags else reference.tagged(name)
    repository, tag = reference.split(whole)
    credential = call.config.credentials(reference.registry(whole))
    messages = call.client.stream(
        "POST",
        "/images/create",
        {"fromImage": repository, "tag": tag, "platform": platform},
        headers={"X-Registry-Auth": encoded(credential)} if credential else None,
    )
    show(messages, to_stderr=to_stderr, is_quiet=is_quiet, is_pull=True)


def pull(call: Call) -> None:
    """Pull one image, or all tags of a repository."""
    check_trust(call)
    flags, name = call.flags, call.arguments[0]
    repository, tag = reference.split(name)
    all_tags = flags.on("all-tags")
    if all_tags and tag:
        from naru.errors import InvalidArgument

        raise InvalidArgument("tag can't be used with --all-tags/-a")
    whole = reference.tagged(name)
    if not all_tags and not tag and not flags.on("quiet"):
        print("Using default tag: latest", flush=True)
    pull_image(
        call,
        repository if all_tags else whole,
        platform=call.platform,
        is_quiet=flags.on("quiet"),
        to_stderr=False,
        all_tags=all_tags,
    )
    print(_canonical(whole))


def push(call: Call) -> None:
    """Push one image, or all tags of a repository."""
    check_trust(call)
    flags, name = call.flags, call.arguments[0]
    repository, tag = reference.split(reference.tagged(name))
    registry = reference.registry(repository)
    if not reference.split(name)[1] and not flags.on("all-tags") and not flags.on("quiet"):
        print("Using default tag: latest", flush=True)
    messages = call.client.stream(
        "POST",
        f"/images/{quoted(repository)}/push",
        {"tag": "" if flags.on("all-tags") else tag, "platform": flags.text("platform")},
        headers={"X-Registry-Auth": encoded(call.config.credentials(registry))},
    )
    show(messages, to_stderr=False, is_quiet=flags.on("quiet"))
    if flags.on("quiet"):
        print(_canonical(reference.tagged(name)))


def _canonical(name: str) -> str:
    registry = reference.registry(name)
    if name.startswith(f"{registry}/"):
        return name
    return f"{registry}/{name}" if "/" in name else f"{registry}/library/{name}"


_PLATFORM = Flag("platform", "", STRING, "Platform to take (linux/arm64)")
_QUIET = Flag("quiet", "q", BOOL, "Print nothing but the name")

COMMANDS = (
    Command(
        "image pull",
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Download an image from a registry. If the registry cannot be reached, the daemon builds official images"
        " from its library, and says so.",
        pull,
        (Flag("all-tags", "a", BOOL, "All tags of the repository"), _PLATFORM, _QUIET, CONTENT_TRUST),
        count=(1, 1),
    ),
    Command(
        "image push",
        "[OPTIONS] NAME[:TAG]",
        "Upload an image to a registry.",
        push,
        (Flag("all-tags", "a", BOOL, "All tags of the repository"), _PLATFORM, _QUIET, CONTENT_TRUST),
        count=(1, 1),
    ),
)
