"""The registry client against a real registry (Debian's docker-registry) and one that misbehaves on cue."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from aiohttp import web
from registry import docker_registry, free_port, serving

from naru.api.progress import ProgressMessage
from naru.api.system import AuthConfig
from naru.content.store import ContentStore
from naru.distribution.challenge import parse_challenges
from naru.distribution.pull import PulledImage, pull
from naru.errors import Corrupt, NotFound, Unauthorized, Unavailable, Unsupported
from naru.oci import platform as platforms
from naru.oci.reference import parse_familiar

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker.distribution.manifest"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(data: bytes, media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


class Blobs:
    """A two-layer image for this machine's architecture, and one for another, under one index."""

    def __init__(self) -> None:
        self.here = platforms.host().architecture
        self.layers = [os.urandom(3 << 20), os.urandom(70_000)]
        self.config = json.dumps(
            {"architecture": self.here, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "made": "x"}
        ).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{OCI}.manifest.v1+json",
                "config": descriptor(self.config, f"{OCI}.config.v1+json"),
                "layers": [descriptor(layer, f"{OCI}.layer.v1.tar+gzip") for layer in self.layers],
            }
        ).encode()
        self.index = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{DOCKER}.list.v2+json",
                "manifests": [
                    descriptor(
                        self.manifest,
                        f"{OCI}.manifest.v1+json",
                        platform={"os": "linux", "architecture": self.here},
                    )
                ],
            }
        ).encode()

    def all(self) -> dict[str, bytes]:
        return {digest(blob): blob for blob in [*self.layers, self.config]}


@pytest.fixture(scope="module")
def blobs() -> Blobs:
    return Blobs()


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "store")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, blobs: Blobs) -> Iterator[int]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        upload(running.port, blobs)
        yield running.port


def upload(port: int, blobs: Blobs) -> None:
    base = f"http://127.0.0.1:{port}/v2/team/app"
    for name, blob in blobs.all().items():
        with urlopen(Request(f"{base}/blobs/uploads/", method="POST")) as response:
            location = response.headers["Location"]
        put(f"{location}&digest={name}", blob, "application/octet-stream")
    put(f"{base}/manifests/{digest(blobs.manifest)}", blobs.manifest, f"{OCI}.manifest.v1+json")
    put(f"{base}/manifests/1.0", blobs.index, f"{DOCKER}.list.v2+json")


def put(url: str, body: bytes, content_type: str) -> None:
    with urlopen(Request(url, data=body, method="PUT", headers={"Content-Type": content_type})) as response:
        assert response.status == 201


def fetch(port: int, content: ContentStore, name: str = "team/app:1.0", **options: object) -> PulledImage:
    options.setdefault("platform", None)
    options.setdefault("progress", lambda _message: None)
    return pull(parse_familiar(f"127.0.0.1:{port}/{name}"), content=content, **options)  # type: ignore[arg-type]


def test_an_image_behind_an_index_arrives_whole_and_is_named_by_the_index(
    registry: int, blobs: Blobs, content: ContentStore
) -> None:
    lines: list[ProgressMessage] = []
    ready: list[int] = []
    image = fetch(registry, content, progress=lines.append, on_layer=lambda position, _layer: ready.append(position))
    assert image.digest == digest(blobs.index)
    assert image.manifest_descriptor.digest == digest(blobs.manifest)
    assert [content.read(layer.digest) for layer in image.layers] == blobs.layers
    assert content.read(image.manifest.config.digest) == blobs.config
    assert sorted(ready) == [0, 1]
    first = digest(blobs.layers[0]).partition(":")[2][:12]
    assert [line.status for line in lines if line.id == first and line.status != "Downloading"] == [
        "Pulling fs layer",
        "Verifying Checksum",
        "Download complete",
    ]


def test_a_second_pull_fetches_no_layer_again(registry: int, content: ContentStore) -> None:
    fetch(registry, content)
    lines: list[ProgressMessage] = []
    fetch(registry, content, progress=lines.append)
    assert [line.status for line in lines] == ["Pulling from team/app", "Already exists", "Already exists"]


def test_an_unknown_tag_is_reported_in_dockers_words(registry: int, content: ContentStore) -> None:
    with pytest.raises(NotFound, match=r"manifest for 127\.0\.0\.1:\d+/team/app:9 not found: manifest unknown"):
        fetch(registry, content, "team/app:9")


def test_a_platform_that_the_index_lacks_is_reported(registry: int, content: ContentStore) -> None:
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        fetch(registry, content, platform=platforms.parse("linux/s390x"))


def test_a_registry_that_nobody_serves_is_unavailable_at_once(content: ContentStore) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r'Get "https://127\.0\.0\.1:\d+/v2/"'):
        fetch(free_port(), content)
    assert time.monotonic() - started < 1


def test_a_registry_that_never_answers_is_unavailable_within_the_connect_timeout(content: ContentStore) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        cancelled = threading.Event()
        threading.Timer(0.3, cancelled.set).start()
        started = time.monotonic()
        with pytest.raises(Unavailable):
            fetch(deaf.getsockname()[1], content, cancelled=cancelled)
        assert time.monotonic() - started < 3


class Scripted:
    """A registry of one image that logs its requests; subclasses misbehave."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.log: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.log.append(f"{request.path} {request.headers.get('Range', '')}".strip())
        return await self.answer(request)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        if request.path == "/v2/":
            return web.Response()
        if "/manifests/" in request.path:
            return web.Response(body=self.blobs.manifest, content_type=f"{OCI}.manifest.v1+json")
        return web.Response(body=self.blobs.all()[name])


class Dropping(Scripted):
    """Answers the first request for the big layer with 503, breaks off the next in the middle, honours ranges."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        big = self.blobs.layers[0]
        if not request.path.endswith(digest(big)):
            return await super().answer(request)
        tries = sum(digest(big) in line for line in self.log)
        if tries == 1:
            return web.Response(status=503, headers={"Retry-After": "0"})
        if tries == 2:
            response = web.StreamResponse(headers={"Content-Length": str(len(big))})
            await response.prepare(request)
            await response.write(big[:1_000_000])
            assert request.transport is not None
            request.transport.close()
            return response
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        return web.Response(body=big[start:], status=206)


def test_a_broken_download_goes_on_where_it_stopped(blobs: Blobs, content: ContentStore) -> None:
    server = Dropping(blobs)
    with serving(server) as port:
        image = fetch(port, content)
    assert content.read(image.layers[0].digest) == blobs.layers[0]
    assert any("bytes=" in line for line in server.log)


class Lying(Scripted):
    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith(digest(self.blobs.layers[1])):
            return web.Response(body=os.urandom(len(self.blobs.layers[1])))
        return await super().answer(request)


def test_a_layer_with_other_bytes_is_refused_and_leaves_nothing(blobs: Blobs, content: ContentStore) -> None:
    with serving(Lying(blobs)) as port, pytest.raises(Corrupt):
        fetch(port, content)
    assert not content.exists(digest(blobs.layers[1]))  # type: ignore[arg-type]
    assert list((content.path(digest(b"")).parents[2] / "ingest").iterdir()) == []  # type: ignore[arg-type]


class WithTokens(Scripted):
    """Wants a bearer token, which it gives to user `ann` with password `s`."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        if request.path == "/token":
            if authorization != "Basic " + base64.b64encode(b"ann:s").decode():
                return web.Response(status=401)
            assert request.query["scope"] == "repository:team/app:pull"
            return web.json_response({"token": "t0"})
        if authorization != "Bearer t0":
            realm = f"http://{request.host}/token"
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="here, now"'})
        return await super().answer(request)


def test_a_bearer_token_is_fetched_with_the_users_credentials_once(blobs: Blobs, content: ContentStore) -> None:
    server = WithTokens(blobs)
    with serving(server) as port:
        image = fetch(port, content, auth=AuthConfig(username="ann", password="s"))
    assert len(image.layers) == 2
    assert sum(line == "/token" for line in server.log) == 1


def test_wrong_credentials_are_said_to_be_wrong(blobs: Blobs, content: ContentStore) -> None:
    with serving(WithTokens(blobs)) as port, pytest.raises(Unauthorized, match="incorrect username or password"):
        fetch(port, content, auth=AuthConfig(auth=base64.b64encode(b"ann:x").decode()))


class Redirecting(Scripted):
    """Sends blob requests, which need Basic credentials, to another origin."""

    def __init__(self, blobs: Blobs, elsewhere: int) -> None:
        super().__init__(blobs)
        self.elsewhere = elsewhere

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if "/blobs/" in request.path:
            raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{self.elsewhere}{request.path}")
        return await super().answer(request)


class Noting(Scripted):
    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.log.append(f"authorization={request.headers.get('Authorization', 'none')}")
        return await super().answer(request)


def test_credentials_do_not_follow_a_redirect_to_another_origin(blobs: Blobs, content: ContentStore) -> None:
    store = Noting(blobs)
    with serving(store) as elsewhere, serving(Redirecting(blobs, elsewhere)) as port:
        fetch(port, content, auth=AuthConfig(username="ann", password="s"))
    assert {line for line in store.log if line.startswith("authorization=")} == {"authorization=none"}


class Old(Scripted):
    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "/manifests/" in request.path:
            return web.json_response({"schemaVersion": 1, "name": "team/app"})
        return await super().answer(request)


def test_a_manifest_of_schema_1_is_refused_with_its_reason(blobs: Blobs, content: ContentStore) -> None:
    with serving(Old(blobs)) as port, pytest.raises(Unsupported, match="schema version 1"):
        fetch(port, content)


def test_challenges_with_commas_and_escapes_in_quotes_are_read() -> None:
    challenges = parse_challenges(r'Bearer realm="https://a/t",service="x, \"y\"", Basic realm=plain')
    assert [(challenge.scheme, challenge.parameters) for challenge in challenges] == [
        ("bearer", {"realm": "https://a/t", "service": 'x, "y"'}),
        ("basic", {"realm": "plain"}),
    ]
