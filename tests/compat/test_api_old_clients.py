"""Clients of API 1.24, the oldest version served: its requests, its answers, and today's clients made to speak it.

1.24 has no description for programs; what is expected here is what its document shows. Docker Engine API v1.24
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import docker
import pytest
from api_client import Client, unframed
from api_scenario import tar
from daemon import Daemon

pytestmark = pytest.mark.root

# The document's example of a create request, but for names of images, files and devices.
CREATE = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": True,
    "AttachStderr": True,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": ["FOO=bar", "BAZ=quux"],
    "Cmd": ["sh", "-c", "echo $FOO; cat /volumes/data/none || exec sleep 1000"],
    "Entrypoint": "",
    "Image": "busybox",
    "Labels": {"com.example.vendor": "Acme"},
    "Volumes": {"/volumes/data": {}},
    "WorkingDir": "",
    "NetworkDisabled": False,
    "MacAddress": "12:34:56:78:9a:bc",
    "ExposedPorts": {"22/tcp": {}},
    "StopSignal": "SIGKILL",
    "HostConfig": {
        "Binds": ["/tmp:/tmp:ro"],
        "Tmpfs": {"/run": "rw,noexec,nosuid,size=65536k"},
        "Links": None,
        "Memory": 0,
        "MemorySwap": 0,
        "MemoryReservation": 0,
        "KernelMemory": 0,
        "CpuPercent": 80,
        "CpuShares": 512,
        "CpuPeriod": 100000,
        "CpuQuota": 50000,
        "CpusetCpus": "0",
        "CpusetMems": "0",
        "IOMaximumBandwidth": 0,
        "IOMaximumIOps": 0,
        "OomKillDisable": False,
        "OomScoreAdj": 500,
        "PidMode": "",
        "PidsLimit": -1,
        "PortBindings": {"22/tcp": [{"HostPort": "11022"}]},
        "PublishAllPorts": False,
        "Privileged": False,
        "ReadonlyRootfs": False,
        "Dns": ["8.8.8.8"],
        "DnsOptions": [""],
        "DnsSearch": [""],
        "ExtraHosts": None,
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["MKNOD"],
        "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
        "NetworkMode": "bridge",
        "Devices": [],
        "Sysctls": {"net.ipv4.ip_forward": "1"},
        "LogConfig": {"Type": "json-file", "Config": {}},
        "SecurityOpt": [],
        "StorageOpt": {},
        "CgroupParent": "",
        "VolumeDriver": "",
        "ShmSize": 67108864,
    },
}


@pytest.fixture
def old(narud: Daemon) -> Client:
    return Client(str(narud.run / "naru.sock"), "1.24")


@pytest.fixture
def container(old: Client) -> Iterator[str]:
    """The document's container, started."""
    created = old.call("POST", "/containers/create", {"name": "old"}, body=CREATE)
    assert (created.status, created.content_type) == (201, "application/json"), created.body
    id = created.json["Id"]
    assert old.call("POST", f"/containers/{id}/start").status == 204
    yield id
    old.call("DELETE", f"/containers/{id}", {"force": 1, "v": 1})


def test_the_documents_create_request_is_done(old: Client, container: str) -> None:
    shown = old.call("GET", f"/containers/{container}/json").json
    assert shown["NetworkSettings"]["Ports"]["22/tcp"][0]["HostPort"] == "11022"
    assert shown["Config"]["MacAddress"] == shown["NetworkSettings"]["MacAddress"] == "12:34:56:78:9a:bc"
    assert shown["NetworkSettings"]["IPAddress"] == shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] != ""
    assert shown["HostConfig"]["IpcMode"] == "shareable"
    assert {point["Destination"] for point in shown["Mounts"]} == {"/tmp", "/volumes/data"}
    log = old.call("GET", f"/containers/{container}/logs", {"stdout": 1, "follow": 1}, enough=[b"bar\n"])
    assert log.content_type == "application/vnd.docker.raw-stream"
    assert unframed(log.body) == {1: b"bar\n"}


def test_a_host_config_at_start_is_refused_as_since_1_24(old: Client, container: str) -> None:
    old.call("POST", f"/containers/{container}/kill")
    refused = old.call("POST", f"/containers/{container}/start", body={"Binds": ["/tmp:/tmp"]})
    assert refused.status == 400
    assert refused.message == (
        "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
    )


@pytest.mark.parametrize("body", [b"", b"{}", b"null\n"])
def test_a_start_may_have_an_empty_body(old: Client, container: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert old.call("POST", f"/containers/{container}/start", body=body, headers=headers).status == 304


def test_wait_answers_with_the_end(old: Client, container: str) -> None:
    with old.open("POST", f"/containers/{container}/stop", {"t": 0}) as stopped:
        assert stopped.status == 204
    assert old.call("POST", f"/containers/{container}/wait", {"condition": "removed"}).json == {"StatusCode": 137}


def test_containers_are_listed_before_and_since_another(old: Client, container: str) -> None:
    later = old.call("POST", "/containers/create", body={"Image": "busybox"}).json["Id"]

    def listed(**query: object) -> list[str]:
        return [line["Id"] for line in old.call("GET", "/containers/json", query).json]

    assert listed(since="old") == [later]
    assert listed(before=later) == [container]
    assert listed() == [container]


def test_images_are_filtered_by_a_pattern(old: Client) -> None:
    assert [image["RepoTags"] for image in old.call("GET", "/images/json", {"filter": "busy*"}).json] == [
        ["busybox:latest"]
    ]
    assert old.call("GET", "/images/json", {"filter": "nonesuch"}).json == []


def test_inspect_of_an_image_has_what_it_had(old: Client) -> None:
    image = old.call("GET", "/images/busybox/json").json
    assert image["VirtualSize"] == image["Size"] and image["Parent"] == image["Container"] == ""
    assert {"Hostname", "AttachStdin", "Tty", "Env", "Cmd", "OnBuild", "Labels"} <= image["Config"].keys()


def test_events_have_their_action_at_the_top(old: Client, container: str) -> None:
    query = {"since": "1", "filters": {"container": {container: True}}}
    answer = old.call("GET", "/events", query, enough=[b'"start"'])
    assert answer.content_type == "application/json"
    first = answer.lines[0]
    assert (first["status"], first["id"], first["from"]) == ("create", container, "busybox")


def test_an_exec_is_made_started_and_looked_at(old: Client, container: str) -> None:
    made = old.call("POST", f"/containers/{container}/exec", body={"Cmd": ["echo", "hi"], "AttachStdout": True})
    id = made.json["Id"]
    with old.hijack("POST", f"/exec/{id}/start", body={"Detach": False, "Tty": False}, upgrade=False) as (
        answer,
        stream,
    ):
        assert answer.headers["content-type"] == "application/vnd.docker.raw-stream"
        assert unframed(b"".join(iter(lambda: stream.recv(4096), b""))) == {1: b"hi\n"}
    assert old.call("GET", f"/exec/{id}/json").json["ExitCode"] == 0


def test_a_build_says_no_aux(old: Client) -> None:
    context = tar({"Dockerfile": b"FROM busybox\nENV a=b\n"})
    lines = old.call("POST", "/build", {"t": "old:built"}, body=context).lines
    assert any("Successfully built" in line.get("stream", "") for line in lines)
    assert not any("aux" in line for line in lines)
    assert old.call("DELETE", "/images/old:built").status == 200


@pytest.mark.parametrize("version", ["1.23", "1.0", "0.9"])
def test_older_versions_are_refused(narud: Daemon, version: str) -> None:
    refused = Client(str(narud.run / "naru.sock"), version).call("GET", "/containers/json")
    assert (refused.status, refused.message) == (
        400,
        f"client version {version} is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version",
    )


@pytest.mark.parametrize("version", ["1.99", "2.0", "1.100"])
def test_newer_versions_are_refused(narud: Daemon, version: str) -> None:
    refused = Client(str(narud.run / "naru.sock"), version).call("GET", "/containers/json")
    assert (refused.status, refused.message) == (
        400,
        f"client version {version} is too new. Maximum supported API version is {refused.headers['api-version']}",
    )


def test_docker_py_speaking_1_24_runs_a_container(narud: Daemon) -> None:
    with contextlib.closing(docker.DockerClient(base_url=narud.host, version="1.24")) as client:
        assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
        made = client.containers.run("busybox", ["sleep", "1000"], detach=True, ports={"80/tcp": None}, name="py")
        assert made.exec_run(["echo", "in"]) == (0, b"in\n")
        made.stop(timeout=0)
        assert made.wait()["StatusCode"] == 137
        assert [found.name for found in client.containers.list(all=True)] == ["py"]


def test_the_docker_command_speaking_1_24_runs_a_container(narud: Daemon) -> None:
    env = narud.client_env | {"DOCKER_API_VERSION": "1.24"}

    def run(*arguments: str, stdin: bytes = b"") -> str:
        done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, timeout=60, env=env)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    assert run("run", "--rm", "-i", "busybox", "cat", stdin=b"through\n") == "through"
    run("run", "-d", "--name", "cli", "-v", "/tmp:/t:ro", "-p", "80", "busybox", "sleep", "1000")
    assert run("exec", "cli", "echo", "in") == "in"
    assert run("ps", "--format", "{{.Names}}") == "cli"
    assert run("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "cli").startswith("172.")
    assert "busybox" in run("images", "--format", "{{.Repository}}").split()
    run("stop", "-t", "0", "cli")
    assert run("wait", "cli") == "137"
