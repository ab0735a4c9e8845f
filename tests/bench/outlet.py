"""A way out of a network namespace for plain HTTP: to the host's proxy if it has one, else to a package mirror.

Both of what is compared go through it. A mirror is asked as a proxy would be, which RFC 9112 (3.2.2) obliges servers
to understand.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

from naru.kernel.process import CLONE_NEWNET, setns
from naru.library.apt_config import read_apt_config


def mirror() -> str:
    """Return the package mirror that this host's apt, or NARU_DEBIAN_MIRROR, names."""
    return read_apt_config(os.environ).mirrors("bookworm")[0].uri


class Outlet:
    """Listens on the loopback interface of the namespace of process `pid`; `proxy` is its address for http_proxy."""

    def __init__(self, pid: int) -> None:
        self._listener = self._listen(pid)
        host, port = self._listener.getsockname()
        self.proxy = f"http://{host}:{port}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _listen(self, pid: int) -> socket.socket:
        made: list[socket.socket] = []

        def inside() -> None:
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            setns(namespace, CLONE_NEWNET)  # this thread alone, which ends
            os.close(namespace)
            made.append(socket.create_server(("127.0.0.1", 0)))

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        return made[0]

    def _serve(self) -> None:
        target = urlsplit(os.environ.get("http_proxy") or mirror())
        with suppress(OSError):  # closed
            while True:
                inner, _ = self._listener.accept()
                try:
                    outer = socket.create_connection((target.hostname or "", target.port or 80), timeout=30)
                except OSError:
                    inner.close()
                    continue
                outer.settimeout(None)
                for source, sink in ((inner, outer), (outer, inner)):
                    threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 18):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
