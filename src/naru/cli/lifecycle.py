"""The short verbs on containers: stop, restart, kill, rm, pause, unpause, rename, wait."""

from __future__ import annotations

from collections.abc import Mapping

from naru.cli.command import Call, Command, complain, each
from naru.cli.flags import INT, STRING, Flag
from naru.client.connection import quoted
from naru.errors import InvalidArgument, NaruError, NotFound


def _verb(call: Call, name: str, verb: str, query: Mapping[str, object] | None = None) -> object:
    return call.client.post(f"/containers/{quoted(name)}/{verb}", query)


def stop(call: Call) -> int:
    """Stop or restart; `-t` is the time each has before it is killed."""
    query = {"signal": call.flags.text("signal"), "t": _timeout(call)}
    verb = call.command.path.split()[1]
    return each(call, lambda name: _verb(call, name, verb, query))


def _timeout(call: Call) -> str | None:
    """Return the seconds as text: 0 must be sent too."""
    for name in ("timeout", "time"):
        if call.flags.given(name):
            return str(call.flags.number(name))
    return None


def kill(call: Call) -> int:
    """Send a signal."""
    return each(call, lambda name: _verb(call, name, "kill", {"signal": call.flags.text("signal")}))


def pause(call: Call) -> int:
    """Freeze or thaw."""
    verb = call.command.path.split()[1]
    return each(call, lambda name: _verb(call, name, verb))


def remove(call: Call) -> int:
    """Remove containers, or links."""
    flags = call.flags
    query = {"v": flags.on("volumes"), "link": flags.on("link"), "force": flags.on("force")}

    def act(name: str) -> None:
        bare = name.strip("/")
        if not bare:
            raise InvalidArgument("container name cannot be empty")
        call.client.delete(f"/containers/{quoted(bare)}", query)

    return each(call, act, forgive=NotFound if flags.on("force") else None)


def rename(call: Call) -> None:
    """Give a container another name."""
    old, new = (argument.strip() for argument in call.arguments)
    if not old or not new:
        raise InvalidArgument("Error: Neither old nor new names may be empty")
    try:
        call.client.post(f"/containers/{quoted(old)}/rename", {"name": new})
    except NaruError as error:
        complain(str(error))
        raise NaruError(f"Error: failed to rename container named {old}") from error


def wait(call: Call) -> int:
    """Print each exit code as the containers stop."""

    def act(name: str) -> None:
        answer = call.client.post(f"/containers/{quoted(name)}/wait", {"condition": "not-running"})
        if (error := answer.get("Error")) and error.get("Message"):
            raise NaruError(error["Message"])
        print(answer["StatusCode"], flush=True)

    return each(call, act, echo=False)


_SIGNAL = Flag("signal", "s", STRING, "Signal to send")
_STOP_FLAGS = (
    _SIGNAL,
    Flag("timeout", "t", INT, "Seconds it has before it is killed"),
    Flag("time", "", INT, is_hidden=True),
)
_MANY = "CONTAINER [CONTAINER...]"
_SOME = "[OPTIONS] CONTAINER [CONTAINER...]"

COMMANDS = (
    Command("container stop", _SOME, "Stop running containers.", stop, _STOP_FLAGS, count=(1, None)),
    Command("container restart", _SOME, "Stop and start containers.", stop, _STOP_FLAGS, count=(1, None)),
    Command("container kill", _SOME, "Send a signal, KILL if none is named.", kill, (_SIGNAL,), count=(1, None)),
    Command("container pause", _MANY, "Freeze all processes of containers.", pause, count=(1, None)),
    Command("container unpause", _MANY, "Thaw the processes of containers.", pause, count=(1, None)),
    Command("container rename", "CONTAINER NEW_NAME", "Rename a container.", rename, count=(2, 2)),
    Command("container wait", _MANY, "Wait until containers stop and print their exit codes.", wait, count=(1, None)),
    Command(
        "container rm",
        _SOME,
        "Remove containers.",
        remove,
        (
            Flag("force", "f", about="Kill it first if it runs"),
            Flag("link", "l", about="Remove the link of this name"),
            Flag("volumes", "v", about="Remove its anonymous volumes too"),
        ),
        count=(1, None),
    ),
)
