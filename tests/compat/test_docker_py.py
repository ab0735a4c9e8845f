"""docker-py, unmodified: the calls its users write."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator

import docker
import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def client(narud: Daemon) -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.DockerClient(base_url=narud.host)) as opened:
        yield opened


def test_it_agrees_on_a_version_and_is_told_what_runs_here(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] >= "1.44"
    assert client.info()["OSType"] == "linux"


def test_run_returns_the_output(client: docker.DockerClient) -> None:
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"


def test_a_failing_command_raises_with_its_code_and_error_output(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ContainerError) as raised:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert raised.value.exit_status == 3
    assert raised.value.stderr == b"bad\n"


def test_what_is_not_there_is_not_found(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nonesuch")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nonesuch")


def test_a_containers_life(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "100"], detach=True, name="life", labels={"a": "b"})
    assert container.status in ("created", "running")
    assert [found.name for found in client.containers.list(filters={"label": "a=b"})] == ["life"]
    assert container.exec_run(["sh", "-c", "echo in; exit 4"]) == (4, b"in\n")
    assert container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True).output == (b"out\n", b"err\n")
    assert "sleep 100" in container.top()["Processes"][0]
    assert container.stats(stream=False)["pids_stats"]["current"] == 1
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137
    container.remove()


def test_logs_and_attach_stream(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["sh", "-c", "echo one; echo two >&2"])
    attached = container.attach(stream=True, demux=True)
    container.start()
    assert sorted(attached, key=str) == [(None, b"two\n"), (b"one\n", None)]
    container.wait()
    assert container.logs(stderr=False) == b"one\n"
    assert b"".join(container.logs(stream=True, follow=True)) in (b"one\ntwo\n", b"two\none\n")


def test_events_are_iterated(client: docker.DockerClient) -> None:
    with contextlib.closing(client.events(decode=True, filters={"type": "container"})) as events:
        client.containers.create("busybox", name="seen")
        assert next(iter(events))["Action"] == "create"


def test_an_image_is_built_saved_and_loaded(client: docker.DockerClient) -> None:
    image, lines = client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo 1 >/one\n"), tag="py:1", rm=True)
    assert any("Step 2/2" in line.get("stream", "") for line in lines)
    data = b"".join(image.save(named=True))
    client.images.remove("py:1", force=True)
    assert [loaded.tags for loaded in client.images.load(data)] == [["py:1"]]
    client.images.remove("py:1")


def test_volumes_and_networks(client: docker.DockerClient) -> None:
    volume = client.volumes.create("py-volume")
    assert [found.name for found in client.volumes.list()] == ["py-volume"]
    command = ["sh", "-c", "echo x >/data/file; cat /data/file"]
    mounts = {"py-volume": {"bind": "/data", "mode": "rw"}}
    assert client.containers.run("busybox", command, volumes=mounts, remove=True) == b"x\n"
    volume.remove()
    network = client.networks.create("py-network", driver="bridge")
    assert client.containers.run("busybox", ["true"], network="py-network", remove=True) == b""
    network.remove()


def test_archives_go_in_and_come_out(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "100"], detach=True)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        member = tarfile.TarInfo("d/file")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"data"))
    assert container.put_archive("/tmp", made.getvalue())
    pieces, status = container.get_archive("/tmp/d")
    assert (status["name"], status["linkTarget"]) == ("d", "")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        assert archive.getnames() == ["d", "d/file"]
        assert (archive.extractfile("d/file") or io.BytesIO()).read() == b"data"
    with pytest.raises(docker.errors.NotFound, match="Could not find the file /nope in container"):
        container.get_archive("/nope")
    with pytest.raises(docker.errors.NotFound):
        container.put_archive("/nope", made.getvalue())


def test_export_and_commit(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo hi >/new; sleep 100"], detach=True)
    wait_until(lambda: container.exec_run(["test", "-s", "/new"]).exit_code == 0)
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as archive:
        assert (archive.extractfile("new") or io.BytesIO()).read() == b"hi\n"
    image = container.commit("from-py", "1", message="m", author="a", changes="ENV X=y", conf={"Cmd": ["cat", "/new"]})
    assert image.tags == ["from-py:1"] and image.attrs["Author"] == "a"
    assert "X=y" in image.attrs["Config"]["Env"]
    assert client.containers.run(image, remove=True) == b"hi\n"
    client.images.remove(image.id, force=True)
