"""A walk through every operation narud serves, each with success and with an error, every answer judged on the way."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import socket
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api_client import Answer, Client, Query, read_head, receive, unframed
from api_description import UNDESCRIBED_STATUSES, Description, Operation, loads
from daemon import wait_until

# What naru refuses as a whole, in Docker's words; `server/absent.py` answers.
ABSENT = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/plugins", "/session")


class Judge:
    """A client whose every answer is held against the description of its version."""

    def __init__(self, client: Client, described: Description) -> None:
        self.client = client
        self.described = described
        self.problems: list[str] = []
        self.statuses: dict[str, set[int]] = {}
        self.unserved: set[str] = set()

    def at_least(self, version: str) -> bool:
        """True if this version knows what came with `version`."""
        return tuple(map(int, self.described.version.split("."))) >= tuple(map(int, version.split(".")))

    def __call__(
        self,
        method: str,
        path: str,
        query: Query = (),
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        lines: str = "",
        enough: Sequence[bytes] = (),
    ) -> Answer:
        """Ask and judge. `lines` names the type of each line of a stream whose answer is not described itself."""
        answer = self.client.call(method, path, query, body=body, headers=headers, enough=enough)
        self.judge(self.described.find(method, path), answer, lines)
        return answer

    def ok(self, method: str, path: str, query: Query = (), **options: Any) -> Answer:
        """Ask, judge, and insist on success."""
        answer = self(method, path, query, **options)
        assert answer.status < 400, f"{method} {path}: {answer.status} {answer.body[:300]!r}"
        return answer

    def judge(self, operation: Operation, answer: Answer, lines: str = "") -> None:
        """Hold `answer` against the description."""
        if answer.status == 501 and (not answer.body or "is not offered by this engine" in answer.message):
            self.unserved.add(operation.name)
            return
        statuses = self.statuses.setdefault(operation.name, set())
        statuses.add(answer.status)
        if lines and b'"errorDetail"' in answer.body:
            statuses.add(ERROR_IN_A_STREAM)
        found = list(self._problems(operation, answer, lines))
        self.problems += [f"{self.described.version} {operation.name} {answer.status}: {problem}" for problem in found]

    def _problems(self, operation: Operation, answer: Answer, lines: str) -> Iterator[str]:
        # Every operation may refuse a request as such; most do not say so one by one.
        is_told = answer.status in operation.responses or (operation.name, answer.status) in UNDESCRIBED_STATUSES
        if not is_told and answer.status != 400:
            yield f"an undescribed status: {answer.body[:200]!r}"
        elif answer.status in (101, 204, 304) or operation.method == "HEAD":
            if answer.body:
                yield f"a body: {answer.body[:80]!r}"
        elif answer.status >= 400:
            yield from self._error_problems(answer)
        else:
            yield from self._success_problems(operation, answer, lines)

    def _error_problems(self, answer: Answer) -> Iterator[str]:
        if answer.content_type != "application/json":
            yield f"an error as {answer.content_type}"
            return
        yield from self.described.problems(self.described.definition("ErrorResponse"), answer.json)
        if not answer.message or "Traceback" in answer.message:
            yield f"a message for nobody: {answer.message!r}"

    def _success_problems(self, operation: Operation, answer: Answer, lines: str) -> Iterator[str]:
        schema = self.described.answer_schema(operation, answer.status)
        if schema is None and not lines:
            return
        is_log = operation.template.endswith("/logs") and answer.content_type == "application/vnd.docker.raw-stream"
        if answer.content_type not in operation.produces and not is_log:
            yield f"as {answer.content_type}, not {', '.join(operation.produces)}"
        if lines:
            schema = self.described.definition(lines)
            values = answer.lines
        elif schema is None or schema["type"] == ["string"]:
            return
        else:
            values = answer.lines if operation.template in STREAMS else [loads(answer.body)]
        for value in values:
            yield from self.described.problems(schema, value)


# An error after the answer's head is the last line of a stream; it counts as what it would have been before.
ERROR_IN_A_STREAM = 500

# Operations whose answer is described by one item of what is streamed.
STREAMS = ("/events", "/containers/{id}/stats")


def tar(files: Mapping[str, bytes]) -> bytes:
    """Return an archive."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def walk(ask: Judge) -> None:
    """Walk through everything."""
    system(ask)
    images(ask)
    builds(ask)
    with made(ask, {"Cmd": ["sh", "-c", "touch /made; echo out; echo err >&2; exec sleep 1000"]}, name="walker") as id:
        container_life(ask, id)
        execs(ask, id)
        files(ask, id)
        networks(ask, id)
    created(ask)
    attachments(ask)
    volumes(ask)
    events(ask)
    prunes(ask)
    absent(ask)


@contextlib.contextmanager
def made(ask: Judge, config: dict[str, Any], *, name: str = "") -> Iterator[str]:
    """Create a container of busybox, started; remove it afterwards."""
    query = {"name": name} if name else {}
    id = ask.ok("POST", "/containers/create", query, body={"Image": "busybox"} | config).json["Id"]
    try:
        ask.ok("POST", f"/containers/{id}/start")
        yield id
    finally:
        ask("DELETE", f"/containers/{id}", {"force": True, "v": True})


def system(ask: Judge) -> None:
    assert ask.ok("GET", "/_ping").body == b"OK"
    if ask.at_least("1.40"):
        ask.ok("HEAD", "/_ping")
    ask.ok("GET", "/version")
    ask.ok("GET", "/info")
    too_old = Client(ask.client.socket_path, "1.23")
    for path in ("/_ping", "/version", "/info", "/system/df"):
        ask.judge(ask.described.operations[f"GET {path}"], too_old.call("GET", path))
    if ask.at_least("1.40"):
        ask.judge(ask.described.operations["HEAD /_ping"], too_old.call("HEAD", "/_ping"))
    ask("POST", "/auth", body={"username": "u", "password": "p", "serveraddress": "registry.invalid"})
    ask("POST", "/auth", body=b"{", headers={"Content-Type": "application/json"})


def images(ask: Judge) -> None:
    ask.ok("GET", "/images/json")
    ask.ok("GET", "/images/json", {"all": 1, "filters": {"dangling": ["true"]}, "digests": 1, "manifests": 1})
    assert ask("GET", "/images/json", {"filters": {"nonesuch": ["x"]}}).status == 400
    found = ask.ok("GET", "/images/busybox/json").json
    assert ask("GET", "/images/nonesuch/json").status == 404
    ask.ok("GET", "/images/busybox:latest/history")
    assert ask("GET", "/images/nonesuch/history").status == 404
    ask.ok("POST", "/images/busybox/tag", {"repo": "localhost:5000/walk/er", "tag": "one"})
    assert ask("POST", "/images/nonesuch/tag", {"repo": "x"}).status == 404
    assert ask("POST", "/images/busybox/tag", {"repo": "UPPER"}).status == 400
    for name in ("localhost:1/walk/er", "nonesuch"):
        ask("POST", f"/images/{name}/push", headers={"X-Registry-Auth": "e30="}, lines="PushImageInfo")
    archive = ask.ok("GET", "/images/busybox/get")
    ask("GET", "/images/nonesuch/get")
    assert ask.ok("GET", "/images/get", [("names", "busybox"), ("names", found["Id"])]).body
    ask("GET", "/images/get", [("names", "nonesuch")])
    ask.ok("DELETE", "/images/localhost:5000/walk/er:one")
    assert ask("DELETE", "/images/nonesuch").status == 404
    assert ask("DELETE", "/images/" + "x" * 300).status in (400, 404)
    tar_type = {"Content-Type": "application/x-tar"}
    ask.ok("POST", "/images/load", body=archive.body, headers=tar_type, lines="CreateImageInfo")
    ask("POST", "/images/load", body=b"no tar", headers=tar_type, lines="CreateImageInfo")
    ask("POST", "/images/create", {"fromImage": "localhost:1/nonesuch", "tag": "latest"})
    assert ask("POST", "/images/create", {"fromImage": "UPPER"}).status == 400
    query = {"fromSrc": "-", "repo": "walked", "tag": "in"}
    ask.ok("POST", "/images/create", query, body=tar({"a": b"a"}), headers=tar_type, lines="CreateImageInfo")
    ask.ok("DELETE", "/images/walked:in")
    ask("GET", "/images/search", {"term": "busybox", "limit": 1})
    ask("GET", "/images/search", {"term": "busybox", "limit": 1000})
    ask("GET", "/distribution/localhost:1/nonesuch/json") if ask.at_least("1.30") else None
    if ask.at_least("1.55"):
        ask("GET", "/images/busybox/attestations")


DOCKERFILE = b"""FROM busybox
RUN echo built
COPY f /f
LABEL a=b
USER 1
EXPOSE 80
VOLUME /v
WORKDIR /w
STOPSIGNAL SIGINT
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["/bin/sh"]
ONBUILD RUN true
HEALTHCHECK --interval=1s --timeout=1s --retries=1 --start-period=1s CMD true
"""


def builds(ask: Judge) -> None:
    context = tar({"Dockerfile": DOCKERFILE, "f": b"x"})
    tar_type = {"Content-Type": "application/x-tar"}
    ask.ok("POST", "/build", {"t": "walked:built"}, body=context, headers=tar_type, lines="BuildInfo")
    ask.ok("GET", "/images/walked:built/json")
    ask.ok("GET", "/images/walked:built/history")
    failing = tar({"Dockerfile": b"FROM busybox\nRUN exit 3\n"})
    last = ask("POST", "/build", body=failing, headers=tar_type, lines="BuildInfo").lines[-1]
    assert last["errorDetail"]["code"] == 3
    assert ask("POST", "/build", {"dockerfile": "nonesuch"}, body=context, headers=tar_type).status >= 400
    ask.ok("DELETE", "/images/walked:built")
    if ask.at_least("1.39"):
        ask.ok("POST", "/build/prune", {"all": 1})
        assert ask("POST", "/build/prune", {"filters": "x"}).status == 400


def container_life(ask: Judge, id: str) -> None:
    assert ask("POST", "/containers/create", body={"Image": "nonesuch"}).status == 404
    assert ask("POST", "/containers/create", {"name": "walker"}, body={"Image": "busybox"}).status == 409
    assert ask("POST", "/containers/create", {"name": "!"}, body={"Image": "busybox"}).status == 400
    assert ask("POST", "/containers/create", body={"Image": "busybox", "Cmd": 3}).status == 400
    assert ask("POST", f"/containers/{id}/start").status == 304
    assert ask("POST", "/containers/nonesuch/start").status == 404
    ask.ok("GET", "/containers/json", {"size": 1})
    assert ask("GET", "/containers/json", {"filters": {"nonesuch": ["x"]}}).status == 400
    ask.ok("GET", f"/containers/{id}/json", {"size": 1})
    ask.ok("GET", f"/containers/{id}/top")
    ask.ok("GET", f"/containers/{id}/top", {"ps_args": "-o pid,comm"})
    ask.ok("GET", f"/containers/{id}/changes")
    for operation in ("json", "top", "changes", "logs?stdout=1", "stats?stream=0", "export"):
        path, _, rest = f"/containers/nonesuch/{operation}".partition("?")
        assert ask("GET", path, dict(pair.split("=") for pair in rest.split("&") if pair)).status in (404, 501)
    log = ask.ok("GET", f"/containers/{id}/logs", {"stdout": 1, "stderr": 1, "follow": 1}, enough=[b"out\n", b"err\n"])
    assert ask("GET", f"/containers/{id}/logs").status == 400
    assert unframed(log.body) == {1: b"out\n", 2: b"err\n"}
    ask.ok("GET", f"/containers/{id}/stats", {"stream": 0})
    if ask.at_least("1.41"):
        ask.ok("GET", f"/containers/{id}/stats", {"stream": 0, "one-shot": 1})
    ask.ok("GET", f"/containers/{id}/stats", enough=[b"}\n"])
    ask.ok("POST", f"/containers/{id}/update", body={"Memory": 256 << 20, "MemorySwap": -1})
    assert ask("POST", f"/containers/{id}/update", body={"Memory": 1}).status == 400
    ask.ok("POST", f"/containers/{id}/rename", {"name": "walker2"})
    assert ask("POST", f"/containers/{id}/rename", {"name": "!"}).status == 400
    ask.ok("POST", f"/containers/{id}/pause")
    assert ask("POST", f"/containers/{id}/pause").status in (409, 500)
    ask.ok("GET", "/containers/json", {"filters": {"status": ["paused"]}})
    ask.ok("POST", f"/containers/{id}/unpause")
    assert ask("POST", f"/containers/{id}/unpause").status in (409, 500)
    ask.ok("POST", f"/containers/{id}/restart", {"t": 0})
    assert ask("POST", f"/containers/{id}/kill", {"signal": "SIGNONE"}).status == 400
    ask.ok("POST", f"/containers/{id}/kill", {"signal": "KILL"})
    assert ask.ok("POST", f"/containers/{id}/wait").json["StatusCode"] == 137
    assert ask("POST", f"/containers/{id}/stop", {"t": 0}).status == 304
    assert ask("POST", f"/containers/{id}/kill").status in (409, 500)
    ask.ok("GET", f"/containers/{id}/json")
    ask.ok("POST", f"/containers/{id}/start")
    ask.ok("POST", f"/containers/{id}/stop", {"t": 0})
    ask.ok("POST", f"/containers/{id}/start")
    for verb in ("restart", "stop", "kill", "pause", "unpause", "wait", "update", "rename", "resize", "attach", "exec"):
        query = {"name": "xy"} if verb == "rename" else {"h": 1, "w": 1} if verb == "resize" else {}
        body = {"Cmd": ["x"]} if verb == "exec" else {} if verb == "update" else None
        assert ask("POST", f"/containers/nonesuch/{verb}", query, body=body).status == 404, verb
    assert ask("DELETE", f"/containers/{id}").status in (400, 409)
    assert ask("DELETE", "/containers/nonesuch").status == 404
    if ask.at_least("1.42"):
        assert ask("POST", f"/containers/{id}/wait", {"condition": "nonesuch"}).status == 400
        assert ask("PUT", "/volumes/nonesuch", {"version": 1}, body={}).status >= 400


def created(ask: Judge) -> None:
    """Containers with as many fields in use as there are."""
    with made(ask, FULL, name="full") as id:
        wait_until(lambda: ask.ok("GET", f"/containers/{id}/json").json["State"]["Health"]["Log"])
        ask.ok("GET", "/containers/json")
        ask.ok("POST", f"/containers/{id}/resize", {"h": 24, "w": 80})
        ask.ok("GET", f"/containers/{id}/stats", {"stream": 0})
    with made(ask, {"Cmd": ["false"], "HostConfig": {"NetworkMode": "none"}}) as id:
        ask.ok("POST", f"/containers/{id}/wait")
        ask.ok("GET", f"/containers/{id}/json")
    refused = ask.ok("POST", "/containers/create", body={"Image": "busybox", "Cmd": ["nonesuch"]}).json["Id"]
    assert ask("POST", f"/containers/{refused}/start").status in (400, 404)
    ask.ok("GET", f"/containers/{refused}/json")
    ask.ok("DELETE", f"/containers/{refused}")


FULL: dict[str, Any] = {
    "Cmd": ["sleep", "1000"],
    "Tty": True,
    "OpenStdin": True,
    "User": "0",
    "WorkingDir": "/tmp",
    "Hostname": "full",
    "Domainname": "walk.test",
    "Env": ["A=B"],
    "Labels": {"walk": "full"},
    "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
    "Volumes": {"/anonymous": {}},
    "StopSignal": "SIGINT",
    "StopTimeout": 1,
    "Shell": ["/bin/sh", "-c"],
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
    "HostConfig": {
        "Binds": ["/tmp:/host:ro", "walk-named:/named"],
        "Mounts": [{"Type": "tmpfs", "Target": "/mt", "TmpfsOptions": {"SizeBytes": 65536}}],
        "Tmpfs": {"/t": "size=64k"},
        "Memory": 64 << 20,
        "NanoCpus": 500_000_000,
        "PidsLimit": 100,
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["MKNOD"],
        "Dns": ["192.0.2.1"],
        "ExtraHosts": ["h:192.0.2.2"],
        "GroupAdd": ["0"],
        "SecurityOpt": ["no-new-privileges"],
        "Sysctls": {"net.ipv4.ip_forward": "0"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "ShmSize": 1 << 20,
        "Init": True,
        "OomScoreAdj": 10,
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/none", "CgroupPermissions": "rwm"}],
    },
}


def execs(ask: Judge, id: str) -> None:
    start = {"Detach": False, "Tty": False}
    exec = ask.ok("POST", f"/containers/{id}/exec", body={"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True})
    exec_id = exec.json["Id"]
    assert ask("POST", f"/containers/{id}/exec", body={"Cmd": []}).status == 400
    with ask.client.hijack("POST", f"/exec/{exec_id}/start", body=start) as (answer, stream):
        ask.judge(ask.described.operations["POST /exec/{id}/start"], Answer(200, answer.headers, b""))
        assert answer.status == 101
        ask.ok("GET", f"/exec/{exec_id}/json")
        stream.sendall(b"hello")
        stream.shutdown(1)
        assert unframed(receive(stream)) == {1: b"hello"}
    ask.ok("GET", f"/exec/{exec_id}/json")
    assert ask("POST", f"/exec/{exec_id}/start", body={"Detach": True}).status == 409
    assert ask("GET", "/exec/nonesuch/json").status == 404
    assert ask("POST", "/exec/nonesuch/start", body=start).status == 404
    assert ask("POST", "/exec/nonesuch/resize", {"h": 1, "w": 1}).status == 404
    assert ask("POST", f"/exec/{exec_id}/resize", {"h": "x", "w": 1}).status == 400
    body = {"Cmd": ["sleep", "1000"], "Tty": True, "AttachStdout": True}
    tty = ask.ok("POST", f"/containers/{id}/exec", body=body).json["Id"]
    ask.ok("POST", f"/exec/{tty}/start", body={"Detach": True, "Tty": True})
    ask.ok("POST", f"/exec/{tty}/resize", {"h": 24, "w": 80})
    ask.ok("GET", f"/containers/{id}/json")


def files(ask: Judge, id: str) -> None:
    ask("HEAD", f"/containers/{id}/archive", {"path": "/etc"})
    ask("HEAD", f"/containers/{id}/archive", {"path": "/nonesuch"})
    ask("GET", f"/containers/{id}/archive", {"path": "/etc/passwd"})
    ask("GET", f"/containers/{id}/archive", {"path": "/nonesuch"})
    ask("PUT", f"/containers/{id}/archive", {"path": "/tmp"}, body=tar({"f": b"x"}))
    ask("PUT", f"/containers/{id}/archive", {"path": "/nonesuch"}, body=tar({"f": b"x"}))
    ask("GET", f"/containers/{id}/export")
    ask("POST", "/commit", {"container": id, "repo": "walked", "tag": "commit"}, body={})
    ask("POST", "/commit", {"container": "nonesuch"}, body={})
    ask("DELETE", "/images/walked:commit")


def networks(ask: Judge, id: str) -> None:
    body = {
        "Name": "walk-net",
        "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": "10.99.0.0/24", "IPRange": "10.99.0.128/25", "Gateway": "10.99.0.1"}]},
        "Labels": {"walk": "net"},
        "Options": {"com.docker.network.bridge.name": "walk0"},
        "CheckDuplicate": True,
    }
    network = ask.ok("POST", "/networks/create", body=body).json["Id"]
    assert ask("POST", "/networks/create", body=body).status in (403, 409)
    assert ask("POST", "/networks/create", body={"Name": "bad", "IPAM": {"Config": [{"Subnet": "x"}]}}).status == 400
    assert ask("POST", "/networks/create", body={"Name": "bridge"}).status == 403
    ask.ok("GET", "/networks")
    assert ask("GET", "/networks", {"filters": {"nonesuch": ["x"]}}).status == 400
    if "POST /networks/{id}/connect" not in ask.unserved:
        ask("POST", f"/networks/{network}/connect", body={"Container": id, "EndpointConfig": {"Aliases": ["w"]}})
        ask.ok("GET", f"/containers/{id}/json")
        ask.ok("GET", "/containers/json")
        ask.ok("GET", f"/networks/{network}", {"verbose": 1})
        ask("POST", f"/networks/{network}/disconnect", body={"Container": id, "Force": True})
        ask("POST", f"/networks/{network}/connect", body={"Container": "nonesuch"})
        ask("POST", f"/networks/{network}/disconnect", body={"Container": "nonesuch"})
    endpoints = {"walk-net": {"Aliases": ["w"], "IPAMConfig": {"IPv4Address": "10.99.0.7"}}}
    config = {"NetworkingConfig": {"EndpointsConfig": endpoints}, "HostConfig": {"NetworkMode": "walk-net"}}
    with made(ask, config | {"Cmd": ["sleep", "1000"]}) as member:
        ask.ok("GET", f"/containers/{member}/json")
        ask.ok("GET", "/containers/json")
        ask.ok("GET", f"/networks/{network}")
        assert ask("DELETE", f"/networks/{network}").status in (403, 409)
    ask.ok("GET", "/networks/bridge")
    assert ask("GET", "/networks/nonesuch").status == 404
    ask.ok("DELETE", f"/networks/{network}")
    assert ask("DELETE", "/networks/nonesuch").status == 404


def attachments(ask: Judge) -> None:
    config = {"Cmd": ["cat"], "OpenStdin": True, "AttachStdin": True, "AttachStdout": True}
    streams = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1}
    with made(ask, config) as id:
        for upgrade in (True, False):
            with ask.client.hijack("POST", f"/containers/{id}/attach", streams, upgrade=upgrade) as (answer, stream):
                ask.judge(ask.described.operations["POST /containers/{id}/attach"], answer)
                assert answer.status == (101 if upgrade else 200)
                stream.sendall(b"ping\n")
                assert unframed(receive(stream, 13)) == {1: b"ping\n"}
        with attached_websocket(ask, id) as status:
            assert status == 101
        ask("GET", "/containers/nonesuch/attach/ws", streams)


@contextlib.contextmanager
def attached_websocket(ask: Judge, id: str) -> Iterator[int]:
    key = base64.b64encode(os.urandom(16)).decode()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(ask.client.socket_path)
        sock.sendall(
            f"GET {ask.client.prefix}/containers/{id}/attach/ws?stream=1&stdout=1 HTTP/1.1\r\nHost: docker\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        status, headers = read_head(sock)
        ask.judge(ask.described.operations["GET /containers/{id}/attach/ws"], Answer(status, headers, b""))
        yield status


def volumes(ask: Judge) -> None:
    body = {"Name": "walk-volume", "Driver": "local", "Labels": {"walk": "volume"}}
    ask.ok("POST", "/volumes/create", body=body)
    assert ask("POST", "/volumes/create", body={"Name": "!"}).status == 400
    ask.ok("GET", "/volumes")
    assert ask("GET", "/volumes", {"filters": {"nonesuch": ["x"]}}).status == 400
    ask.ok("GET", "/volumes/walk-volume")
    assert ask("GET", "/volumes/nonesuch").status == 404
    with made(ask, {"Cmd": ["sleep", "1000"], "HostConfig": {"Binds": ["walk-volume:/v"]}}) as id:
        assert ask("DELETE", "/volumes/walk-volume").status == 409
        ask.ok("GET", f"/containers/{id}/json")
        usage = ask.ok("GET", "/system/df")
        assert usage.json
        if ask.at_least("1.52"):
            ask.ok("GET", "/system/df", {"verbose": 1})
        if ask.at_least("1.42"):
            assert ask("GET", "/system/df", {"type": "nonesuch"}).status == 400
    ask.ok("DELETE", "/volumes/walk-volume")
    assert ask("DELETE", "/volumes/nonesuch").status == 404


def events(ask: Judge) -> None:
    with made(ask, {"Cmd": ["true"]}) as id:
        ask.ok("POST", f"/containers/{id}/wait")
    ask.ok("GET", "/events", {"since": "1", "until": "2"})
    found = ask.ok("GET", "/events", {"since": "1", "filters": {"container": [id]}}, enough=[b'"destroy"']).lines
    assert [event["Action"] for event in found[:2]] == ["create", "start"] or ask.at_least("1.25")
    ask.ok("GET", "/events", {"since": "1"}, enough=[b'"Type":"network"', b'"Type":"image"', b'"Type":"volume"'])
    assert ask("GET", "/events", {"filters": "x"}).status == 400
    assert ask("GET", "/events", {"until": "tomorrow"}).status == 400


def prunes(ask: Judge) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": ["pruned:/v"]}}
    ask.ok("POST", "/containers/create", body=body)
    ask.ok("POST", "/networks/create", body={"Name": "pruned"})
    ask.ok("POST", "/images/busybox/tag", {"repo": "pruned"})
    for noun in ("containers", "networks", "volumes", "images"):
        for query in ({}, {"filters": {"label": ["nonesuch"]}}):
            ask.ok("POST", f"/{noun}/prune", query)
        assert ask("POST", f"/{noun}/prune", {"filters": {"nonesuch": ["x"]}}).status == 400
    ask("POST", "/volumes/prune", {"filters": {"all": ["true"]}})


def absent(ask: Judge) -> None:
    """What is not there says so in the described way."""
    for name, operation in ask.described.operations.items():
        if operation.template.startswith(ABSENT):
            path = operation.template.replace("{id}", "x").replace("{name}", "x")
            method = name.partition(" ")[0]
            answer = ask.client.call(method, path, {}, body={} if method == "POST" else None)
            assert answer.status >= 400 or operation.template == "/plugins", f"{name}: {answer.status}"
            assert json.loads(answer.body) == [] or answer.message, name
