"""The API client against a server that answers byte for byte what the test says."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from naru.client.address import DEFAULT_SOCKET, resolve
from naru.client.connection import Client, documents
from naru.client.http import Broken
from naru.errors import Conflict, InvalidArgument, NotFound, Unavailable

Answer = Callable[[bytes], bytes]


class Server:
    """Answers each request by `answers` in turn, on as many connections as it gets; keeps what it was sent."""

    def __init__(self, path: Path, answers: list[bytes]) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def client(self) -> Client:
        return Client(resolve(f"unix://{self.path}", {}), environment={})

    def _serve(self) -> None:
        while self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while self._answers:
                    request = _read_request(connection)
                    if not request:
                        break
                    self.requests.append(request)
                    answer = self._answers.pop(0)
                    connection.sendall(answer)
                    if b"Connection: close" in answer or b"101 UPGRADED" in answer:
                        break

    def close(self) -> None:
        self._listener.close()


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head:
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body
    lowered = head.lower()
    length = int(lowered.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in lowered else 0
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*answers: bytes) -> Server:
        servers.append(Server(tmp_path / f"{len(servers)}.sock", list(answers)))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def _json(document: object, status: str = "200 OK", extra: str = "") -> bytes:
    body = json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\nApi-Version: 1.51\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_one_connection_serves_request_after_request(serve: Callable[..., Server]) -> None:
    server = serve(_json({"Id": 1}), _json([1, 2]))
    client = server.client()
    assert client.post("/containers/create", {"name": "a b", "skipped": ""}, {"Image": "x"}) == {"Id": 1}
    assert client.get("/x", {"all": True, "filters": {"a": {"b": True}}, "t": ["1", "2"]}) == [1, 2]
    assert server.connections == 1
    assert server.requests[0].startswith(b"POST /v1.51/containers/create?name=a%20b HTTP/1.1\r\n")
    assert server.requests[1].startswith(
        b"GET /v1.51/x?all=1&filters=%7B%22a%22%3A%20%7B%22b%22%3A%20true%7D%7D&t=1&t=2 HTTP/1.1\r\n"
    )


def test_a_status_becomes_a_kind_of_error_with_the_daemons_words(serve: Callable[..., Server]) -> None:
    server = serve(
        _json({"message": "No such container: a"}, "404 Not Found"), _json({"message": "in use"}, "409 Conflict")
    )
    client = server.client()
    with pytest.raises(NotFound, match=r"^Error response from daemon: No such container: a$"):
        client.get("/containers/a/json")
    with pytest.raises(Conflict):
        client.delete("/containers/a")


def test_an_older_daemon_gets_the_same_request_in_its_own_version(serve: Callable[..., Server]) -> None:
    old = {"extra": "Api-Version: 1.41\r\n"}
    refusal = _json({"message": "client version 1.51 is too new"}, "400 Bad Request").replace(b"1.51\r\n", b"1.41\r\n")
    server = serve(refusal, _json([], **old))
    client = server.client()
    assert client.get("/containers/json") == []
    assert [request.split()[1] for request in server.requests] == [b"/v1.51/containers/json", b"/v1.41/containers/json"]
    assert client.version == "1.41"


def test_already_so_is_no_error(serve: Callable[..., Server]) -> None:
    assert serve(b"HTTP/1.1 304 Not Modified\r\n\r\n").client().post("/containers/a/start") is None


def test_documents_may_be_cut_anywhere_even_inside_a_character(serve: Callable[..., Server]) -> None:
    text = '{"status":"é"}\r\n{"n":[1,{"x":"}"}]}\n'.encode()
    pieces = [text[index : index + 1] for index in range(len(text))]
    assert list(documents(iter(pieces))) == [{"status": "é"}, {"n": [1, {"x": "}"}]}]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    server = serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert list(server.client().stream("POST", "/images/create")) == [{"status": "é"}, {"n": [1, {"x": "}"}]}]


def test_a_stream_that_ends_inside_a_message_is_broken() -> None:
    with pytest.raises(Broken):
        list(documents(iter([b'{"a":1}{"b"'])))


def test_an_upgraded_connection_keeps_what_came_with_the_head(serve: Callable[..., Server]) -> None:
    server = serve(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst bytes")
    stream, held = server.client().hijack("/containers/a/attach", {"stdout": True})
    with stream:
        while part := stream.recv(100):
            held += part
    assert held == b"first bytes"
    assert b"\r\nUpgrade: tcp\r\n" in server.requests[0]


def test_a_body_of_unknown_length_goes_in_chunks_after_a_ping(serve: Callable[..., Server]) -> None:
    server = serve(_json("OK"), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}")
    assert list(server.client().stream("POST", "/build", body=iter([b"abc", b"", b"de"]))) == [{}]
    assert server.requests[0].startswith(b"GET /_ping ")
    assert server.requests[1].endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


def test_nobody_there_is_said_with_the_address_and_revive_is_asked_once(tmp_path: Path) -> None:
    asked: list[str] = []
    address = resolve(f"unix://{tmp_path}/none", {})
    client = Client(address, revive=lambda address: asked.append(address.text), environment={})
    for _ in range(2):
        with pytest.raises(Unavailable, match="Cannot connect to the naru daemon at unix://"):
            client.get("/info")
    assert asked == [address.text]


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("", {}, (DEFAULT_SOCKET, "", 0)),
        ("", {"DOCKER_HOST": "unix:///d", "NARU_HOST": "unix:///n"}, ("/n", "", 0)),
        ("tcp://h", {}, ("", "h", 2375)),
        ("tcp://h", {"DOCKER_TLS_VERIFY": "1"}, ("", "h", 2376)),
        ("tcp://[::1]:99", {}, ("", "::1", 99)),
        ("h:1", {}, ("", "h", 1)),
    ],
)
def test_addresses(text: str, environment: dict[str, str], expected: tuple[str, str, int]) -> None:
    address = resolve(text, environment)
    assert (address.path, address.host, address.port) == expected
    assert address.is_default is (address.path == DEFAULT_SOCKET)


@pytest.mark.parametrize("text", ["foo://x", "tcp://h:x", "tcp://a:b:c"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"unable to parse docker host|invalid bind address format"):
        resolve(text, {})
