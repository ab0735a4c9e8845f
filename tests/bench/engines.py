"""The engines side by side: each with its own daemons, roots, sockets and namespaces, driven by the same docker CLI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from tests.bench.outlet import Outlet
from tests.bench.processes import Process, descendants, processes
from tests.bench.scratch import IMAGE, Missing, Namespaces, end, wait_for

TOP = Path(__file__).resolve().parents[2]
CGROUP_PARENT = "naru-bench"


def find(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise Missing(f"{program} is not installed")
    return path


class Engine:
    """A Docker Engine API at `socket`."""

    name: ClassVar[str]

    def __init__(self, directory: Path, undo: ExitStack) -> None:
        self.directory = directory
        directory.mkdir()
        self.socket = directory / "engine.sock"
        self.env = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(directory)}
        self.namespaces = Namespaces()
        undo.callback(self.namespaces.close)
        self.daemons: list[subprocess.Popen[bytes]] = []
        self._start(undo)
        wait_for(self._answers, f"{self.name} at {self.socket}")

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the docker CLI against this engine."""
        return subprocess.run(
            [find("docker"), *arguments],
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
        )

    def load(self, archive: Path) -> None:
        self.docker("load", "--input", str(archive))
        self.docker("image", "inspect", IMAGE)

    def remove_containers(self) -> None:
        left = self.docker("ps", "--all", "--quiet", check=False).stdout.split()
        if left:
            self.docker("rm", "--force", *left)

    def version(self) -> str:
        return self.docker("version", "--format", "{{.Server.Version}}").stdout.strip()

    def daemon_processes(self) -> list[Process]:
        """Everything that runs while no container does."""
        raise NotImplementedError

    def shim_processes(self) -> list[Process]:
        """What runs for containers, beside the containers' own processes."""
        raise NotImplementedError

    def _start(self, undo: ExitStack) -> None:
        raise NotImplementedError

    def _answers(self) -> bool:
        for daemon in self.daemons:
            if daemon.poll() is not None:
                raise Missing(f"{self.name} ended: {self._last_words()}")
        return self.socket.exists() and self.docker("version", check=False).returncode == 0

    def _last_words(self) -> str:
        said = [line for log in sorted(self.directory.glob("*.log")) for line in log.read_text().splitlines()[-1:]]
        return "; ".join(said)

    def _spawn(self, undo: ExitStack, name: str, *command: str | Path) -> None:
        daemon = self.namespaces.start(command, self.directory / f"{name}.log", self.env)
        self.daemons.append(daemon)
        undo.callback(end, daemon)


class Naru(Engine):
    """narud of this checkout."""

    name = "naru"

    def _start(self, undo: ExitStack) -> None:
        self.env["NARU_HOST"] = self.env["DOCKER_HOST"]
        outlet = Outlet(self.namespaces.pid)
        undo.callback(outlet.close)
        self.env["http_proxy"] = outlet.proxy
        python = TOP / ".venv" / "bin" / "python"
        self._spawn(
            undo,
            "narud",
            *(python if python.exists() else sys.executable, "-m", "naru.daemon"),
            *("--data-root", self.directory / "data", "--exec-root", self.directory / "run"),
            *("--host", f"unix://{self.socket}"),
        )
        undo.callback(self.remove_containers)

    def daemon_processes(self) -> list[Process]:
        narud = self.daemons[0].pid
        containers = {process.pid for process in self.shim_processes()}
        return [process for process in descendants(narud) if process.pid not in containers]

    def shim_processes(self) -> list[Process]:
        ids = self.docker("ps", "--quiet", "--no-trunc").stdout.split()
        return [one for one in processes() if any(f"naru-shim {found}" in one.command for found in ids)]


class Dockerd(Engine):
    """Debian's dockerd with a containerd of its own."""

    name = "dockerd"

    def _start(self, undo: ExitStack) -> None:
        run = self.directory / "run"
        run.mkdir()
        config = self.directory / "containerd.toml"
        self._containerd = run / "containerd.sock"
        config.write_text(
            'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'root = "{self.directory}/containerd"\nstate = "{run}/containerd"\n'
            f'[grpc]\naddress = "{self._containerd}"\n'
        )
        (self.directory / "daemon.json").write_text("{}")  # not the host's
        undo.callback(_remove_cgroups)
        self._spawn(undo, "containerd", find("containerd"), "--config", config)
        wait_for(self._containerd.exists, f"containerd at {self._containerd}")
        self._spawn(
            undo,
            "dockerd",
            *(find("dockerd"), "--containerd", self._containerd, "--host", f"unix://{self.socket}"),
            *("--data-root", self.directory / "data", "--exec-root", run / "docker", "--pidfile", run / "docker.pid"),
            *("--cgroup-parent", f"/{CGROUP_PARENT}", "--config-file", self.directory / "daemon.json"),
        )
        undo.callback(self.remove_containers)

    def daemon_processes(self) -> list[Process]:
        pids = {daemon.pid for daemon in self.daemons}
        return [process for process in processes() if process.pid in pids]

    def shim_processes(self) -> list[Process]:
        mark = f"-address {self._containerd}"
        return [one for one in processes() if "containerd-shim" in one.command and mark in one.command]


def _remove_cgroups() -> None:
    for hierarchy in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
        left = hierarchy / CGROUP_PARENT
        if left.is_dir():
            left.rmdir()
