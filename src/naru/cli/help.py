"""The text of `--help`: for naru, for a noun, for a command."""

from __future__ import annotations

import os
import sys

from naru.cli import commands
from naru.cli.command import Command
from naru.cli.flags import BOOL, Flag, describe, wrap

_NAME_WIDTH = 12
HELP_ONLY_LONG = Flag("help", "", BOOL, "Print this text")


def overview(global_flags: tuple[Flag, ...]) -> str:
    """Return the text of `naru --help`."""
    rest = [name for name in commands.short_names() if name not in commands.COMMON]
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
        "Management commands:",
        *(f"  {noun:<{_NAME_WIDTH}}{about}" for noun, about in commands.NOUNS.items()),
        "",
        "Commands:",
        *_rows(rest),
        "",
        "Global options:",
        *describe(global_flags, _width()),
        "",
        "The daemon is narud; it starts by itself when root runs the first command. NARU_HOST, DOCKER_HOST or a",
        "context names another one, Docker's included.",
        "",
        "Run 'naru COMMAND --help' for more information on a command.",
    ]
    return _headed(parts)


def noun(name: str) -> str:
    """Return the text of `naru container --help` and the like."""
    lines = [f"  {verb:<{_NAME_WIDTH}}{commands.about(path)}" for verb, path in commands.verbs(name).items()]
    head = [f"Usage:  naru {name} COMMAND", "", commands.NOUNS[name], "", "Commands:"]
    return _headed([*head, *lines, "", f"Run 'naru {name} COMMAND --help' for more information on a command."])


def command(name: str, this: Command) -> str:
    """Return the text of a command's `--help`; `name` is how it was called."""
    from naru.cli.examples import EXAMPLES

    parts = [f"Usage:  naru {name} {this.usage}".rstrip(), "", *wrap(this.about, _width())]
    names = commands.names_of(this.path)
    if len(names) > 1:
        parts += ["", "Aliases:", "  " + ", ".join(f"naru {one}" for one in names)]
    if examples := EXAMPLES.get(this.path):
        lines = [(f"  naru {name} {words}".rstrip(), about) for words, about in examples]
        column = max(len(line) for line, _ in lines) + 3
        fits = column + max(len(about) for _, about in lines) <= _width()
        parts += ["", "Examples:"]
        parts += [f"{line:<{column}}{about}" if fits else f"{line}\n      {about}" for line, about in lines]
    flags = [flag for flag in this.flags if not flag.is_hidden]
    if any(flag.short == "h" for flag in flags):
        flags.append(HELP_ONLY_LONG)
    if flags:
        parts += ["", "Options:", *describe(flags, _width())]
    return _headed(parts)


def _rows(names: list[str]) -> list[str]:
    return [f"  {name:<{_NAME_WIDTH}}{commands.about(name)}" for name in names]


def _headed(lines: list[str]) -> str:
    """Return the lines as text, section titles in bold on a terminal that may have colours."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "dumb"):
        return "\n".join(lines)
    return "\n".join(f"\033[1m{line}\033[0m" if line.endswith(":") and line[:1].isalpha() else line for line in lines)


def _width() -> int:
    try:
        return max(60, min(os.get_terminal_size(1).columns, 120))
    except OSError:
        columns = os.environ.get("COLUMNS", "")
        return int(columns) if columns.isdigit() and int(columns) >= 40 else 100
