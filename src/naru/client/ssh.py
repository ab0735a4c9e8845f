"""A connection to a daemon of another machine: the ssh program here, `system dial-stdio` of a docker CLI there.

Keys, host keys, jump hosts and agents are ssh's business: whatever `ssh HOST` does, this does. Imported where an
address asks for it only.
"""

from __future__ import annotations

import shlex
import socket
import subprocess

from naru.client.address import Ssh
from naru.errors import Unavailable

_PATIENCE_S = 30
_CLIENTS = ("naru", "docker")


def command(remote: Ssh) -> list[str]:
    """Return the command line. Over there our own CLI is asked if it is installed, else Docker's."""
    words = ["ssh", "-o", f"ConnectTimeout={_PATIENCE_S}", "-T"]
    words += ["-l", remote.user] if remote.user else []
    words += ["-p", remote.port] if remote.port else []
    return [*words, "--", remote.host, _remote_command(remote.path)]


def _remote_command(path: str) -> str:
    options = f" --host {shlex.quote(f'unix://{path}')}" if path else ""
    script = [f"command -v {one} >/dev/null && exec {one}{options} system dial-stdio" for one in _CLIENTS]
    script += ["echo neither naru nor docker is installed >&2", "exit 127"]
    return f"sh -c {shlex.quote('; '.join(script))}"


def dial(remote: Ssh) -> socket.socket:
    """Return a socket whose other end is ssh's standard input and output. Unavailable: there is no ssh here."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            # A session of its own: an interrupt at the terminal is for the container, not for the connection
            subprocess.Popen(command(remote), stdin=theirs.fileno(), stdout=theirs.fileno(), start_new_session=True)
        except OSError as error:
            ours.close()
            raise Unavailable(f"error during connect: ssh: {error.strerror}") from error
    return ours


def reason(remote: Ssh) -> str:
    """Say why nothing came; ssh itself has said more on stderr."""
    return f"ssh to {remote.host} ended; naru or docker must be installed there and be allowed to reach its daemon"
