"""What the shim tests share: a narud in miniature, and a client on a socket."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from naru.oci.runtime import Process
from naru.runtime.capability import DEFAULT_CAPABILITIES
from naru.runtime.cgroup import open_cgroup
from naru.runtime.rootfs import Overlay
from naru.runtime.seccomp_default import default_profile
from naru.shim import record
from naru.task import AttachRequest, Exited, LogConfig, StartRequest, Task, TaskEvent, Tasks
from naru.task.spec import base_spec

PATIENCE_S = 15.0


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return `condition()` as soon as it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)
    return value


@dataclass
class Narud:
    """Starts containers over one busybox root; `restart` lets go of them and finds them again."""

    launcher: socket.socket
    root: Path
    directory: Path
    tasks: Tasks = field(init=False)
    events: list[TaskEvent] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tasks = Tasks(self.launcher, self.run_dir)

    @property
    def run_dir(self) -> str:
        return str(self.directory / "run")

    def request(self, *args: str, process: dict[str, Any] | None = None, **options: Any) -> StartRequest:
        bundle = Path(tempfile.mkdtemp(dir=self.directory, prefix="c"))
        for name in ("rootfs", "upper", "work"):
            (bundle / name).mkdir()
        bundle.chmod(0o755)
        container_id = f"shimtest-{bundle.name}"
        self.started.append(container_id)
        made = Process(args=list(args), env=["PATH=/bin"])
        for name, value in (process or {}).items():
            setattr(made, name, value)
        spec = base_spec(
            process=made,
            hostname="box",
            cgroups_path=f"/naru/{container_id}",
            capabilities=DEFAULT_CAPABILITIES,
            seccomp=default_profile(DEFAULT_CAPABILITIES),
            resources=options.pop("resources", None),
        )
        top = str(bundle).lstrip("/")
        defaults: dict[str, Any] = {
            "container_id": container_id,
            "bundle": str(bundle),
            "spec": spec,
            "overlay": Overlay("/", (str(self.root).lstrip("/"),), f"{top}/upper", f"{top}/work"),
            "log": LogConfig("json-file", str(bundle / "json.log")),
        }
        return StartRequest(**(defaults | options))

    def start(self, *args: str, attach: tuple[Any, ...] = (), **options: Any) -> Task:
        return self.tasks.start(self.request(*args, **options), attach=attach, on_event=self.events.append)

    def run(self, *args: str, **options: Any) -> tuple[Exited, Path]:
        """Run to the end; return how it ended and its bundle."""
        request = self.request(*args, **options)
        task = self.tasks.start(request, on_event=self.events.append)
        return ended(task), Path(request.bundle)

    def restart(self) -> None:
        self.tasks.close()
        self.tasks = Tasks(self.launcher, self.run_dir)

    def heard(self, kind: type[TaskEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def close(self) -> None:
        self.tasks.close()
        for container_id in self.started:
            self._end(container_id)

    def _end(self, container_id: str) -> None:
        """Kill the container and let its shim, if it has one, clean up first."""
        directory = f"{self.run_dir}/{container_id}"
        birth = record.read_birth(directory)
        if birth is not None and record.is_alive(birth.init_pid, birth.init_start_ticks):
            os.kill(birth.init_pid, 9)
        if birth is not None:
            wait_for(lambda: record.read_exit(directory) or not record.is_alive(birth.pid, birth.start_ticks))
        open_cgroup(f"/naru/{container_id}").remove(kill=True)


def ended(task: Task) -> Exited:
    exited = task.wait(PATIENCE_S)
    assert exited is not None, "the container did not end"
    return exited


class Client:
    """A docker client's end of an attached connection."""

    def __init__(self, **options: Any) -> None:
        self.socket, self.theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE_S)
        self.request = AttachRequest(**options)

    @property
    def attachment(self) -> tuple[AttachRequest, int]:
        return self.request, self.theirs.fileno()

    def handed_over(self) -> None:
        """As narud does once the shim has the connection."""
        self.theirs.close()

    def read_to_end(self) -> bytes:
        return b"".join(iter(lambda: self.socket.recv(1 << 20), b""))

    def read_until(self, wanted: bytes) -> bytes:
        data = b""
        while wanted not in data:
            part = self.socket.recv(65536)
            assert part, f"the stream ended after {data!r}"
            data += part
        return data

    def frames(self) -> dict[int, bytes]:
        """Read to the end; return the content of each numbered stream."""
        data, streams = self.read_to_end(), dict[int, bytes]()
        while data:
            number, size = struct.unpack(">BxxxI", data[:8])
            streams[number] = streams.get(number, b"") + data[8 : 8 + size]
            data = data[8 + size :]
        return streams
