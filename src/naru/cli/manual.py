"""The list of commands in docs/reference/naru.md, made from the table of commands: `./dev manual`."""

from __future__ import annotations

import sys
from pathlib import Path

from naru.cli import commands

_BEGIN = "<!-- commands: made by `./dev manual` -->\n"
_END = "<!-- end of commands -->"


def with_commands(text: str) -> str:
    """Return the page with its list of commands as it is now."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{_table()}{_END}{after}"


def _table() -> str:
    lines = ["| command | also | |", "|---|---|---|"]
    for path in sorted(commands.COMMANDS, key=lambda path: (" " not in path, path)):
        if not path.startswith("_"):
            others = ", ".join(f"`{name}`" for name in commands.names_of(path)[1:])
            lines.append(f"| `{path}` | {others} | {commands.about(path)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_commands(page.read_text()))
