"""`naru update`: the limits and restart policy of containers."""

from __future__ import annotations

from naru.cli.command import Call, Command, complain, each
from naru.cli.container_flags import LIMIT_FLAGS
from naru.cli.create_request import limits, restart_policy
from naru.cli.flags import STRING, Flag
from naru.client.connection import quoted
from naru.errors import InvalidArgument


def run(call: Call) -> int:
    """Apply the given limits to each container."""
    request = limits(call.flags)
    if call.flags.given("restart"):
        request["RestartPolicy"] = restart_policy(call.flags.text("restart"))
    if not request:
        raise InvalidArgument("you must provide one or more flags when using this command")
    warnings: list[str] = []

    def act(name: str) -> None:
        answer = call.client.post(f"/containers/{quoted(name)}/update", None, request)
        warnings.extend((answer or {}).get("Warnings") or ())

    code = each(call, act)
    for warning in warnings:
        complain(warning)
    return code


COMMANDS = (
    Command(
        "container update",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Change the limits and the restart policy of containers, running or not.",
        run,
        (*LIMIT_FLAGS, Flag("restart", "", STRING, "When to start it again")),
        count=(1, None),
    ),
)
