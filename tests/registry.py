"""Registries for tests: Debian's docker-registry as it is, and one in memory that misbehaves on cue."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

USER, PASSWORD = "ann", "secret"
# bcrypt of PASSWORD, the only hash that docker-registry reads.
_HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class DockerRegistry:
    """A running one; `host` is its name in references."""

    host: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])


@contextmanager
def docker_registry(
    directory: Path,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    has_users: bool = False,
    certificate: tuple[Path, Path] | None = None,
    prefix: Sequence[str] = (),
    connect: Callable[[tuple[str, int]], bool] | None = None,
) -> Iterator[DockerRegistry]:
    """Run docker-registry over `directory`: for user ann only, with TLS by a certificate and key, as asked.

    `prefix` is a command to run it by, `connect` a way to try whether it listens, for another network namespace.
    """
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs Debian's docker-registry (libexec/install-test-peers)")
    port = port or free_port()
    directory.mkdir(exist_ok=True)
    (directory / "htpasswd").write_text(_HTPASSWD)
    lines = [
        "version: 0.1",
        "log: {level: info}",
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}",
        f"http: {{addr: '{address}:{port}'"
        + (f", tls: {{certificate: {certificate[0]}, key: {certificate[1]}}}" if certificate else "")
        + "}",
    ]
    if has_users:
        lines.append(f"auth: {{htpasswd: {{realm: here, path: {directory}/htpasswd}}}}")
    (directory / "config.yml").write_text("\n".join(lines))
    path = directory / "log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [*prefix, program, "serve", str(directory / "config.yml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 20
        while not (connect or can_connect)((address, port)):
            assert process.poll() is None and time.monotonic() < deadline, path.read_text()
            time.sleep(0.02)
        yield DockerRegistry(f"{address}:{port}", path)
    finally:
        process.terminate()
        process.wait(10)


def can_connect(address: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) == 0


def make_certificates(directory: Path, address: str) -> Path:
    """Make a CA (ca.pem) and a certificate that it signed for `address` (cert.pem, key.pem); return the directory."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl("req", "-x509", *key, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName=IP:{address}"]
    openssl("req", "-x509", *key, *signed, "-subj", "/CN=us", "-keyout", "key.pem", "-out", "cert.pem")
    return directory


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextmanager
def serving(handler: Handler, listener: socket.socket | None = None) -> Iterator[int]:
    """Serve `handler` in a thread, on loopback or on `listener`; yields the port."""
    loop = asyncio.new_event_loop()
    if listener is None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])

    async def answer(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    async def start() -> web.AppRunner:
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        listener.close()


@contextmanager
def cutting(port: int, *, after_bytes: int) -> Iterator[int]:
    """Forward to a port of this machine; the first connection that carries `after_bytes` is cut. Yields a port."""
    loop = asyncio.new_event_loop()
    has_cut = False

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool) -> None:
        nonlocal has_cut
        carried = 0
        while piece := await reader.read(1 << 16):
            carried += len(piece)
            if is_request and not has_cut and carried > after_bytes:
                has_cut = True
                return
            writer.write(piece)
            await writer.drain()

    async def forward(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", port)
        pumps = [
            asyncio.ensure_future(pump(client, to_server, is_request=True)),
            asyncio.ensure_future(pump(server, to_client, is_request=False)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for task, writer in zip(pumps, (to_client, to_server), strict=True):
            task.cancel()
            writer.transport.abort()

    server = loop.run_until_complete(asyncio.start_server(forward, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


class MemoryRegistry:
    """Takes pushes, as the distribution specification has it, and keeps a log of requests; subclasses misbehave."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.log.append(f"{request.method} {request.path}")
        return await self.answer(request)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Overridden: give another answer than `serve`'s now and then."""
        return await self.serve(request)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        path, method = request.path, request.method
        name = path.rpartition("/")[2]
        if path == "/v2/":
            return web.Response()
        if "/blobs/uploads/" in path:
            return await self._upload(request, method, name)
        if "/blobs/" in path:
            return web.Response(status=200 if name in self.blobs else 404)
        if method == "PUT":
            self.manifests[name] = await request.read()
            return web.Response(status=201)
        return web.Response(status=404)

    async def _upload(self, request: web.Request, method: str, session: str) -> web.StreamResponse:
        if method == "POST":
            session = f"u{len(self.uploads)}"
            self.uploads[session] = bytearray()
            return web.Response(status=202, headers={"Location": f"{request.path}{session}?_state=a%3Db"})
        if session not in self.uploads:
            return web.json_response({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN", "message": "gone"}]}, status=404)
        assert request.query["_state"] == "a=b"
        received = self.uploads[session]
        location = {"Location": f"{request.path}?_state=a%3Db"}
        if method == "GET":
            return web.Response(status=204, headers=location | {"Range": f"0-{max(0, len(received) - 1)}"})
        start = request.headers.get("Content-Range", f"{len(received)}-").partition("-")[0]
        if int(start) != len(received):
            return web.Response(status=416)
        async for piece in request.content.iter_any():
            received += piece
        if method == "PATCH":
            return web.Response(status=202, headers=location)
        digest = "sha256:" + hashlib.sha256(received).hexdigest()
        if digest != request.query["digest"]:
            return web.json_response({"errors": [{"code": "DIGEST_INVALID", "message": digest}]}, status=400)
        self.blobs[digest] = bytes(received)
        return web.Response(status=201)
