"""`naru system dial-stdio`: the daemon's connection on standard input and output, for `-H ssh://` of other machines."""

from __future__ import annotations

import os
import socket
import threading

from naru.cli.command import Call, Command
from naru.cli.session import write_all
from naru.client.connection import dial

_CHUNK_BYTES = 64 << 10


def run(call: Call) -> None:
    """Carry bytes both ways until the daemon closes; the end of our input ends its."""
    call.client.ping()  # starts our daemon if it is that, and tells what is wrong in words
    with dial(call.address) as connection:
        # A thread for each way: who waits to send must not keep the other side waiting to be read
        threading.Thread(target=_send, args=(connection,), daemon=True).start()
        while data := connection.recv(_CHUNK_BYTES):
            write_all(1, data)


def _send(connection: socket.socket) -> None:
    try:
        while data := os.read(0, _CHUNK_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the daemon takes no more; what it says to that is on its way


COMMANDS = (
    Command(
        "system dial-stdio",
        "",
        "Join standard input and output to the daemon's connection. `-H ssh://` runs this on the other machine; by"
        " hand it is of little use.",
        run,
    ),
)
