"""The pushing half of the registry client, against Debian's docker-registry, and one in memory that has its faults."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from registry import PASSWORD, USER, DockerRegistry, MemoryRegistry, cutting, docker_registry, free_port, serving

from naru.api.progress import ProgressMessage
from naru.api.system import AuthConfig
from naru.content.store import ContentStore
from naru.distribution import client as http
from naru.distribution.inspect import inspect
from naru.distribution.login import login
from naru.distribution.pull import pull
from naru.distribution.push import Outgoing, push
from naru.distribution.search import search
from naru.errors import Forbidden, NotFound, Unauthorized, Unavailable, Unsupported
from naru.oci import platform as platforms
from naru.oci.digest import DiffID
from naru.oci.image import Descriptor
from naru.oci.reference import parse, parse_familiar

OCI = "application/vnd.oci.image"
ANN = AuthConfig(username=USER, password=PASSWORD)
BIG = 3 << 20


@dataclass
class Stored:
    """An image in a content store, with one layer beyond and one below what is sent in one piece."""

    content: ContentStore
    layers: list[Descriptor]
    config: Descriptor
    manifest: Descriptor
    image: Outgoing

    def push(self, target: str, **options: object) -> list[str]:
        """Push as `target`; the lines of progress without the moving ones."""
        lines: list[ProgressMessage] = []
        reference = parse_familiar(target)
        image = Outgoing(reference.tag or "", self.image.manifest, self.image.diff_ids)
        options.setdefault("progress", lines.append)
        push(reference, [image], content=self.content, **options)  # type: ignore[arg-type]
        return [line.status for line in lines if line.status not in ("", "Pushing")]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    content = ContentStore(tmp_path / "store")
    platform = {"architecture": platforms.host().architecture, "os": "linux"}
    config = content.put(json.dumps(platform | {"rootfs": {"type": "layers"}}).encode(), f"{OCI}.config.v1+json")
    layers = [content.put(os.urandom(size), f"{OCI}.layer.v1.tar+gzip") for size in (BIG, 7_000)]
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": {"mediaType": config.media_type, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": x.media_type, "digest": x.digest, "size": x.size} for x in layers],
    }
    manifest = content.put(json.dumps(document, indent=1).encode(), f"{OCI}.manifest.v1+json")
    diff_ids = [DiffID(f"sha256:{number:064x}") for number in (1 << 200, 2 << 200)]
    return Stored(content, layers, config, manifest, Outgoing("", manifest.digest, diff_ids))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("locked"), has_users=True) as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off by hundredths of a second where the registry names no time."""
    monkeypatch.setattr(http, "_FIRST_DELAY_S", 0.01)


# A real registry


def test_what_was_pushed_can_be_pulled_and_is_the_same_to_the_byte(
    registry: DockerRegistry, stored: Stored, tmp_path: Path
) -> None:
    lines = stored.push(f"{registry.host}/team/app:1")
    elsewhere = ContentStore(tmp_path / "elsewhere")
    target = parse_familiar(f"{registry.host}/team/app:1")
    image = pull(target, platform=None, content=elsewhere, progress=lambda _message: None)
    assert image.digest == stored.manifest.digest
    assert [elsewhere.read(x.digest) for x in image.layers] == [stored.content.read(x.digest) for x in stored.layers]
    assert sorted(lines[:4]) == ["Preparing", "Preparing", "Pushed", "Pushed"]
    assert lines[4] == f"1: digest: {stored.manifest.digest} size: {stored.manifest.size}"


def test_the_last_line_is_for_programs(registry: DockerRegistry, stored: Stored) -> None:
    lines: list[ProgressMessage] = []
    stored.push(f"{registry.host}/team/aux:1", progress=lines.append)
    assert lines[-1].aux == {"Tag": "1", "Digest": stored.manifest.digest, "Size": stored.manifest.size}
    bars = [line.progress_detail for line in lines if line.status == "Pushing" and line.progress_detail]
    assert (bars[-1].current, bars[-1].total) in {(BIG, BIG), (7_000, 7_000)}
    assert {line.id for line in lines if line.status == "Preparing"} == {x[7:19] for x in stored.image.diff_ids}


def test_a_second_push_sends_no_layer_again(registry: DockerRegistry, stored: Stored) -> None:
    stored.push(f"{registry.host}/team/twice:1")
    lines = stored.push(f"{registry.host}/team/twice:2")
    assert lines[2:4] == ["Layer already exists", "Layer already exists"]


def test_layers_known_from_another_repository_are_mounted_from_there(registry: DockerRegistry, stored: Stored) -> None:
    stored.push(f"{registry.host}/team/origin:1")
    sources = {layer.digest: ["team/nowhere", "team/origin"] for layer in stored.layers}
    lines = stored.push(f"{registry.host}/other/app:1", sources=sources)
    assert lines[2:4] == ["Mounted from team/origin", "Mounted from team/origin"]


def test_a_repository_that_does_not_have_the_layer_after_all_does_no_harm(
    registry: DockerRegistry, stored: Stored
) -> None:
    lines = stored.push(f"{registry.host}/other/alone:1", sources={x.digest: ["no/where"] for x in stored.layers})
    assert sorted(lines[2:4]) == ["Pushed", "Pushed"]


def test_a_registry_with_users_takes_them_and_nobody_else(locked_registry: DockerRegistry, stored: Stored) -> None:
    target = f"{locked_registry.host}/team/app:1"
    with pytest.raises(Unauthorized, match=r"^no basic auth credentials$"):
        stored.push(target)
    with pytest.raises(Unauthorized, match=r"^unauthorized: authentication required$"):
        stored.push(target, auth=AuthConfig(username=USER, password="wrong"))
    assert sorted(stored.push(target, auth=ANN)[2:4]) == ["Pushed", "Pushed"]


def test_logging_in_tries_the_password(locked_registry: DockerRegistry) -> None:
    assert login(locked_registry.host, ANN) == ""
    refused = rf"^login attempt to http://{locked_registry.host}/v2/ failed with status: 401 Unauthorized$"
    with pytest.raises(Unauthorized, match=refused):
        login(locked_registry.host, AuthConfig(username=USER, password="wrong"))


def test_logging_in_where_nobody_is_asked_succeeds_and_where_nobody_is_does_not(registry: DockerRegistry) -> None:
    assert login(registry.host, ANN) == ""
    with pytest.raises(Unavailable, match=r'Get "https://127\.0\.0\.1:\d+/v2/"'):
        login(f"127.0.0.1:{free_port()}", ANN)


def test_what_a_registry_has_is_told_without_fetching_it(registry: DockerRegistry, stored: Stored) -> None:
    stored.push(f"{registry.host}/team/seen:1")
    found = inspect(parse(f"{registry.host}/team/seen:1"))
    assert (found.descriptor.digest, found.descriptor.size) == (stored.manifest.digest, stored.manifest.size)
    assert found.descriptor.media_type == f"{OCI}.manifest.v1+json"
    assert [str(platform) for platform in found.platforms] == [str(platforms.host())]
    with pytest.raises(NotFound, match=r"^manifest unknown: manifest unknown$"):
        inspect(parse(f"{registry.host}/team/seen:2"))


def test_a_connection_cut_in_the_middle_of_a_layer_does_not_show(
    registry: DockerRegistry, stored: Stored, tmp_path: Path, impatient: None
) -> None:
    with cutting(registry.port, after_bytes=BIG // 2) as port:
        lines = stored.push(f"127.0.0.1:{port}/team/cut:1")
    assert any(line.startswith("Retrying in") for line in lines)
    elsewhere = ContentStore(tmp_path / "elsewhere")
    pull(parse(f"{registry.host}/team/cut:1"), platform=None, content=elsewhere, progress=lambda _message: None)
    assert elsewhere.exists(stored.layers[0].digest)


# Its faults


class Limiting(MemoryRegistry):
    """Answers the first request of each kind with 429 and a time to wait."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        kind = "manifest" if "/manifests/" in request.path else request.method
        if request.path != "/v2/" and self.log.count(kind) == 0:
            self.log.append(kind)
            return web.Response(status=429, headers={"Retry-After": "1"})
        return await self.serve(request)


def test_a_registry_that_limits_its_clients_is_asked_again_when_it_says(stored: Stored) -> None:
    server = Limiting()
    with serving(server) as port:
        started = time.monotonic()
        lines = stored.push(f"127.0.0.1:{port}/a/b:1")
    assert time.monotonic() - started > 3
    assert "Retrying in 1 second" in lines
    assert set(server.blobs) == {stored.config.digest, *(layer.digest for layer in stored.layers)}


class Dropping(MemoryRegistry):
    """Cuts the first upload of the big layer in the middle."""

    drops = 1

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method != "PATCH" or self.drops == 0:
            return await self.serve(request)
        self.drops -= 1
        session = request.path.rpartition("/")[2]
        async for piece in request.content.iter_chunked(1 << 16):
            self.uploads[session] += piece
            if len(self.uploads[session]) > BIG // 2:
                break
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


def test_a_broken_upload_goes_on_where_it_stopped(stored: Stored, impatient: None) -> None:
    server = Dropping()
    with serving(server) as port:
        lines = stored.push(f"127.0.0.1:{port}/a/b:1")
    big = stored.layers[0]
    assert server.blobs[big.digest] == stored.content.read(big.digest)
    assert [line.partition(" ")[0] for line in server.log if "/uploads/u" in line].count("PATCH") == 2
    assert sum(line.startswith("POST") for line in server.log) == 3
    assert lines.count("Pushed") == 2


class Forgetting(Dropping):
    """And then knows nothing of the session any more."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and "/uploads/" in request.path:
            return web.json_response({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN", "message": "gone"}]}, status=404)
        return await super().answer(request)


def test_an_upload_that_the_registry_forgot_begins_again(stored: Stored, impatient: None) -> None:
    server = Forgetting()
    with serving(server) as port:
        stored.push(f"127.0.0.1:{port}/a/b:1")
    assert stored.layers[0].digest in server.blobs
    assert sum(line.startswith("POST") for line in server.log) == 4


class Broken(MemoryRegistry):
    async def answer(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=503) if request.method == "PATCH" else await self.serve(request)


def test_what_never_works_is_given_up_and_leaves_no_tag(stored: Stored, impatient: None) -> None:
    server = Broken()
    with serving(server) as port, pytest.raises(Unavailable, match="the registry answered 503"):
        stored.push(f"127.0.0.1:{port}/a/b:1")
    assert server.manifests == {}
    assert sum(line.startswith("PATCH") for line in server.log) == http.TRIES


def test_the_manifest_goes_last(stored: Stored) -> None:
    server = MemoryRegistry()
    with serving(server) as port:
        stored.push(f"127.0.0.1:{port}/a/b:1")
    assert server.log[-1] == "PUT /v2/a/b/manifests/1"
    assert server.manifests["1"] == stored.content.read(stored.manifest.digest)


class Refusing(MemoryRegistry):
    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            error = {"code": "DENIED", "message": "requested access to the resource is denied"}
            return web.json_response({"errors": [error]}, status=403)
        return await self.serve(request)


def test_a_refusal_is_told_in_the_registrys_words(stored: Stored) -> None:
    with (
        serving(Refusing()) as port,
        pytest.raises(Forbidden, match=r"^denied: requested access to the resource is denied$"),
    ):
        stored.push(f"127.0.0.1:{port}/a/b:1")


class WithTokens(MemoryRegistry):
    """Wants a bearer token, which it gives to ann, or for the identity token that ann was given; one lasts for
    `lifetime` requests."""

    lifetime = 1000

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, list[str]]] = []
        self.left = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return await self._token(request)
        self.left -= 1
        if request.headers.get("Authorization") != f"Bearer t{len(self.asked)}" or self.left < 0:
            realm = 'Bearer realm="/token",service="here"'
            return web.json_response(
                {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]},
                status=401,
                headers={"WWW-Authenticate": realm},
            )
        return await self.serve(request)

    async def _token(self, request: web.Request) -> web.StreamResponse:
        fields = await request.post() if request.method == "POST" else request.query
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("Authorization") != basic and fields.get("refresh_token") != "kept":
            return web.Response(status=401)
        self.asked.append({key: [str(value) for value in fields.getall(key)] for key in fields})
        self.left = self.lifetime
        refresh = {"refresh_token": "kept"} if fields.get("offline_token") else {}
        return web.json_response({"access_token": f"t{len(self.asked)}"} | refresh)


def test_a_token_is_for_this_repository_and_for_those_that_may_lend(stored: Stored) -> None:
    server = WithTokens()
    with serving(server) as port:
        stored.push(f"127.0.0.1:{port}/a/b:1", auth=ANN, sources={stored.layers[0].digest: ["c/d"]})
    assert [asked["scope"] for asked in server.asked] == [["repository:a/b:pull,push", "repository:c/d:pull"]]
    assert server.asked[0]["service"] == ["here"]


def test_a_token_that_expires_on_the_way_is_replaced(stored: Stored) -> None:
    server = WithTokens()
    server.lifetime = 4
    with serving(server) as port:
        stored.push(f"127.0.0.1:{port}/a/b:1", auth=ANN)
    assert len(server.asked) > 2
    assert "1" in server.manifests


def test_logging_in_at_a_token_server_gives_an_identity_token_that_stands_for_the_password(stored: Stored) -> None:
    server = WithTokens()
    with serving(server) as port:
        token = login(f"127.0.0.1:{port}", ANN)
        stored.push(f"127.0.0.1:{port}/a/b:1", auth=AuthConfig(username=USER, identitytoken=token))
        with pytest.raises(Unauthorized, match=r'Get "http://.*/v2/": unauthorized: incorrect username or password'):
            login(f"127.0.0.1:{port}", AuthConfig(username=USER, password="wrong"))
    assert "scope" not in server.asked[0]
    assert server.asked[1]["grant_type"] == ["refresh_token"]
    assert "1" in server.manifests


def test_a_registry_token_is_used_as_it_is(stored: Stored) -> None:
    server = WithTokens()
    server.left = 1000
    with serving(server) as port:
        stored.push(f"127.0.0.1:{port}/a/b:1", auth=AuthConfig(registrytoken="t0"))
    assert server.asked == []


class Elsewhere(MemoryRegistry):
    """Has its uploads sent to another host."""

    def __init__(self, handler: Callable[[], int]) -> None:
        super().__init__()
        self._port = handler

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        response = await self.serve(request)
        if request.method == "POST":
            response.headers["Location"] = f"http://127.0.0.1:{self._port()}{response.headers['Location']}"
        return response


class Noting(MemoryRegistry):
    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.log.append(request.headers.get("Authorization", "none"))
        return await self.serve(request)


def test_credentials_do_not_go_to_another_host_with_an_upload(stored: Stored) -> None:
    store = Noting()
    with serving(store) as other:
        server = Elsewhere(lambda: other)
        store.uploads = server.uploads
        with serving(server) as port:
            stored.push(f"127.0.0.1:{port}/a/b:1", auth=ANN)
    assert set(store.log[1::2]) == {"none"}
    assert len(store.blobs) == 3


def test_a_client_that_went_away_ends_the_push(stored: Stored, impatient: None) -> None:
    server = MemoryRegistry()

    def gone(message: ProgressMessage) -> None:
        if message.status == "Pushing":
            raise ConnectionResetError("the client closed the connection")

    with serving(server) as port, pytest.raises(ConnectionResetError):
        stored.push(f"127.0.0.1:{port}/a/b:1", progress=gone)
    assert server.manifests == {}


# Search


class Searchable(MemoryRegistry):
    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.path == "/v1/search"
        names = [f"{request.query['q']}{number}" for number in range(40)]
        results = [{"name": name, "description": None, "star_count": 3, "is_official": True} for name in names]
        return web.json_response({"num_results": 40, "results": results})


def test_a_search_returns_what_the_registry_finds_up_to_the_limit() -> None:
    with serving(Searchable()) as port:
        found = search(f"127.0.0.1:{port}", "a b/c", limit=2)
    assert [(match.name, match.star_count) for match in found] == [("a b/c0", 3), ("a b/c1", 3)]


def test_a_registry_without_search_or_without_an_answer_is_told_apart(registry: DockerRegistry) -> None:
    with pytest.raises(Unsupported, match="has no search"):
        search(registry.host, "x", limit=2)
    with pytest.raises(Unavailable, match="connection refused"):
        search(f"127.0.0.1:{free_port()}", "x", limit=2)
