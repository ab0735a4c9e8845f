"""`naru run` and `naru create`."""

from __future__ import annotations

import os

from naru.cli import reference, terminal
from naru.cli.command import Call, Command, complain
from naru.cli.container_flags import CREATE_FLAGS, RUN_FLAGS
from naru.cli.content_trust import check_trust
from naru.cli.create_request import attached_streams, create_request
from naru.cli.flags import UsageError
from naru.errors import InvalidArgument, NaruError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PULL = ("always", "missing", "never")
_ADVICE = "\n\nRun 'naru {name} --help' for more information"


class _Failed(NaruError):
    """An error as `run` and `create` report it, with its exit code."""

    def __init__(self, error: NaruError, name: str) -> None:
        super().__init__(f"naru: {error}{_ADVICE.format(name=name)}", hint=error.hint)
        self.exit_code = _exit_code(str(error))


def _exit_code(message: str) -> int:
    """Return the shell's code for a command that could not be started, else 125.

    The API has no field for it, so Docker's CLI tells by the text, and so must everyone who serves the same API.
    """
    lowered = message.lower()
    if "executable file not found" in lowered or "no such file or directory" in lowered:
        return 127
    return 126 if "permission denied" in lowered or "is a directory" in lowered else 125


class _Reported:
    """Context in which errors become what `run` and `create` say, with this exit code or the one by the text."""

    def __init__(self, name: str, exit_code: int | None = None) -> None:
        self._name = name
        self._exit_code = exit_code

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, NaruError) and not isinstance(error, UsageError):
            failed = _Failed(error, self._name)
            if self._exit_code is not None:
                failed.exit_code = self._exit_code
            raise failed from error


def create(call: Call) -> None:
    """Create a container and print its ID."""
    with _Reported(call.name, 125):
        request = _request(call)
    print(_create(call, request))


def run(call: Call) -> int:
    """Create a container and start it, attached or not; its exit code."""
    from naru.cli.joined import Joined, check_terminal, detach_keys

    flags = call.flags
    is_detached = flags.on("detach")
    has_terminal = flags.on("tty")
    with _Reported(call.name, 125):
        streams = attached_streams(flags)
        request = _request(call)
    if is_detached and flags.given("attach"):
        raise InvalidArgument("conflicting options: cannot specify both --attach and --detach")
    if not is_detached:
        check_terminal(has_terminal=has_terminal, takes_input="stdin" in streams)
    keys = detach_keys(call)
    with _Reported(call.name, 125):
        container = _create(call, request)

    def start() -> None:
        with _Reported(call.name):
            call.client.post(f"/containers/{container}/start", {"detachKeys": keys})

    if is_detached:
        start()
        print(container)
        return 0
    joined = Joined(call.client, container, has_terminal=has_terminal, keys=keys)
    return joined.run(
        streams=streams,
        condition="removed" if flags.on("rm") else "next-exit",
        is_proxy=flags.on("sig-proxy"),
        start=start,
    )


def _request(call: Call) -> dict[str, Any]:
    """Return the request that the flags and the user's settings make."""
    check_trust(call)
    if not reference.is_id(call.arguments[0]):
        reference.tagged(call.arguments[0])
    proxies = call.config.proxies(call.address.text)
    request = create_request(call.flags, call.arguments[0], call.arguments[1:], call.environment, proxies)
    if call.flags.on("use-api-socket"):
        from naru.cli.api_socket import lend

        lend(call, request)
    return request


def _create(call: Call, request: dict[str, Any]) -> str:
    """Create the container, pulling the image as --pull says; return its ID."""
    flags, image = call.flags, call.arguments[0]
    pull = flags.text("pull")
    if pull not in _PULL:
        raise InvalidArgument(f'invalid pull option: \'{pull}\': must be one of "always", "missing" or "never"')
    cidfile = flags.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise InvalidArgument(
            f"container ID file found, make sure the other container isn't running or delete {cidfile}"
        )
    if flags.on("tty") and (size := terminal.size()):
        request["HostConfig"]["ConsoleSize"] = list(size)
    query = {"name": flags.text("name"), "platform": call.platform}
    if pull == "always":
        _pull(call, image)
    try:
        created = call.client.post("/containers/create", query, request)
    except NotFound as error:
        if pull != "missing" or _is_there(call, image):
            raise error from None
        complain(f"Unable to find image '{reference.tagged(image)}' locally")
        _pull(call, image)
        created = call.client.post("/containers/create", query, request)
    for warning in created.get("Warnings") or ():
        complain(f"WARNING: {warning}")
    container = str(created["Id"])
    if flags.on("use-api-socket"):
        from naru.cli.api_socket import put_credentials

        put_credentials(call, container)
    if cidfile:
        with open(cidfile, "w") as file:
            file.write(container)
    return container


def _is_there(call: Call, image: str) -> bool:
    """True if it was not the image that was not found."""
    from naru.client.connection import quoted

    try:
        call.client.get(f"/images/{quoted(image)}/json")
    except NotFound:
        return False
    return True


def _pull(call: Call, image: str) -> None:
    from naru.cli.pull import pull_image

    pull_image(call, image, platform=call.platform, is_quiet=call.flags.on("quiet"), to_stderr=True)


_USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"
COMMANDS = (
    Command(
        "container run",
        _USAGE,
        "Create a container from an image and start it. An image that is not here is pulled first.",
        run,
        RUN_FLAGS,
        count=(1, None),
        interspersed=False,
    ),
    Command(
        "container create",
        _USAGE,
        "Create a container without starting it, and print its ID.",
        create,
        CREATE_FLAGS,
        count=(1, None),
        interspersed=False,
    ),
)
