"""What the bench makes and takes away: a directory, a network and mount namespace per engine, a small image."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

IMAGE = "naru-bench:latest"
APPLETS = ("true", "sh", "sleep", "yes", "head", "cat")
PATIENCE_S = 60.0


class Missing(Exception):
    """Something that a figure needs is not here; the reason is printed in the figure's place."""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition()`. Missing: it does not come true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise Missing(f"{what}: not within {PATIENCE_S:g} s")
        time.sleep(0.02)


class Namespaces:
    """Network and mount namespaces of one engine: what it does to links, firewall and mounts ends with it."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "slave", "sh", "-c", "ip link set lo up && exec cat"],
            stdin=subprocess.PIPE,
        )
        wait_for(self._is_cat, "a network namespace")

    @property
    def pid(self) -> int:
        """A process inside, for setns."""
        return self._holder.pid

    def _is_cat(self) -> bool:
        return Path(f"/proc/{self._holder.pid}/comm").read_text().strip() == "cat"

    def start(self, command: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a daemon inside; its output goes to `log`."""
        enter = ["nsenter", "--target", str(self._holder.pid), "--net", "--mount"]
        with log.open("ab") as output:
            return subprocess.Popen(
                [*enter, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **env}
            )

    def close(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait()


def end(daemon: subprocess.Popen[bytes]) -> None:
    """End a daemon that `start` started, by SIGTERM if it listens to that."""
    daemon.terminate()
    try:
        daemon.wait(timeout=20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def make_image(directory: Path) -> Path:
    """Write an image of one layer, a static busybox, as `docker save` would; every engine loads the same file."""
    found = shutil.which("busybox")
    if found is None:
        raise Missing("busybox-static is not installed")
    return write_image(directory / "image.tar", IMAGE, _layer(Path(found).read_bytes()), ["PATH=/bin"], ["sh"])


def write_image(path: Path, name: str, layer: bytes, env: list[str], command: list[str]) -> Path:
    """Write `docker save` of an image made of one uncompressed layer."""
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Env": env, "Cmd": command},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "bench"}],
        }
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        for member, data in ((config_name, config), ("layer.tar", layer), ("manifest.json", manifest)):
            _add(archive, member, data)
    return path


def _layer(busybox: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("bin", "etc", "tmp", "root"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        _add(archive, "bin/busybox", busybox, mode=0o755)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        _add(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        _add(archive, "etc/group", b"root:x:0:\n")
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))
