"""`naru start`: start stopped containers, one of them attached if asked."""

from __future__ import annotations

from naru.cli.command import Call, Command, complain, each
from naru.cli.container_flags import DETACH_KEYS
from naru.cli.flags import STRING, Flag
from naru.client.connection import quoted
from naru.errors import InvalidArgument, NaruError


def run(call: Call) -> int:
    """Start them all; attached, the exit code is the container's."""
    if call.flags.on("attach") or call.flags.on("interactive"):
        if len(call.arguments) > 1:
            raise InvalidArgument("you cannot start and attach multiple containers at once")
        return _start_attached(call)
    query = {"detachKeys": call.flags.text("detach-keys"), **_checkpoint(call)}
    if query.get("checkpoint") and len(call.arguments) > 1:
        raise InvalidArgument("you cannot restore multiple containers at once")
    code = each(call, lambda name: call.client.post(f"/containers/{quoted(name)}/start", query))
    if code:
        complain("Error: failed to start containers: " + ", ".join(_stopped(call)))
    return code


def _checkpoint(call: Call) -> dict[str, str]:
    return {"checkpoint": call.flags.text("checkpoint"), "checkpoint-dir": call.flags.text("checkpoint-dir")}


def _stopped(call: Call) -> list[str]:
    stopped = []
    for name in call.arguments:
        try:
            if not call.client.get(f"/containers/{quoted(name)}/json")["State"]["Running"]:
                stopped.append(name)
        except NaruError:
            stopped.append(name)
    return stopped


def _start_attached(call: Call) -> int:
    from naru.cli.joined import Joined, check_terminal, detach_keys

    found = call.client.get(f"/containers/{quoted(call.arguments[0])}/json")
    container, config = found["Id"], found["Config"]
    keys = detach_keys(call)
    has_terminal = bool(config["Tty"])
    takes_input = call.flags.on("interactive") and bool(config["OpenStdin"])
    check_terminal(has_terminal=has_terminal, takes_input=takes_input)
    start = f"/containers/{container}/start"
    if found["State"]["Running"]:
        call.client.post(start)
    joined = Joined(call.client, container, has_terminal=has_terminal, keys=keys)
    return joined.run(
        streams={"stdout", "stderr"} | ({"stdin"} if takes_input else set()),
        condition="removed" if found["HostConfig"]["AutoRemove"] else "next-exit",
        is_proxy=call.flags.on("attach") and not has_terminal,
        start=lambda: call.client.post(start, {"detachKeys": keys, **_checkpoint(call)}),
    )


COMMANDS = (
    Command(
        "container start",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Start stopped containers.",
        run,
        (
            Flag("attach", "a", about="Show its output and pass signals on"),
            Flag("checkpoint", "", STRING, "Go on from this checkpoint"),
            Flag("checkpoint-dir", "", STRING, "Where the checkpoint is"),
            DETACH_KEYS,
            Flag("interactive", "i", about="Pass your input on"),
        ),
        count=(1, None),
    ),
)
