"""The `naru` program: global flags, finding the command, running it, and turning errors into words and exit codes.

Imports little and late: `naru --version` and every short command are judged by their start-up time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from naru.cli import commands
from naru.cli.command import Call, Command, complain
from naru.cli.flags import BOOL, LIST, STRING, Flag, UsageError, Values
from naru.client.address import Address, resolve, tls_files
from naru.errors import InvalidArgument, NaruError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from naru.cli.config_file import ConfigFile

GLOBAL_FLAGS = (
    Flag("config", "", STRING, "Directory of the client's settings and credentials", default="~/.docker"),
    Flag("context", "c", STRING, "Talk to the daemon of this context, whatever the environment says"),
    Flag("debug", "D", BOOL, "Show where an error comes from"),
    Flag("host", "H", LIST, "The daemon's address: unix:///path, tcp://host:port, ssh://user@host"),
    Flag("log-level", "l", STRING, "debug, info, warn, error or fatal; debug is --debug", default="info"),
    Flag("tls", "", BOOL, "Use TLS; implied by --tlsverify"),
    Flag("tlscacert", "", STRING, "Trust servers with a certificate signed by this CA"),
    Flag("tlscert", "", STRING, "Our certificate"),
    Flag("tlskey", "", STRING, "Our key"),
    Flag("tlsverify", "", BOOL, "Use TLS and verify the server"),
    Flag("version", "v", BOOL, "Print the version and quit"),
    Flag("help", "h", BOOL, "Print this text", is_hidden=True),
)
_LOG_LEVELS = ("debug", "info", "warn", "warning", "error", "fatal", "panic", "trace")
_HELP = Flag("help", "", BOOL, "Print this text", is_hidden=True)
_HELP_SHORT = Flag("help", "h", BOOL, "Print this text", is_hidden=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130


def _dispatch(given: list[str]) -> int:
    values = Values(GLOBAL_FLAGS)
    try:
        words = values.parse(given, interspersed=False)
    except UsageError as error:
        advice = "Run 'naru --help' for more information"
        complain(f"{error}\n\n{_meant(error)}Usage:  naru [OPTIONS] COMMAND [ARG...]\n\n{advice}")
        return error.exit_code
    if values.on("version"):
        print(f"naru version {__import__('naru').__version__}")
        return 0
    if words and words[0] == "help":
        values.set("help", True)
        words = words[1:]
        known = commands.find(words)
        rest = words[known[2] :] if known else words
        if rest and " ".join(words) not in commands.NOUNS:
            complain(f"unknown help topic: {' '.join(rest)}")
            return 1
    if not words:
        from naru.cli import help

        print(help.overview(GLOBAL_FLAGS))
        return 0
    found = commands.find(words)
    if found is None:
        return _not_found(words, asks_help=values.on("help"))
    path, name, used = found
    command = commands.load(path)
    try:
        return _run(command, name, words[used:], values)
    except UsageError as error:
        advice = f"{error.advice} 'naru {name} --help' for more information"
        complain(f"{error}\n\n{_meant(error)}Usage:  naru {name} {command.usage}".rstrip() + f"\n\n{advice}")
        return error.exit_code
    except NaruError as error:
        if values.on("debug") or values.text("log-level") in ("debug", "trace"):
            raise
        return report(error)


def _run(command: Command, name: str, arguments: Sequence[str], globals_: Values) -> int:
    has_h = any(flag.short == "h" for flag in command.flags)
    flags = Values([*command.flags, _HELP if has_h else _HELP_SHORT])
    rest = flags.parse(arguments, interspersed=command.interspersed)
    if flags.on("help") or globals_.on("help"):
        from naru.cli import help

        print(help.command(name, command))
        return 0
    command.check_count(name, rest)
    if globals_.text("log-level") not in _LOG_LEVELS:
        raise NaruError(f"Unable to parse logging level: {globals_.text('log-level')}")
    return command.run(make_call(command, globals_, name=name, flags=flags, arguments=rest)) or 0


def make_call(
    command: Command, globals_: Values, *, name: str = "", flags: Values | None = None, arguments: Sequence[str] = ()
) -> Call:
    """Return an invocation of `command` with the daemon and the settings that the global flags mean."""
    directory = globals_.text("config") if globals_.given("config") else os.environ.get("DOCKER_CONFIG") or "~/.docker"
    directory = os.path.expanduser(directory)
    return Call(
        command,
        name=name,
        flags=flags or Values(()),
        arguments=arguments,
        context=lambda config: _context(globals_, config),
        address=lambda context: _address(globals_, context, directory),
        config_directory=directory,
    )


def _context(globals_: Values, config: ConfigFile) -> str:
    """Return the name of the context that the flags, the environment and the user's settings mean."""
    from naru.cli import context_store

    hosts, asked = globals_.many("host"), globals_.text("context")
    if hosts and asked:
        raise InvalidArgument("conflicting options: cannot specify both --host and --context")
    return context_store.meant(asked, has_host=bool(hosts), environment=os.environ, config=config)


def _address(globals_: Values, context: str, directory: str) -> Address:
    """Return the daemon's address: of the context, or for "" and `default` of the flags and the environment."""
    if context not in ("", "default"):
        from naru.cli.context_store import ContextStore

        try:
            return ContextStore(directory).address(context)
        except NotFound as error:
            raise NotFound(f"Failed to initialize: unable to resolve docker endpoint: {error}") from None
    try:
        return _default_address(globals_)
    except InvalidArgument as error:
        raise InvalidArgument(f"Failed to initialize: unable to resolve docker endpoint: {error}") from None


def _default_address(globals_: Values) -> Address:
    hosts = globals_.many("host")
    if len(hosts) > 1:
        raise InvalidArgument("Specify only one -H")
    tls = None
    if any(globals_.given(name) for name in ("tls", "tlsverify", "tlscacert", "tlscert", "tlskey")):
        tls = tls_files(os.environ, is_verified=globals_.on("tlsverify"))
        tls.authority = globals_.text("tlscacert") or tls.authority
        tls.certificate = globals_.text("tlscert") or tls.certificate
        tls.key = globals_.text("tlskey") or tls.key
        needed = [globals_.text(name) for name in ("tlscert", "tlskey") if globals_.given(name)]
        for path in [*needed, *([tls.authority] if tls.is_verified else [])]:
            if not os.path.exists(path):
                raise InvalidArgument(f"open {path}: no such file or directory")
    return resolve(hosts[0] if hosts else "", os.environ, tls)


def report(error: NaruError) -> int:
    """Print an error with its advice; the exit code it carries, or 1."""
    complain(str(error))
    if error.hint:
        complain(f"hint: {error.hint}")
    return int(getattr(error, "exit_code", 1))


def _meant(error: UsageError) -> str:
    """Return a line for flags that are spelled much like the one that is not known."""
    return f"Did you mean: {', '.join(error.similar)}?\n\n" if error.similar else ""


def _not_found(words: Sequence[str], *, asks_help: bool) -> int:
    noun = words[0] if words[0] in commands.NOUNS else ""
    verbs = [word for word in words[1:] if word not in ("--help", "-h")]
    if noun and (not verbs or asks_help):
        from naru.cli import help

        text = help.noun(noun)
        print(text) if asks_help or len(words) > 1 else complain(text)
        return 0
    name = " ".join(words[: 2 if noun else 1])
    usage = f"Usage:  naru {noun}\n\n" if noun else ""
    close = commands.similar(words)
    suggestion = "Did you mean: " + ", ".join(f"naru {one}" for one in close) + "?\n\n" if close else ""
    complain(
        f"naru: unknown command: naru {name}\n\n{suggestion}{usage}Run 'naru {noun + ' ' if noun else ''}--help' "
        "for more information"
    )
    return 1
