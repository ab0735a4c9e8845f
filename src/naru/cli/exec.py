"""`naru exec`: a command in a running container."""

from __future__ import annotations

import time

from naru.cli import environment, terminal
from naru.cli.command import Call, Command
from naru.cli.container_flags import EXEC_FLAGS
from naru.cli.joined import check_terminal, detach_keys
from naru.cli.session import Session, Signals
from naru.client.connection import quoted
from naru.errors import NaruError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXIT_PATIENCE_S = 5.0  # the stream may end a moment before the exit code is recorded


def run(call: Call) -> int:
    """Run the command; its exit code."""
    flags = call.flags
    has_terminal, is_detached = flags.on("tty"), flags.on("detach")
    takes_input = flags.on("interactive") and not is_detached
    check_terminal(has_terminal=has_terminal, takes_input=takes_input)
    keys = detach_keys(call)
    size = terminal.size() if has_terminal else None
    request: dict[str, Any] = {
        "Cmd": call.arguments[1:],
        "Tty": has_terminal,
        "AttachStdin": takes_input,
        "AttachStdout": not is_detached,
        "AttachStderr": not is_detached,
        "DetachKeys": keys,
        "Env": environment.variables(flags.many("env-file"), flags.many("env"), call.environment),
        "Privileged": flags.on("privileged"),
        "User": flags.text("user"),
        "WorkingDir": flags.text("workdir"),
    }
    begin: dict[str, Any] = {"Detach": is_detached, "Tty": has_terminal}
    if size:
        request["ConsoleSize"] = begin["ConsoleSize"] = list(size)
    created = call.client.post(f"/containers/{quoted(call.arguments[0])}/exec", None, request)
    path = f"/exec/{created['Id']}"
    if is_detached:
        call.client.post(f"{path}/start", None, begin)
        return 0
    with Signals(is_proxy=False, is_resize=has_terminal) as signals:
        stream, held = call.client.hijack(f"{path}/start", None, begin)
        session = Session(
            stream,
            held,
            signals,
            is_terminal=has_terminal,
            takes_input=takes_input,
            detach_keys=keys,
            on_resize=lambda: _resize(call, path),
        )
        is_over = session.run()
        stream.close()
    return _exit_code(call, path) if is_over else 0


def _exit_code(call: Call, path: str) -> int:
    deadline = time.monotonic() + _EXIT_PATIENCE_S
    while True:
        found = call.client.get(f"{path}/json")
        if not found["Running"] and found["ExitCode"] is not None:
            return int(found["ExitCode"])
        if time.monotonic() > deadline:
            return 0  # it closed its streams and lives on, as a detached one does
        time.sleep(0.005)


def _resize(call: Call, path: str) -> None:
    if size := terminal.size():
        try:
            call.client.post(f"{path}/resize", {"h": size[0], "w": size[1]})
        except NaruError:
            pass  # it has exited


COMMANDS = (
    Command(
        "container exec",
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Run a command in a running container.",
        run,
        EXEC_FLAGS,
        count=(2, None),
        interspersed=False,
    ),
)
