"""Clients of the engines under `conftest`, called as a user does."""

from __future__ import annotations

import difflib
import os
import pty
import select
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

_LIMITS = '[containers]\ndefault_ulimits = ["nofile=512:512", "nproc=4096:4096"]\n'
_ENGINE = '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
Done = subprocess.CompletedProcess[str]


def _run(command: list[str], environment: dict[str, str], **options: object) -> Done:
    settings = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60} | options
    if "input" in settings:
        settings.pop("stdin")
    return subprocess.run(command, env=os.environ | environment, **settings)  # type: ignore[call-overload]


def differences(ours: Done, theirs: Done) -> list[str]:
    """Return the lines that only one of two outcomes has: -theirs, +ours."""
    left, right = ([str(done.returncode), *f"{done.stdout}{done.stderr}".splitlines()] for done in (theirs, ours))
    return [line for line in difflib.unified_diff(left, right, n=0, lineterm="") if line[:2] not in ("--", "++", "@@")]


@dataclass
class Dockerd:
    """The daemon, and the docker CLI at its socket."""

    host: str
    process: subprocess.Popen[bytes]

    def __call__(self, *arguments: object, **options: object) -> Done:
        return _run(["docker", *map(str, arguments)], {"DOCKER_HOST": self.host}, **options)

    def run(self, *arguments: object, **options: object) -> Done:
        """`docker run` with our runtime."""
        return self("run", "--runtime=naru", *arguments, **options)

    def at_terminal(self, *arguments: object) -> str:
        """Return what the CLI shows on a terminal."""
        pid, master = pty.fork()
        if pid == 0:
            os.execvpe("docker", ["docker", *map(str, arguments)], os.environ | {"DOCKER_HOST": self.host})
        shown = b""
        try:
            while select.select([master], [], [], 30)[0]:
                shown += os.read(master, 4096)
        except OSError:
            pass  # EIO: the other side is closed
        os.close(master)
        os.waitpid(pid, 0)
        return shown.decode()

    def answers(self) -> bool:
        """Say whether the daemon serves yet."""
        assert self.process.poll() is None, "dockerd has ended: see dockerd.log"
        return self("version").returncode == 0

    def close(self) -> None:
        """Stop the daemon, which ends its containerd too."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@dataclass
class Containerd:
    """ctr, containerd's own client."""

    socket: Path
    runtime: Path
    cgroup: str

    def run(self, root: Path, name: str, *arguments: str) -> Done:
        """Run a command in the directory `root`."""
        command = ["ctr", "--address", str(self.socket), "--namespace", "conformance", "run", "--rm", "--rootfs"]
        command += ["--runc-binary", str(self.runtime), "--cgroup", f"/{self.cgroup}/{name}", str(root), name]
        return _run([*command, *arguments], {})


class Podman:
    """podman with a store, a state directory and settings of its own."""

    def __init__(self, place: Path, runtime: Path) -> None:
        self._runtime = runtime
        self._settings = place / "containers.conf"
        self._settings.write_text(_LIMITS + _ENGINE)  # its default limits are above the host's in some sandboxes
        self._place = place
        self._base = ["unshare", "--net", "--mount", "--propagation", "slave", "podman", "--storage-driver=overlay"]
        self._base += [f"--root={place}/podman-root", f"--runroot={place}/podman-run", f"--tmpdir={place}/podman-tmp"]

    def __call__(self, *arguments: object, **options: object) -> Done:
        return self.by(str(self._runtime), *arguments, **options)

    def by(self, runtime: str, *arguments: object, **options: object) -> Done:
        """Call podman with another runtime."""
        state = f"--runtime-flag=root={self._place}/podman-{Path(runtime).name}"
        command = [*self._base, f"--runtime={runtime}", state, *map(str, arguments)]
        return _run(command, {"CONTAINERS_CONF": str(self._settings)}, **options)

    def run(self, *arguments: object, **options: object) -> Done:
        """`podman run` without a network."""
        return self("run", "--network=none", *arguments, **options)
