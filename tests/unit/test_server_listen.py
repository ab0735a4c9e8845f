"""Addresses, permissions, TLS."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from server_double import Served

import naru.cli
from naru.errors import Conflict, InvalidArgument
from naru.server.listen import sockets, unix_socket
from naru.server.tls import Tls


def test_a_unix_socket_is_closed_to_others(tmp_path: Path) -> None:
    with unix_socket(f"{tmp_path}/run/x.sock"):
        assert stat.S_IMODE(os.stat(tmp_path / "run" / "x.sock").st_mode) == 0o660


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = f"{tmp_path}/x.sock"
    unix_socket(path).close()
    with unix_socket(path) as live:
        live.listen()
        with pytest.raises(Conflict, match="another daemon answers there"):
            unix_socket(path)


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x.sock").write_text("mine")
    with pytest.raises(Conflict, match="is not a socket"):
        unix_socket(f"{tmp_path}/x.sock")
    assert (tmp_path / "x.sock").read_text() == "mine"


def test_addresses_are_read_as_docker_reads_them() -> None:
    [four] = sockets("tcp://127.0.0.1:0")
    [six] = sockets("tcp://[::1]:0")
    assert (four.family, six.family) == (socket.AF_INET, socket.AF_INET6)
    four.close()
    six.close()
    with pytest.raises(InvalidArgument, match="unknown scheme npipe"):
        sockets("npipe://x")
    with pytest.raises(InvalidArgument, match="http is not a port"):
        sockets("tcp://127.0.0.1:http")


def test_without_systemd_there_is_nothing_to_activate() -> None:
    with pytest.raises(InvalidArgument, match="no sockets found via socket activation"):
        sockets("fd://")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, and a certificate it signed for 127.0.0.1."""
    where = tmp_path_factory.mktemp("tls")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl(where, "req", "-x509", *key, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]
    openssl(where, "req", "-x509", *key, *signed, "-subj", "/CN=us", "-keyout", "key.pem", "-out", "cert.pem")
    return where


def openssl(where: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=where, check=True, capture_output=True)


def client(certificates: Path, server: Served, *, with_certificate: bool) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    if with_certificate:
        context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    plain = socket.create_connection(server.addresses[0][:2], timeout=5)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.fixture
def server(certificates: Path) -> Served:
    tls = Tls(f"{certificates}/cert.pem", f"{certificates}/key.pem", ca=f"{certificates}/ca.pem")
    served = Served(["tcp://127.0.0.1:0"], tls=tls)
    yield served
    served.close()


def test_a_client_without_our_cas_certificate_gets_nothing(certificates: Path, server: Served) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)), client(certificates, server, with_certificate=False) as sock:
        sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        if not sock.recv(100):
            raise ConnectionError


def attach(sock: ssl.SSLSocket) -> None:
    sock.sendall(
        b"POST /containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )


def test_a_hijacked_tls_connection_carries_both_ways(certificates: Path, server: Served) -> None:
    server.engine.tty = True
    with client(certificates, server, with_certificate=True) as sock:
        attach(sock)
        assert read_exactly(sock, len(RAW_HEAD)) == RAW_HEAD
        sock.sendall(bytes(range(256)) * 256)
        assert read_exactly(sock, 65536) == bytes(range(256)) * 256


@pytest.mark.parametrize(
    "program",
    [["docker"], [sys.executable, "-I", "-S", f"{os.path.dirname(naru.cli.__file__)}/__main__.py"]],
    ids=["docker", "naru"],
)
def test_the_end_of_a_tls_clients_input_is_not_the_end_of_its_output(
    certificates: Path, server: Served, program: list[str]
) -> None:
    if shutil.which(program[0]) is None:
        pytest.skip("needs the docker CLI")
    host, port = server.addresses[0][:2]
    tls = [
        f"--tls{name}={certificates}/{file}.pem" for name, file in (("cacert", "ca"), ("cert", "cert"), ("key", "key"))
    ]
    done = subprocess.run(
        [*program, "-H", f"tcp://{host}:{port}", "--tlsverify", *tls, "exec", "-i", "web", "cat"],
        input=b"x" * 20_000_000,
        capture_output=True,
        timeout=20,
    )
    assert (done.stdout, done.stderr) == (b"ready\n" + b"x" * 20_000_000, b"")


RAW_HEAD = (
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello\n"
)


def read_exactly(sock: ssl.SSLSocket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        chunk = sock.recv(65536)
        assert chunk, "closed early"
        received += chunk
    return received
