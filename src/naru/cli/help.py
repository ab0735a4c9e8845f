"""The text of `--help`: for naru, for a noun, for a command."""

from __future__ import annotations

import os

import naru
from naru.cli import commands
from naru.cli.command import Command
from naru.cli.flags import Flag, describe, wrap


def overview(global_flags: tuple[Flag, ...]) -> str:
    """Return the text of `naru --help`."""
    short = sorted({name for name in commands.ALIASES if " " not in name} | {"inspect", "login", "logout", "search"})
    rest = [name for name in [*short, "version"] if name not in commands.COMMON]
    parts = [
        "Usage:  naru [OPTIONS] COMMAND",
        "",
        "A whole Docker in Python: what you know of `docker`, with `naru` in its place.",
        "",
        "Try it:",
        "  naru run -d --name some-redis redis         start a service; images that cannot be pulled are built here",
        "  naru exec -it some-redis redis-cli          a second process in it",
        "  naru logs -f some-redis                     what it prints",
        "  naru ps -a                                  what there is",
        "  naru rm -f some-redis                       gone",
        "",
        "Common commands:",
        *_rows([*commands.COMMON]),
        "",
        "Management commands (naru NOUN --help lists their commands):",
        *(f"  {noun:<11} {about}" for noun, about in commands.NOUNS.items()),
        "",
        "Commands:",
        *_rows(sorted(set(rest))),
        "",
        "Global options:",
        *describe(global_flags, _width()),
        "",
        "The daemon is narud; it starts by itself when root runs the first command. NARU_HOST or DOCKER_HOST names",
        "another one, Docker's included.",
        "",
        "Run 'naru COMMAND --help' for more information on a command.",
    ]
    return "\n".join(parts)


def noun(name: str) -> str:
    """Return the text of `naru container --help` and the like."""
    verbs = [path for path in sorted(commands.COMMANDS) if path.startswith(f"{name} ")]
    lines = [f"  {path.split()[1]:<11} {commands.COMMANDS[path][1]}" for path in verbs]
    head = [f"Usage:  naru {name} COMMAND", "", commands.NOUNS[name], "", "Commands:"]
    return "\n".join([*head, *lines, "", f"Run 'naru {name} COMMAND --help' for more information on a command."])


def command(name: str, this: Command) -> str:
    """Return the text of a command's `--help`; `name` is how it was called."""
    parts = [f"Usage:  naru {name} {this.usage}".rstrip(), "", *wrap(this.about, _width())]
    names = commands.names_of(this.path)
    if len(names) > 1:
        parts += ["", "Aliases:", "  " + ", ".join(f"naru {one}" for one in names)]
    if any(not flag.is_hidden for flag in this.flags):
        parts += ["", "Options:", *describe(this.flags, _width())]
    return "\n".join(parts)


def version() -> str:
    """Return the line of `naru --version`."""
    return f"naru version {naru.__version__}"


def _rows(names: list[str]) -> list[str]:
    return [f"  {name:<11} {commands.COMMANDS[commands.ALIASES.get(name, name)][1]}" for name in names]


def _width() -> int:
    try:
        return max(60, min(os.get_terminal_size(1).columns, 120))
    except OSError:
        columns = os.environ.get("COLUMNS", "")
        return int(columns) if columns.isdigit() and int(columns) >= 40 else 100
