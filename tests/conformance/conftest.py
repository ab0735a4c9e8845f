"""Engines of others with `naru-runtime` as their runtime; each apart from the host's own, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import Containerd, Dockerd, Podman
from peers import image_archive, naru_program, remove_cgroups, require, wait_until


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory with a short name, for sockets, that users of a user namespace can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="naru-conformance-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture(scope="session")
def dockerd(place: Path, busybox_root: Path) -> Iterator[Dockerd]:
    """dockerd and the containerd it starts, in a network namespace of their own, with an image `busybox`."""
    require("dockerd", "containerd", "docker", "runc", "unshare", "ip")
    cgroup = f"naru-conformance-{os.getpid()}"
    options = {
        "data-root": place / "docker-data",
        "exec-root": place / "docker-run",
        "pidfile": place / "docker.pid",
        "host": f"unix://{place}/docker.sock",
        "add-runtime": f"naru={naru_program(place)}",
        "cgroup-parent": f"/{cgroup}",
        "iptables": "false",
        "ip-masq": "false",
    }
    command = ["unshare", "--net", "--mount", "--propagation", "slave", "sh", "-c", 'ip link set lo up; exec "$@"', "-"]
    command += ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
    with open(place / "dockerd.log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    engine = Dockerd(f"unix://{place}/docker.sock", process)
    try:
        wait_until(engine.answers)
        engine("import", image_archive(busybox_root, place / "image.tar"), "busybox")
        yield engine
    finally:
        engine.close()
        remove_cgroups(cgroup)


@pytest.fixture(scope="session")
def containerd(dockerd: Dockerd, place: Path) -> Containerd:
    """The same containerd, by its own client."""
    require("ctr")
    socket = place / "docker-run/containerd/containerd.sock"
    return Containerd(socket, naru_program(place), f"naru-conformance-{os.getpid()}")


@pytest.fixture(scope="session")
def podman(place: Path, busybox_root: Path) -> Iterator[Podman]:
    """Podman with a store of its own and an image `localhost/busybox`. Skips where it cannot run its usual runtime."""
    require("podman", "runc", "unshare")
    engine = Podman(place, naru_program(place))
    engine("import", image_archive(busybox_root, place / "podman-image.tar"), "localhost/busybox")
    usual = engine.by("runc", "run", "--rm", "--network=none", "localhost/busybox", "true")
    if usual.returncode:
        pytest.skip(f"podman runs nothing with runc here: {usual.stderr.strip()}")
    yield engine
    engine("rm", "--all", "--force", "--time=0")
