"""Log servers for tests: Debian's rsyslogd and systemd-journald, and receivers where only the protocol matters."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon import Namespace, wait_until

PRIVATE_CA = "/CN=test authority"


def need(program: str, package: str) -> str:
    """Return the program's path, or skip."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/lib/systemd")
    if found is None:
        pytest.skip(f"needs {program} (Debian: {package})")
    return found


class Rsyslog:
    """rsyslogd, listening as `inputs` say, writing what it understood of each message to a file."""

    def __init__(self, directory: Path, inputs: str, namespace: Namespace | None = None) -> None:
        self._file = directory / "received"
        self._config = directory / "rsyslog.conf"
        self._pid_file = directory / "rsyslogd.pid"
        form = (
            "%syslogfacility-text%|%syslogseverity-text%|%hostname%|%app-name%|%procid%|%msgid%|%protocol-version%|"
            "%timereported:::date-rfc3339%|%msg%\\n"
        )
        self._config.write_text(
            f'global(workDirectory="{directory}" maxMessageSize="64k")\n'
            f'template(name="plain" type="string" string="{form}")\n'
            f'{inputs}\naction(type="omfile" file="{self._file}" template="plain" flushOnTXEnd="on")\n'
        )
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [need("rsyslogd", "rsyslog"), "-n", "-f", str(self._config), "-i", str(self._pid_file)]
        self._process = subprocess.Popen(self._namespace.command(*command) if self._namespace else command)
        wait_until(self._pid_file.exists)

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._pid_file.unlink(missing_ok=True)

    def pause(self) -> None:
        """Stop reading, without closing anything."""
        assert self._process is not None
        os.kill(self._process.pid, 19)

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, 18)

    @property
    def lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    @property
    def texts(self) -> list[str]:
        return [line.rsplit("|", 1)[1].strip() for line in self.lines]


@contextlib.contextmanager
def rsyslog(directory: Path, inputs: str, namespace: Namespace | None = None) -> Iterator[Rsyslog]:
    need("rsyslogd", "rsyslog")
    server = Rsyslog(directory, inputs, namespace)
    try:
        yield server
    finally:
        server.stop()


class Journald:
    """systemd-journald, listening where the host's would, and keeping what it gets to itself."""

    SOCKET = Path("/run/systemd/journal/socket")

    def __init__(self) -> None:
        program = need("systemd-journald", "systemd")
        self._made = not self.SOCKET.parent.exists()
        self.SOCKET.parent.mkdir(parents=True, exist_ok=True)
        script = f"mkdir -p /run/log && mount -t tmpfs none /run/log && exec {program}"
        self._process = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stderr=subprocess.DEVNULL)
        wait_until(self.SOCKET.exists)

    def entries(self, **fields: str) -> list[dict[str, str]]:
        """Return the entries with `fields`, without journald's own."""
        matches = [f"{name}={value}" for name, value in fields.items()]
        command = ["journalctl", "--all", "--directory=/run/log/journal", "--output=json", "--no-pager", *matches]
        shown = run(["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt", *command])
        entries = [json.loads(line) for line in shown.splitlines()]
        return [{name: value for name, value in entry.items() if not name.startswith("_")} for entry in entries]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        for left in self.SOCKET.parent.iterdir():
            left.unlink()
        if self._made:
            self.SOCKET.parent.rmdir()


class Receiver:
    """Accepts stream connections one after another, or datagrams, and keeps what comes; `close` is as a crash."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self._listener = listener
        self._context = context
        self._connection: socket.socket | None = None
        self.data = b""
        self.messages: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            if self._listener.type == socket.SOCK_DGRAM:
                while True:
                    data, ancillary, _, _ = self._listener.recvmsg(1 << 20, socket.CMSG_SPACE(4))
                    for _level, _kind, fds in ancillary:
                        with open(int.from_bytes(fds[:4], "little"), "rb") as file:
                            file.seek(0)
                            data = file.read()
                    self.messages.append(data)
            while True:
                connection, _ = self._listener.accept()
                with contextlib.suppress(ssl.SSLError):
                    if self._context is not None:
                        connection = self._context.wrap_socket(connection, server_side=True)
                    self._connection = connection
                    while data := connection.recv(1 << 16):
                        self.data += data
                        self.took(connection, data)
                connection.close()

    def took(self, connection: socket.socket, data: bytes) -> None:
        """Do what the protocol asks for."""

    def drop(self) -> None:
        """Close the connection that is open."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()


class ForwardServer(Receiver):
    """The server's side of fluentd's forward protocol: entries are kept, chunks acknowledged."""

    def __init__(self, listener: socket.socket, *, acknowledges: bool = True) -> None:
        self.entries: list[tuple[str, Any, dict[str, str]]] = []
        self.acknowledges = acknowledges
        self.chunks = 0
        self._rest = b""
        super().__init__(listener)

    def took(self, connection: socket.socket, data: bytes) -> None:
        self._rest += data
        try:
            tag, entries, *option = msgspec.msgpack.decode(self._rest)
        except msgspec.DecodeError:
            return
        self._rest = b""
        self.entries += [(tag, time, record) for time, record in entries]
        if option:
            self.chunks += 1
            if self.acknowledges:
                connection.sendall(msgspec.msgpack.encode({"ack": option[0]["chunk"]}))

    @property
    def logs(self) -> list[str]:
        return [record["log"] for _, _, record in self.entries]


def listening(address: tuple[str, int] | str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a bound (and for streams listening) socket."""
    listener = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    if kind == socket.SOCK_STREAM:
        listener.listen()
    return listener


def certificates(directory: Path, name: str) -> tuple[Path, Path, Path]:
    """Return an authority's certificate, and a certificate and key for the host `name`."""
    need("openssl", "openssl")
    authority, certificate, key = (directory / each for each in ("ca.pem", "cert.pem", "key.pem"))

    def openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    authority_key, request, extensions = (directory / each for each in ("ca.key", "request.pem", "extensions"))
    new = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl("req", "-x509", *new, "-keyout", authority_key, "-out", authority, "-subj", PRIVATE_CA)
    openssl("req", *new[:-2], "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    extensions.write_text(f"subjectAltName=DNS:{name}\n")
    sign = ("-CA", authority, "-CAkey", authority_key, "-CAcreateserial", "-extfile", extensions, "-days", "2")
    openssl("x509", "-req", "-in", request, *sign, "-out", certificate)
    return authority, certificate, key


def run(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
