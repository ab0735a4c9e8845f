"""`naru attach`: join a running container's input and output."""

from __future__ import annotations

from naru.cli.command import Call, Command
from naru.cli.container_flags import DETACH_KEYS, SIG_PROXY
from naru.cli.flags import Flag
from naru.cli.joined import Joined, check_terminal, detach_keys
from naru.client.connection import quoted
from naru.errors import Conflict


def run(call: Call) -> int:
    """Attach until it exits or we detach; its exit code."""
    found = call.client.get(f"/containers/{quoted(call.arguments[0])}/json")
    state, config = found["State"], found["Config"]
    if not state["Running"]:
        raise Conflict("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise Conflict("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise Conflict("You cannot attach to a restarting container, wait until it is running")
    has_terminal = bool(config["Tty"])
    takes_input = bool(config["OpenStdin"]) and not call.flags.on("no-stdin")
    check_terminal(has_terminal=has_terminal, takes_input=takes_input)
    joined = Joined(call.client, found["Id"], has_terminal=has_terminal, keys=detach_keys(call))
    return joined.run(
        streams={"stdout", "stderr"} | ({"stdin"} if takes_input else set()),
        condition="not-running",
        is_proxy=call.flags.on("sig-proxy") and not has_terminal,
        start=None,
    )


COMMANDS = (
    Command(
        "container attach",
        "[OPTIONS] CONTAINER",
        "Join your terminal to a running container's input and output. Detach with ctrl-p ctrl-q.",
        run,
        (DETACH_KEYS, Flag("no-stdin", about="Do not pass your input on"), SIG_PROXY),
        count=(1, 1),
    ),
)
