"""An engine in memory, enough to drive every kind of route: plain, hijacked, streamed in and out, waiting.

Its one program is `cat`: whatever is attached gets its input back, on the stream its command names.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile
import threading
from concurrent.futures import Future
from pathlib import Path

from naru.api.container import (
    ContainerConfig,
    ContainerCreateResponse,
    ContainerInspect,
    ContainerState,
    ContainerSummary,
    ContainerWaitResponse,
    PathStat,
)
from naru.api.event import EventActor, EventMessage
from naru.api.exec import ExecCreateResponse, ExecInspect, ProcessConfig
from naru.api.image import ImageInspect, ImageSummary
from naru.api.network import EndpointSettings, NetworkSettings
from naru.api.progress import ProgressDetail, ProgressMessage
from naru.api.stats import ContainerStats
from naru.api.system import SystemInfo, SystemVersion
from naru.errors import CannotStart, Conflict, NotFound, NotModified
from naru.server.app import make_app
from naru.server.listen import serve
from naru.server.tls import Tls

FULL_ID = "0123456789ab" + "0" * 52


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


class Cat(threading.Thread):
    """Sends a connection its own input back until the input ends."""

    def __init__(self, fd: int, *, prefix: bytes, multiplexed: bool, banner: bytes = b"", done: Future | None = None):
        super().__init__(daemon=True)
        self.socket = socket.socket(fileno=os.dup(fd))
        self.socket.setblocking(True)
        self.pending, self.multiplexed, self.banner, self.done = prefix, multiplexed, banner, done

    def run(self) -> None:
        self.send(self.banner)
        while data := self.pending or self.socket.recv(65536):
            self.pending = b""
            self.send(data)
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        if self.done is not None:
            self.done.set_result(ContainerWaitResponse(status_code=7))

    def send(self, data: bytes) -> None:
        if data:
            self.socket.sendall(frame(1, data) if self.multiplexed else data)


class Log:
    """A log of two lines; the second is there once `grow` was called. Follows until then."""

    patience_s = None

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self.parts, self.finished, self.is_closed = [frame(1, b"first\n")], False, threading.Event()

    def grow(self) -> None:
        self.parts.append(frame(2, b"second\n"))
        os.write(self.write_end, b"x")

    def fileno(self) -> int:
        return self.read_end

    def read(self) -> bytes:
        try:
            self.finished = bool(os.read(self.read_end, 10)) or self.finished
        except BlockingIOError:
            pass
        return self.parts.pop(0) if self.parts else b""

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)
        self.is_closed.set()


class Subscription:
    def __init__(self) -> None:
        self.is_closed = threading.Event()

    def close(self) -> None:
        self.is_closed.set()


class EngineDouble:
    """One container, `web`; one image, `busybox:latest`; no networks: routes to those answer 501."""

    def __init__(self) -> None:
        self.created = []
        self.calls = []
        self.tty = False
        self.is_running = True
        self.log = Log()
        self.waiting: Future = Future()
        self.attached: list[Cat] = []
        self.subscription = Subscription()
        self.event_callback = None
        self.execs = {}
        self.loaded = 0
        self.pull_was_cut = threading.Event()
        self.may_answer = threading.Event()

    def _check(self, name: str) -> None:
        if name not in ("web", FULL_ID, FULL_ID[:12]):
            raise NotFound(f"No such container: {name}")

    def system_version(self) -> SystemVersion:
        return SystemVersion(version="0.1", api_version="1.55", min_api_version="1.24", arch="amd64")

    def system_info(self) -> SystemInfo:
        return SystemInfo(id="X", name="host", containers=1, security_options=["name=seccomp,profile=builtin"])

    def container_list(self, *, all, limit, size, filters):
        self.calls.append(("container_list", all, limit, size, filters))
        return [
            ContainerSummary(
                id=FULL_ID, names=["/web"], image="busybox", command="cat", created=1_700_000_000, state="running",
                status="Up 2 seconds",
            )
        ]  # fmt: skip

    def container_create(self, name, request, platform):
        self.created.append(request)
        return ContainerCreateResponse(id=FULL_ID)

    def container_inspect(self, id, *, size=False):
        self._check(id)
        return ContainerInspect(
            id=FULL_ID,
            name="/web",
            config=ContainerConfig(tty=self.tty, image="busybox", open_stdin=True, attach_stdout=True),
            state=ContainerState(status="running" if self.is_running else "created", running=self.is_running),
            network_settings=NetworkSettings(
                networks={
                    "bridge": EndpointSettings(ip_address="172.17.0.2", mac_address="02:42:ac:11:00:02"),
                    "own": EndpointSettings(aliases=["db"]),
                }
            ),
        )

    def container_start(self, id, *, detach_keys):
        self._check(id)
        if self.is_running:
            raise NotModified("already started")
        self.is_running = True
        for cat in self.attached:
            cat.start()

    def container_stop(self, id, *, signal, t):
        self._check(id)
        self.may_answer.wait(10)

    def container_kill(self, id, *, signal):
        raise Conflict(f"cannot kill container: {id}: container {FULL_ID} is not running")

    def container_resize(self, id, *, h, w):
        self.calls.append(("resize", h, w))

    def container_wait(self, id, *, condition):
        self._check(id)
        self.calls.append(("container_wait", condition))
        return self.waiting

    def container_delete(self, id, *, v, force, link):
        self._check(id)

    def container_attach(self, id, options, fd):
        self.calls.append(("attach", options))
        cat = Cat(fd, prefix=options.prefix, multiplexed=options.multiplexed, banner=b"hello\n", done=self.waiting)
        self.attached.append(cat)
        if self.is_running:
            cat.start()

    def container_logs(self, id, options):
        self.calls.append(("container_logs", options))
        if not options.follow:
            self.log.grow()
        return self.log

    def container_stats(self, id, *, one_shot):
        self._check(id)
        return ContainerStats(id=FULL_ID, name="/web")

    def container_exec(self, id, request):
        self._check(id)
        self.execs["e1"] = request
        return ExecCreateResponse(id="e1")

    def exec_inspect(self, id):
        if id not in self.execs:
            raise NotFound(f"No such exec instance: {id}")
        return ExecInspect(id=id, exit_code=0, process_config=ProcessConfig(tty=self.execs[id].tty))

    def exec_start(self, id, request, fd, prefix):
        if self.execs[id].cmd == ["missing"]:
            raise CannotStart('exec: "missing": executable file not found in $PATH', exit_code=127)
        if fd is not None:
            Cat(fd, prefix=prefix, multiplexed=not self.execs[id].tty, banner=b"ready\n").start()

    def exec_resize(self, id, *, h, w):
        self.calls.append(("exec_resize", h, w))

    def container_archive_info(self, id, path):
        return PathStat(name="etc", mode=0x800001ED, mtime="2024-01-02T03:04:05Z")

    def container_archive(self, id, path):
        def write(sink) -> None:
            with tarfile.open(fileobj=sink, mode="w|") as tar:
                for number in range(3):
                    info = tarfile.TarInfo(f"file{number}")
                    info.size = 1 << 20
                    tar.addfile(info, io.BytesIO(bytes(1 << 20)))
            if path == "/broken":
                raise OSError("disk on fire")

        return self.container_archive_info(id, path), write

    def put_container_archive(self, id, path, source, *, no_overwrite_dir_non_dir, copy_uidgid):
        with tarfile.open(fileobj=source, mode="r|") as tar:
            self.calls.append(("put", path, [member.name for member in tar]))

    def image_list(self, **_):
        return [ImageSummary(id="sha256:" + "1" * 64, size=42, repo_tags=[], repo_digests=[])]

    def image_inspect(self, name, *, manifests, platform):
        if name != "busybox:latest":
            raise NotFound(f"No such image: {name}")
        return ImageInspect(id="sha256:" + "1" * 64, size=42)

    def image_create(self, from_image, tag, platform, auth, progress):
        if from_image == "nope":
            raise NotFound("pull access denied for nope")
        self.calls.append(("image_create", from_image, tag, platform, auth))
        progress(ProgressMessage(status="Pulling fs layer", id="abc", progress_detail=ProgressDetail()))
        if tag == "endless":
            try:
                while True:
                    progress(ProgressMessage(status="x" * 1000))
            except ConnectionError:
                self.pull_was_cut.set()
                raise
        if tag == "broken":
            raise Conflict("unexpected end of layer")
        progress(ProgressMessage(status="Status: Downloaded newer image"))

    def image_load(self, source, quiet, progress):
        while data := source.read(65536):
            self.loaded += len(data)
        progress(ProgressMessage(stream="Loaded image: busybox:latest\n"))

    def image_get(self, names, sink):
        sink.write(b"tar of " + ",".join(names).encode())

    def image_build(self, context, options, progress, cancelled):
        self.calls.append(("image_build", options))
        with tarfile.open(fileobj=context, mode="r|*") as tar:
            names = [member.name for member in tar]
        progress(ProgressMessage(stream=f"context: {' '.join(names)}\n"))
        progress(ProgressMessage(aux={"ID": "sha256:" + "1" * 64}))
        progress(ProgressMessage(stream="Successfully built 111111111111\n"))

    def system_events(self, filters, since, until, callback):
        self.calls.append(("system_events", filters, since, until))
        self.event_callback = callback
        return self.subscription

    def happen(self, action: str) -> None:
        self.event_callback(
            EventMessage(type="container", action=action, actor=EventActor(id=FULL_ID), scope="local", time=1)
        )


class Served:
    """The double behind a real server, in a thread with a loop of its own."""

    def __init__(self, addresses: list[str], *, tls: Tls | None = None) -> None:
        self.engine = EngineDouble()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = self._call(serve(make_app(self.engine), addresses, tls=tls))
        self.addresses = self._runner.addresses

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def close(self) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        await self._runner.cleanup()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def unix_server(directory: Path) -> Served:
    return Served([f"unix://{directory}/x.sock"])
