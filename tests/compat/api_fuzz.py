"""Requests nobody would write, made from the published description: half right, so that they get past the first check.

Everything comes from one `random.Random`, so a run can be repeated by its seed. No value names a place of the host that
is not the test's own, no registry but one that is not there, and no time to wait for.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api_client import read_head, target
from api_description import Description, Operation

HEAD_TIMEOUT_S = 30.0
BODY_TIMEOUT_S = 0.2
MAX_BODY_BYTES = 1 << 20

WORDS = (
    "", "0", "1", "-1", "a", "ab", "é", "\x00", "a/b", "..", "../..", "x" * 300, "a:b", "%s", "{}", "[", "1.5", "true",
    "0x10", "nonesuch", "busybox", "busybox:latest", "host", "none", "bridge", "default", "container:fuzz",
    "container:nonesuch", "fuzz", "fuzz-net", "fuzz-volume", "80/tcp", "80-81/udp", "70000/tcp", "127.0.0.1", "::1",
    "10.0.0.0/8", "1h", "tcp", "SIGTERM", "KILL", "9", "no", "always", "json-file", "sha256:" + "0" * 64,
    "2020-01-01T00:00:00Z", "\n", "a=b", "sleep", "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 100, 65536, 2**31, 2**63 - 1, 2**63, -(2**63), 2**70)
STRANGE = (None, 0, -1, "", "a", [], {}, True, 1.5, 1e300, 2**70, ["a"], {"a": 1}, [None], {"a": None}, [[]])
NUMERALS = ("0", "1", "-1", "", "x", "9" * 30, "1.5", " 1", "１", "0x1", "1e3", "24")
FLAGS = ("0", "1", "true", "false", "", "maybe")

# Parameters whose value could make a request wait, or go somewhere.
PARAMETERS = {
    "t": ("0", "1", "x", "", "1.5"),
    "fromImage": ("localhost:1/a", "UPPER", "a b", "x" * 300, "localhost:1/a@sha256:00", ":", "localhost:1/a:"),
    "fromSrc": ("-", "x", ""),
    "remote": ("", "x"),
    "repo": ("", "fuzzed", "UPPER", "a b", "localhost:1/fuzzed", ":"),
    "signal": ("", "KILL", "SIGTERM", "9", "0", "-1", "65", "SIGNONE", "x" * 300),
}
FILTERS = (
    "until", "label", "label!", "dangling", "all", "name", "id", "status", "health", "exited", "before", "since",
    "volume", "network", "publish", "expose", "ancestor", "reference", "driver", "type", "scope", "event", "image",
    "container", "nonesuch", "annotation",
)  # fmt: skip

# Values that a field's own check lets through, or all but lets through.
HINTS: dict[str, tuple[Any, ...]] = {
    "Image": ("busybox", "busybox:latest", "nonesuch", "UPPER", "sha256:0"),
    "Cmd": (["sleep", "1000"], ["true"], ["nonesuch"], [""], [], "sleep 1", ["/"], ["sh", "-c", "echo \udcff"]),
    "Entrypoint": ([], [""], ["sleep"], "sleep", ["/bin"], None),
    "Env": (["A=B"], ["=x"], ["A"], [""], ["PATH="], ["A=\x00"]),
    "User": ("0", "nobody", "1:1", "x:y", "-1", "99999999999", ":", "0:0:0"),
    "WorkingDir": ("/", "x", "/a/b", "/etc/passwd", "/../..", "/proc/self/fd/3"),
    "Hostname": ("h", "x" * 70, "a b", ""),
    "Volumes": ({"/v": {}}, {"v": {}}, {"": {}}, {"/": {}}, {"/proc": {}}),
    "ExposedPorts": ({"80/tcp": {}}, {"80": {}}, {"x": {}}, {"80-90/udp": {}}, {"90-80/tcp": {}}, {"0/tcp": {}}),
    "StopSignal": ("SIGKILL", "9", "SIGNONE", "RTMIN+1", "0"),
    "StopTimeout": (0, 1, -5),
    "Healthcheck": (
        {"Test": ["CMD", "true"], "Interval": 1},
        {"Test": ["NONE"]},
        {"Test": ["x"]},
        {"Test": []},
        {"Test": ["CMD-SHELL", "exit 3"], "Interval": 10**6, "Retries": -1, "Timeout": 10**9},
    ),
    "Binds": (["fuzz-volume:/v"], ["fuzz-volume:/v:ro"], [":"], ["a:b:c:d"], ["fuzz-volume:v"], ["fuzz-volume:/v:x,y"]),
    "Source": ("fuzz-volume", "", "nonesuch", "../a"),
    "Target": ("/t", "t", "/", "/proc", "", "/etc/passwd", "/t/../u"),
    "Propagation": ("rprivate", "shared", "x"),
    "Mode": (0o1777, -1, 2**31),
    "SizeBytes": (0, 4096, -1, 2**62),
    "NetworkMode": ("bridge", "host", "none", "fuzz-net", "container:fuzz", "container:", "nonesuch", "default"),
    "PortBindings": (
        {"80/tcp": [{"HostPort": ""}]},
        {"80/tcp": None},
        {"80/tcp": [{"HostIp": "x", "HostPort": "1"}]},
        {"x": []},
        {"80/tcp": [{"HostPort": "70000"}]},
        {"80/udp": [{"HostPort": "33000-33002"}]},
        {"80/sctp": [{}]},
        {"80-81/tcp": [{"HostPort": "33010-33012"}]},
        {"80/tcp": [{"HostIp": "192.0.2.1", "HostPort": "0"}]},
    ),
    "Memory": (0, 6 << 20, 64 << 20, -1, 2**62, 1),
    "MemorySwap": (0, -1, 128 << 20, 1),
    "MemorySwappiness": (0, 60, 101, -1, None),
    "PidsLimit": (0, -1, 10, 1, None),
    "CpuPeriod": (0, 100000, 1, 10**7),
    "CpuQuota": (0, 50000, 1, -1),
    "CpusetCpus": ("", "0", "0-1", "99", "x", "1-0", "0,"),
    "CpusetMems": ("", "0", "7"),
    "NanoCpus": (0, 10**8, -1, 10**12),
    "BlkioWeight": (0, 300, 1, 2000),
    "OomScoreAdj": (0, 500, -1000, 1001),
    "ShmSize": (0, -1, 1, 65536),
    "CapAdd": (["ALL"], ["x"], ["NET_ADMIN"], ["CAP_SYS_ADMIN"], [""]),
    "SecurityOpt": (
        ["seccomp=unconfined"],
        ["seccomp={}"],
        ["seccomp={"],
        ["label=x"],
        ["no-new-privileges"],
        ["apparmor=x"],
        ["x"],
        ['seccomp={"defaultAction":"SCMP_ACT_ERRNO"}'],
        ['seccomp={"defaultAction":1}'],
        ["no-new-privileges=maybe"],
    ),
    "Sysctls": (
        {"net.ipv4.ip_forward": "1"},
        {"kernel.x": "1"},
        {"net.x": "y"},
        {"": ""},
        {"net.ipv4.ip_forward": "x"},
    ),
    "Tmpfs": ({"/t": ""}, {"/t": "size=x"}, {"t": ""}, {"/": ""}, {"/t": "mode=9"}, {"/t": "bind"}),
    "Devices": ([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x"}], [{"PathOnHost": "/nonesuch"}], [{}]),
    "DeviceCgroupRules": (["c 1:3 rwm"], ["x"], ["a *:* rwm"], ["c -1:3 r"]),
    "Ulimits": ([{"Name": "nofile", "Soft": 9, "Hard": 8}], [{"Name": "x", "Soft": 1, "Hard": 1}], [{}]),
    "RestartPolicy": ({"Name": "on-failure", "MaximumRetryCount": -1}, {"Name": "always"}, {"Name": "x"}),
    "LogConfig": (
        {"Type": "none"},
        {"Type": "local"},
        {"Type": "x"},
        {"Type": "json-file", "Config": {"max-size": "x"}},
        {"Type": "json-file", "Config": {"max-file": "0"}},
        {"Type": "json-file", "Config": {"nonesuch": "1"}},
    ),
    "ExtraHosts": (["a:127.0.0.1"], ["a"], ["a:x"], ["a:host-gateway"], [":"]),
    "Dns": (["192.0.2.1"], ["x"], ["fe80::1%eth0"]),
    "Links": (["fuzz:a"], ["nonesuch:a"], [":"], ["fuzz"]),
    "VolumesFrom": (["fuzz"], ["nonesuch"], ["fuzz:x"], [":ro"]),
    "PidMode": ("", "host", "container:fuzz", "x", "container:"),
    "IpcMode": ("", "private", "shareable", "container:fuzz", "x", "none", "host"),
    "UTSMode": ("", "host", "x"),
    "CgroupParent": ("",),
    "EndpointsConfig": (
        {"fuzz-net": {"Aliases": ["a"]}},
        {"fuzz-net": {"IPAMConfig": {"IPv4Address": "10.98.0.9"}}},
        {"x": None},
        {"bridge": {"IPAMConfig": {"IPv4Address": "172.17.0.200"}}},
        {"fuzz-net": {"MacAddress": "x"}},
        {"bridge": {"MacAddress": "02:00:00:00:00:09"}},
        {"fuzz-net": {"IPAMConfig": {"IPv4Address": "x"}}},
    ),
    "Name": ("fuzzed", "fuzz", "", "a", "!", "x" * 300, "fuzz-net"),
    "Driver": ("", "bridge", "local", "x", "default", "host"),
    "Config": ([], [{"Subnet": "10.97.0.0/24"}], [{}], [{"Subnet": "x"}], [{"Gateway": "10.97.0.1"}]),
    "Subnet": ("10.97.0.0/24", "x", "::/0", "10.0.0.0/33", "fd00:97::/64", "0.0.0.0/0", "127.0.0.0/8"),
    "IPRange": ("10.97.0.0/25", "10.1.0.0/24", "x"),
    "Gateway": ("10.97.0.1", "10.1.0.1", "x", "10.97.0.0"),
    "Options": (
        {},
        {"com.docker.network.bridge.name": "x" * 20},
        {"com.docker.network.driver.mtu": "x"},
        {"type": "tmpfs"},
    ),
    "DetachKeys": ("ctrl-a", "x,y", "ctrl-", "a,"),
    "ConsoleSize": ([24, 80], [-1, 0], [2**31, 1], [1]),
}


@dataclass(frozen=True)
class Request:
    """One request, as bytes and as what a report says of it."""

    operation: str
    head: bytes
    body: bytes

    def __str__(self) -> str:
        return f"{self.head.decode(errors='replace').splitlines()[0]} {self.body[:2000]!r}"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Fuzzer:
    """Makes requests of one description; `known` names things that are there, by the template's variable."""

    def __init__(self, described: Description, seed: int, known: Mapping[str, Sequence[str]]) -> None:
        self._random = random.Random(seed)
        self._described = described
        self._known = known

    def request(self, operation: Operation, prefix: str) -> Request:
        """Return one request for `operation`."""
        path, query, headers = operation.template, [], {"Host": "docker"}
        for parameter in operation.parameters:
            match parameter["in"]:
                case "path":
                    path = path.replace(f"{{{parameter['name']}}}", self._name(operation, parameter["name"]))
                case "query" if self._chance(0.4):
                    query.append((parameter["name"], self._parameter(parameter)))
                case "header" if parameter["name"].lower() != "content-type" and self._chance(0.4):
                    headers[parameter["name"]] = "".join(it for it in self._word() if " " <= it <= "~")
        body = self._body(operation) if operation.method in ("POST", "PUT") or self._chance(0.05) else b""
        if body:
            kinds = ("application/json",) * 30 + ("application/x-tar", "text/plain", "", "application/json; charset=x")
            headers["Content-Type"] = self._random.choice(kinds)
        if body or operation.method == "POST":
            headers["Content-Length"] = str(len(body))
        if self._chance(0.1):
            headers["Upgrade"], headers["Connection"] = "tcp", "Upgrade"
        if self._chance(0.1):
            headers["Accept"] = self._random.choice(("application/json-seq", "text/html", "*/*;q=x", ","))
        where = target((prefix + path).replace("\x00", ""), query)
        lines = [f"{operation.method} {where} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return Request(operation.name, "\r\n".join([*lines, "", ""]).encode(), body)

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _word(self) -> str:
        return self._random.choice(WORDS)

    def _name(self, operation: Operation, variable: str) -> str:
        noun = operation.template.split("/")[1]
        names = self._known.get(noun, ())
        return self._random.choice(names) if names and self._chance(0.8) else self._word().replace("..", "") or "x"

    def _parameter(self, parameter: Mapping[str, Any]) -> str:
        name = parameter["name"]
        if name in PARAMETERS:
            return self._random.choice(PARAMETERS[name])
        if name == "filters":
            return self._filters()
        if "enum" in parameter and self._chance(0.6):
            return str(self._random.choice(parameter["enum"]))
        kinds = {"integer": NUMERALS, "number": NUMERALS, "boolean": FLAGS}
        return str(self._random.choice(kinds.get(parameter.get("type", ""), WORDS)))

    def _filters(self) -> str:
        if self._chance(0.15):
            return self._random.choice(
                ("", "[", "null", "[]", '{"a":1}', '{"label":"a"}', "{}", '{"":[""]}', "[" * 5000)
            )
        values: object = [self._word() for _ in range(self._random.randint(0, 2))]
        if self._chance(0.3):
            values = {self._word(): self._chance(0.8)}
        return json.dumps({self._random.choice(FILTERS): values})

    def _body(self, operation: Operation) -> bytes:
        schema = self._described.body_schema(operation)
        if schema is None or self._chance(0.06):
            return self._random.choice(
                (b"", b"{", b"[" * 20000, b"null", b'"a"', b"{}", b"\xff\xfe", b"0", b"x" * 5000)
            )
        value = self._value(schema, depth=0)
        if operation.template == "/containers/create" and isinstance(value, dict):
            if self._chance(0.9):
                value["Image"] = "busybox"
            if self._chance(0.8):
                value["Cmd"] = ["sleep", "1000"]
        if operation.template == "/networks/create" and isinstance(value, dict):
            value["Name"] = self._random.choice(("fuzzed", "fuzzed", *HINTS["Name"]))
        if operation.template == "/containers/{id}/exec" and isinstance(value, dict):
            value["Cmd"] = self._random.choice(HINTS["Cmd"])
        if operation.template == "/exec/{id}/start" and self._chance(0.5):
            value = {"Detach": self._chance(0.5)}
        body = json.dumps(value).encode()
        return body[: self._random.randint(0, len(body))] if self._chance(0.04) else body

    def _value(self, schema: Mapping[str, Any], depth: int) -> Any:
        if self._chance(0.02) or depth > 6:
            return self._random.choice(STRANGE)
        if "enum" in schema and self._chance(0.7):
            return self._random.choice(schema["enum"])
        kinds = schema.get("type", ["object"])
        kind = self._random.choice(kinds) if self._chance(0.05) else kinds[0]
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                length = max(self._random.randint(0, 2), schema.get("minItems", 0))
                return [self._value(schema.get("items", {}), depth + 1) for _ in range(length)]
            case "string":
                return self._word()
            case "integer" | "number":
                return self._random.choice(NUMBERS)
            case "boolean":
                return self._chance(0.5)
        return None

    def _field(self, key: str, schema: Mapping[str, Any], depth: int) -> Any:
        if key in HINTS and (key == "CgroupParent" or self._chance(0.75)):
            return self._random.choice(HINTS[key])
        return self._value(schema, depth + 1)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        # A few fields at a time: with all of them in use, the first that is wrong hides the rest.
        wanted = min(len(properties), self._random.choice((0, 1, 1, 2, 2, 3, 4, 6)))
        made = {
            key: self._field(key, properties[key], depth) for key in self._random.sample(sorted(properties), wanted)
        }
        if depth == 0 and "HostConfig" in properties and self._chance(0.7):
            made["HostConfig"] = self._value(properties["HostConfig"], depth + 1)
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            made |= {self._word(): self._value(more, depth + 1) for _ in range(self._random.randint(0, 2))}
        return made


def send(socket_path: str, request: Request) -> Reply:
    """Send `request` and return its answer: the head must come in time, a stream is left after its first silence."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(HEAD_TIMEOUT_S)
        sock.connect(socket_path)
        sock.sendall(request.head + request.body)
        status, headers = read_head(sock)
        length = headers.get("content-length")
        wanted = MAX_BODY_BYTES if length is None else int(length)
        has_none = request.head.startswith(b"HEAD") or status in (204, 304)
        return Reply(status, headers, b"" if has_none else _body(sock, wanted, is_known=length is not None))


def _body(sock: socket.socket, wanted: int, *, is_known: bool) -> bytes:
    sock.settimeout(HEAD_TIMEOUT_S if is_known else BODY_TIMEOUT_S)
    content = b""
    try:
        while len(content) < wanted and not content.endswith(b"0\r\n\r\n"):
            data = sock.recv(65536)
            if not data:
                break
            content += data
    except TimeoutError:
        assert not is_known, f"the body stopped after {len(content)} of {wanted} bytes"
    except ConnectionResetError:
        pass
    return content
