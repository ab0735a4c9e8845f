"""narud's first steps: root, a read-only interpreter, the launcher, then everything else.

The interpreter is started again from a read-only mount, because a container's init is for a moment a fork of it
(docs/adr/0002-proc-self-exe.md). The launcher is forked before anything large is imported (asyncio, HTTP, SQLite):
what it has in memory, every shim pays for (docs/adr/0001-process-model.md).
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run narud until SIGTERM; exit status 1 with one line on stderr if it cannot start."""
    # msgspec takes typing_extensions where it is there, and with it inspect, ast, tokenize: 1.3 MB for every shim.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    from naru.launcher.main import spawn
    from naru.runtime.self_exe import protect

    if not {"--help", "-h", "--version"} & set(sys.argv[1:]):
        if os.geteuid() != 0:
            sys.exit("narud: needs to be started as root")
        protect()
    _, launcher = spawn()
    del sys.modules["typing_extensions"]
    from naru.daemon.lean_aiohttp import postpone_client

    postpone_client()
    from naru.daemon.run import run
    from naru.kernel.prctl import set_name

    set_name("narud")  # a program that was executed by a descriptor is otherwise called by its number
    sys.exit(run(sys.argv[1:], launcher))


if __name__ == "__main__":
    main()
