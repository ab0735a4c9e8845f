"""Requests as clients send them, against a real server over an engine in memory."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_double import FULL_ID, Served, frame, unix_server

from naru.api.container import ContainerWaitResponse
from naru.api.system import AuthConfig
from naru.server.follow import MAX_WAITING_EVENTS

DEADLINE_S = 5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    served = unix_server(tmp_path)
    yield served
    served.engine.may_answer.set()
    served.close()


def connect(server: Served) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE_S)
    sock.connect(server.addresses[0])
    return sock


class Client(http.client.HTTPConnection):
    def __init__(self, server: Served) -> None:
        super().__init__("docker")
        self._server = server

    def connect(self) -> None:
        self.sock = connect(self._server)


def call(server: Served, method: str, path: str, body: object = None, **headers: str) -> http.client.HTTPResponse:
    client = Client(server)
    if isinstance(body, dict):
        body, headers = json.dumps(body), {"Content-Type": "application/json", **headers}
    client.request(method, path, body, headers)
    return client.getresponse()


def message(response: http.client.HTTPResponse) -> str:
    return json.loads(response.read())["message"]


def send(server: Served, text: str) -> socket.socket:
    sock = connect(server)
    sock.sendall(text.replace("\n", "\r\n").encode())
    return sock


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        chunk = sock.recv(65536)
        assert chunk, f"closed after {data!r}"
        data += chunk
    return data


# --- plain requests ---------------------------------------------------------------------------------------------


def test_ping_tells_everything_a_client_negotiates_with(server: Served) -> None:
    response = call(server, "GET", "/_ping")
    assert (response.status, response.read()) == (200, b"OK")
    wanted = {"Api-Version": "1.55", "Builder-Version": "1", "Ostype": "linux", "Docker-Experimental": "false"}
    assert {name: response.getheader(name) for name in wanted} == wanted
    assert call(server, "HEAD", "/v1.40/_ping").status == 200


def test_paths_work_with_and_without_a_version(server: Served) -> None:
    assert json.loads(call(server, "GET", "/containers/json").read())[0]["Id"] == FULL_ID
    assert json.loads(call(server, "GET", "/v1.24/containers/json").read())[0]["Id"] == FULL_ID


def test_query_parameters_reach_the_engine_as_values(server: Served) -> None:
    call(server, "GET", '/containers/json?all=1&limit=3&size=false&filters={"label":{"a=b":true,"no":false}}').read()
    assert server.engine.calls == [("container_list", True, 3, False, {"label": ["a=b"]})]


def test_errors_have_a_message_and_the_status_of_their_kind(server: Served) -> None:
    missing = call(server, "GET", "/v1.50/containers/nope/json")
    assert (missing.status, message(missing)) == (404, "No such container: nope")
    assert call(server, "POST", "/containers/web/kill").status == 409
    assert call(server, "POST", "/containers/web/resize?h=x&w=1").status == 400


def test_already_started_is_an_empty_304(server: Served) -> None:
    response = call(server, "POST", "/containers/web/start")
    assert (response.status, response.read()) == (304, b"")


def test_an_unknown_path_or_method_is_page_not_found(server: Served) -> None:
    for method, path in (("GET", "/nothing"), ("PATCH", "/containers/json"), ("GET", "/v1.50/")):
        response = call(server, method, path)
        assert (response.status, message(response)) == (404, "page not found")


def test_a_version_out_of_range_is_refused(server: Served) -> None:
    response = call(server, "GET", "/v1.99/info")
    assert response.status == 400
    assert message(response) == "client version 1.99 is too new. Maximum supported API version is 1.55"


def test_a_verb_the_engine_does_not_have_is_not_implemented(server: Served) -> None:
    assert call(server, "GET", "/networks").status == 501


def test_we_are_no_swarm_and_say_so(server: Served) -> None:
    response = call(server, "GET", "/v1.41/services")
    assert response.status == 503
    assert "This node is not a swarm manager" in message(response)


def test_a_body_must_be_json_and_say_so(server: Served) -> None:
    assert call(server, "POST", "/containers/create", "{", **{"Content-Type": "application/json"}).status == 400
    assert call(server, "POST", "/containers/create", "{}", **{"Content-Type": "text/plain"}).status == 400
    assert call(server, "POST", "/containers/create").status == 400


def test_a_body_without_end_is_refused_at_its_bound(server: Served) -> None:
    body = b'{"Image":"' + b"x" * (9 << 20) + b'"}'
    assert call(server, "POST", "/containers/create", body, **{"Content-Type": "application/json"}).status == 400


def test_an_image_name_may_have_slashes_and_ports(server: Served) -> None:
    response = call(server, "GET", "/images/localhost:5000/team/web:1/json")
    assert message(response) == "No such image: localhost:5000/team/web:1"


def test_long_calls_do_not_make_short_ones_wait(server: Served) -> None:
    stops = [Client(server) for _ in range(40)]
    for client in stops:
        client.request("POST", "/containers/web/stop")
    assert call(server, "GET", "/version").status == 200
    server.engine.may_answer.set()
    assert {client.getresponse().status for client in stops} == {204}


# --- streams ----------------------------------------------------------------------------------------------------


def test_wait_sends_its_head_at_once_and_its_body_when_the_container_exits(server: Served) -> None:
    sock = send(server, "POST /containers/web/wait?condition=next-exit HTTP/1.1\nHost: x\n\n")
    assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    server.engine.waiting.set_result(ContainerWaitResponse(status_code=137))
    assert b'{"StatusCode":137}' in read_until(sock, b"0\r\n\r\n")


def test_a_pull_sends_progress_lines_and_its_credentials_reach_the_engine(server: Served) -> None:
    token = base64.urlsafe_b64encode(b'{"username":"me","password":"?>"}').decode()
    response = call(server, "POST", "/images/create?fromImage=busybox&tag=1", **{"X-Registry-Auth": token})
    lines = [json.loads(line) for line in response.read().splitlines()]
    assert lines[0] == {"status": "Pulling fs layer", "id": "abc", "progressDetail": {}}
    assert server.engine.calls == [("image_create", "busybox", "1", "", AuthConfig(username="me", password="?>"))]


def test_a_pull_that_fails_first_has_a_status_and_later_a_last_line(server: Served) -> None:
    assert call(server, "POST", "/images/create?fromImage=nope").status == 404
    late = call(server, "POST", "/images/create?fromImage=busybox&tag=broken")
    assert late.status == 200
    assert json.loads(late.read().splitlines()[-1]) == {
        "errorDetail": {"message": "unexpected end of layer"},
        "error": "unexpected end of layer",
    }


def test_a_client_that_leaves_ends_its_pull(server: Served) -> None:
    sock = send(server, "POST /images/create?fromImage=busybox&tag=endless HTTP/1.1\nHost: x\n\n")
    sock.recv(1000)
    sock.close()
    assert server.engine.pull_was_cut.wait(DEADLINE_S)


def test_a_large_chunked_upload_reaches_the_engine_whole(server: Served) -> None:
    client = Client(server)
    chunks = (bytes(1 << 20) for _ in range(64))
    client.request("POST", "/images/load?quiet=1", chunks)
    assert b"Loaded image" in client.getresponse().read()
    assert server.engine.loaded == 64 << 20


def test_an_archive_comes_out_with_its_stat_and_goes_in(server: Served) -> None:
    response = call(server, "GET", "/containers/web/archive?path=/etc")
    stat = json.loads(base64.b64decode(response.getheader("X-Docker-Container-Path-Stat")))
    assert (stat["name"], stat["mode"]) == ("etc", 0x800001ED)
    body = response.read()
    assert tarfile.open(fileobj=io.BytesIO(body)).getnames() == ["file0", "file1", "file2"]
    assert call(server, "PUT", "/containers/web/archive?path=/tmp", body).status == 200
    assert server.engine.calls == [("put", "/tmp", ["file0", "file1", "file2"])]


def test_an_archive_that_breaks_half_way_never_looks_complete(server: Served) -> None:
    response = call(server, "GET", "/containers/web/archive?path=/broken")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()


def test_followed_logs_come_as_they_are_written_and_end(server: Served) -> None:
    sock = send(server, "GET /v1.50/containers/web/logs?follow=1&stdout=1&stderr=1&tail=all HTTP/1.1\nHost: x\n\n")
    head = read_until(sock, frame(1, b"first\n") + b"\r\n")
    assert b"application/vnd.docker.multiplexed-stream" in head
    server.engine.log.grow()
    assert frame(2, b"second\n") in read_until(sock, b"0\r\n\r\n")
    assert server.engine.log.is_closed.wait(DEADLINE_S)


def test_a_client_that_leaves_closes_its_log_and_its_events(server: Served) -> None:
    logs = send(server, "GET /containers/web/logs?follow=1&stdout=1 HTTP/1.1\nHost: x\n\n")
    events = send(server, "GET /events HTTP/1.1\nHost: x\n\n")
    read_until(logs, b"first\n\r\n")
    read_until(events, b"\r\n\r\n")
    logs.close()
    events.close()
    assert server.engine.log.is_closed.wait(DEADLINE_S)
    assert server.engine.subscription.is_closed.wait(DEADLINE_S)


def test_events_flush_their_head_and_come_one_a_line(server: Served) -> None:
    sock = send(server, 'GET /events?filters={"type":["container"]} HTTP/1.1\nHost: x\n\n')
    read_until(sock, b"\r\n\r\n")
    server.engine.happen("die")
    line = json.loads(read_until(sock, b"\n\r\n").split(b"\r\n")[1])
    assert (line["Action"], line["Actor"]["ID"]) == ("die", FULL_ID)


def test_a_listener_that_does_not_read_is_cut_off_and_holds_no_more_than_its_share(server: Served) -> None:
    sock = send(server, "GET /events HTTP/1.1\nHost: x\n\n")
    read_until(sock, b"\r\n\r\n")
    for _ in range(4 * MAX_WAITING_EVENTS):
        server.engine.happen("die")
    received = bytearray()
    while not received.endswith(b"0\r\n\r\n"):
        received += sock.recv(1 << 16)
    assert received.count(b'"die"') < 2 * MAX_WAITING_EVENTS
    assert server.engine.subscription.is_closed.wait(DEADLINE_S)


def test_events_end_at_until(server: Served) -> None:
    response = call(server, "GET", f"/events?since=1&until={time.time() - 1}")
    assert (response.status, response.read()) == (200, b"")


# --- hijacked connections -----------------------------------------------------------------------------------------


def exec_start(server: Served, *, tty: bool = False, cmd: str = "cat") -> socket.socket:
    created = call(server, "POST", "/containers/web/exec", {"Cmd": [cmd], "Tty": tty, "AttachStdout": True})
    assert json.loads(created.read()) == {"Id": "e1"}
    body = json.dumps({"Detach": False, "Tty": tty}).encode()
    sock = connect(server)
    sock.sendall(
        b"POST /v1.50/exec/e1/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    return sock


def test_exec_switches_to_a_multiplexed_stream(server: Served) -> None:
    sock = exec_start(server)
    head, _, rest = read_until(sock, b"ready\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream")
    assert rest == frame(1, b"ready\n")
    sock.sendall(b"hello")
    assert read_until(sock, b"hello") == frame(1, b"hello")


def test_exec_with_a_terminal_is_raw(server: Served) -> None:
    sock = exec_start(server, tty=True)
    head, _, rest = read_until(sock, b"ready\n").partition(b"\r\n\r\n")
    assert b"application/vnd.docker.raw-stream" in head
    assert rest == b"ready\n"


def test_input_that_comes_before_our_answer_is_not_lost(server: Served) -> None:
    engine, inspect = server.engine, server.engine.exec_inspect
    is_asked = threading.Event()
    engine.exec_inspect = lambda id: (is_asked.set(), engine.may_answer.wait(DEADLINE_S), inspect(id))[2]
    sock = exec_start(server)
    assert is_asked.wait(DEADLINE_S)
    sock.sendall(b"early")
    engine.may_answer.set()
    assert read_until(sock, b"early").endswith(frame(1, b"early"))


def test_a_client_may_close_its_input_and_still_read_the_output(server: Served) -> None:
    sock = exec_start(server)
    read_until(sock, b"ready\n")
    sock.sendall(b"last words")
    sock.shutdown(socket.SHUT_WR)
    assert read_until(sock, b"words") == frame(1, b"last words")
    assert sock.recv(1) == b""


def test_a_command_that_cannot_start_is_told_on_the_stream(server: Served) -> None:
    sock = exec_start(server, cmd="missing")
    assert b'exec: "missing": executable file not found in $PATH\r\n' in read_until(sock, b"$PATH\r\n")
    assert sock.recv(1) == b""


def test_an_unknown_exec_is_404_and_no_stream(server: Served) -> None:
    response = call(server, "POST", "/exec/nope/start", {"Detach": False}, Connection="Upgrade", Upgrade="tcp")
    assert (response.status, message(response)) == (404, "No such exec instance: nope")


def test_attach_without_upgrade_answers_200_and_streams(server: Served) -> None:
    sock = send(server, "POST /containers/web/attach?stream=1&stdout=1&stdin=1&detachKeys=ctrl-x HTTP/1.1\nHost: x\n\n")
    head, _, rest = read_until(sock, b"hello\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert rest == frame(1, b"hello\n")
    options = server.engine.calls[0][1]
    assert (options.stdin, options.stderr, options.detach_keys) == (True, False, "ctrl-x")


def test_a_start_waits_for_the_attach_that_came_before_it(server: Served) -> None:
    engine, attach = server.engine, server.engine.container_attach
    engine.is_running = False
    is_started = threading.Event()
    engine.container_attach = lambda *given: (is_started.wait(0.1), attach(*given))
    sock = send(
        server, "POST /containers/web/attach?stream=1&stdout=1 HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: tcp\n\n"
    )
    read_until(sock, b"\r\n\r\n")
    assert call(server, "POST", "/containers/web/start").status == 204
    assert read_until(sock, b"hello\n") == frame(1, b"hello\n")


def test_a_websocket_carries_the_same_stream(server: Served) -> None:
    server.engine.tty = True
    sock = send(
        server,
        "GET /containers/web/attach/ws?stream=1&stdout=1&stdin=1 HTTP/1.1\nHost: x\nConnection: Upgrade\n"
        "Upgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n",
    )
    assert read_until(sock, b"\x82\x06hello\n").startswith(b"HTTP/1.1 101")
    sock.sendall(struct.pack("!BB4s2s", 0x81, 0x82, bytes(4), b"hi"))
    assert read_until(sock, b"hi") == b"\x82\x02hi"


# --- what no client of ours sends -------------------------------------------------------------------------------


def test_a_name_with_a_line_end_is_answered_as_any_other(server: Served) -> None:
    response = call(server, "GET", "/v1.44/containers/a%0Ab/json")
    assert (response.status, message(response)) == (404, "No such container: a\nb")


def test_a_body_cut_in_a_null_is_no_json(server: Served) -> None:
    headers = {"Content-Type": "application/json"}
    response = call(server, "POST", "/v1.44/containers/create", b'{"Image":"x","User":null,"Cmd":["', **headers)
    assert response.status == 400
    assert message(response).startswith("invalid JSON in request: ")


def test_a_websocket_needs_its_handshake(server: Served) -> None:
    assert call(server, "GET", "/v1.44/containers/web/attach/ws").status == 400


def test_build_arguments_and_credentials_may_be_long(server: Served) -> None:
    long = "x" * 200_000
    body = io.BytesIO()
    tarfile.open(fileobj=body, mode="w").close()
    response = call(server, "POST", f"/v1.44/build?t={long}", body.getvalue(), **{"X-Registry-Config": long})
    assert response.status == 200


def test_a_verb_is_carried_out_though_the_client_has_gone(server: Served) -> None:
    with send(server, "POST /v1.44/containers/web/resize?h=1&w=2 HTTP/1.1\nHost: x\nContent-Length: 0\n\n"):
        assert call(server, "GET", "/_ping").status == 200
    deadline = time.monotonic() + DEADLINE_S
    while ("resize", 1, 2) not in server.engine.calls:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_events_come_in_the_form_that_is_asked_for(server: Served) -> None:
    for version, accepted, given in (
        ("1.51", "*/*", "application/json"),
        ("1.52", "*/*", "application/jsonl"),
        ("1.52", "application/json-seq", "application/json-seq"),
        ("1.51", "text/html, application/x-ndjson;q=1", "application/x-ndjson"),
    ):
        response = call(server, "GET", f"/v{version}/events", Accept=accepted)
        assert response.headers["Content-Type"] == given
        server.engine.happen("die")
        line = response.readline()
        assert line.startswith(b"\x1e") is (given == "application/json-seq")
        assert ("status" in json.loads(line.lstrip(b"\x1e"))) is (version == "1.51")
        response.close()
