"""What a command is, and what it gets to run with."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from naru.cli.flags import Flag, UsageError, Values
from naru.client.address import Address
from naru.errors import NaruError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from naru.cli.config_file import ConfigFile
    from naru.client.connection import Client


class Call:
    """One invocation: the command, its flags and arguments, and the daemon, dialled when first used."""

    def __init__(
        self,
        command: Command,
        *,
        name: str,
        flags: Values,
        arguments: Sequence[str],
        context: Callable[[ConfigFile], str],
        address: Callable[[str], Address],
        config_directory: str,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.command = command
        self.name = name
        self.flags = flags
        self.arguments = list(arguments)
        self.environment = environment
        self.config_directory = config_directory
        self._context = context
        self._address = address
        self._client: Client | None = None
        self._config: ConfigFile | None = None

    @property
    def context(self) -> str:
        """The name of the context in use."""
        return self._context(self.config)

    @property
    def address(self) -> Address:
        """Where the daemon is. Raises if the context does not exist or names no address."""
        return self._address(self.context)

    @property
    def default_address(self) -> Address:
        """Where the daemon of the default context is: by --host and the environment."""
        return self._address("")

    @property
    def platform(self) -> str:
        """The platform of --platform, else of DOCKER_DEFAULT_PLATFORM; "" for the daemon's own."""
        return self.flags.text("platform") or self.environment.get("DOCKER_DEFAULT_PLATFORM", "")

    @property
    def client(self) -> Client:
        """The API client; starts our own daemon if that is addressed and does not run."""
        if self._client is None:
            self._client = self.connect(revive=_revive)
        return self._client

    def connect(self, *, revive: Callable[[Address], None] | None = None) -> Client:
        """Return a further API client, for a stream beside others."""
        from naru.client.connection import Client

        headers = self.config.headers()
        if custom := self.environment.get("DOCKER_CUSTOM_HEADERS", ""):
            from naru.cli.environment import pairs
            from naru.cli.flags import comma_separated

            headers = pairs(comma_separated(custom))  # in place of the settings', as in Docker's CLI
        return Client(self.address, revive=revive, environment=self.environment, headers=headers)

    @property
    def config(self) -> ConfigFile:
        """The user's settings and credentials."""
        if self._config is None:
            from naru.cli.config_file import ConfigFile

            self._config = ConfigFile(self.config_directory)
        return self._config


def _revive(address: Address) -> None:
    from naru.cli.start_daemon import ensure_running

    ensure_running(address)


class Command:
    """A command of the CLI. `path` is its management form, `usage` what follows it on the line.

    `count` is the least and the largest number of arguments (None: no limit). `run` returns the exit code.
    """

    __slots__ = ("about", "count", "flags", "interspersed", "path", "run", "usage")

    def __init__(
        self,
        path: str,
        usage: str,
        about: str,
        run: Callable[[Call], int | None],
        flags: Sequence[Flag] = (),
        *,
        count: tuple[int, int | None] = (0, 0),
        interspersed: bool = True,
    ) -> None:
        self.path = path
        self.usage = usage
        self.about = about
        self.run = run
        self.flags = flags
        self.count = count
        self.interspersed = interspersed

    def check_count(self, name: str, arguments: Sequence[str]) -> None:
        """Raise UsageError unless the number of arguments is right."""
        least, most = self.count
        got = len(arguments)
        if least <= got and (most is None or got <= most):
            return
        plural = "" if (least if got < least else most) == 1 else "s"
        if most == 0:
            raise UsageError(f"naru: 'naru {name}' accepts no arguments", exit_code=1)
        if least == most:
            raise UsageError(f"naru: 'naru {name}' requires {least} argument{plural}", exit_code=1)
        if got < least and most is not None:
            raise UsageError(f"naru: 'naru {name}' requires at least {least} and at most {most} arguments", exit_code=1)
        if got < least:
            raise UsageError(
                f"naru: 'naru {name}' requires at least {least} argument{plural}", exit_code=1, advice="See"
            )
        raise UsageError(f"naru: 'naru {name}' requires at most {most} argument{plural}", exit_code=1)


def complain(text: str) -> None:
    """Print a line on stderr, after what is already on stdout."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def each(call: Call, act: Callable[[str], object], *, echo: bool = True, forgive: type[NaruError] | None = None) -> int:
    """Do `act` for every argument, print the name of each that worked, and report the failures; the exit code.

    `forgive`: a kind of error that is reported and counts as no failure.
    """
    failed: list[str] = []
    for argument in call.arguments:
        try:
            act(argument)
        except NaruError as error:
            if forgive is not None and isinstance(error, forgive):
                complain(str(error))
            else:
                failed.append(str(error))
        else:
            if echo:
                print(argument, flush=True)
    for text in failed:
        complain(text)
    return 1 if failed else 0
