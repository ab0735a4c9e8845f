"""Registries by the unmodified docker command line and by naru's: push, log in, search, look at what one has.

The registries are Debian's, in the daemon's network namespace; skopeo judges what arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from daemon import Daemon, Done, wait_until
from registry import PASSWORD, USER, DockerRegistry, MemoryRegistry, can_connect, docker_registry, serving
from registry import make_certificates as make_certificates_for

import naru.cli

pytestmark = pytest.mark.root

PLAIN, LOCKED, SECURE = 5000, 5001, 5002


@contextlib.contextmanager
def inside(narud: Daemon, directory: Path, port: int, **options: object) -> Iterator[DockerRegistry]:
    """A registry in the daemon's namespace."""
    with docker_registry(
        directory,
        port=port,
        prefix=narud.namespace.command(),
        connect=lambda address: narud.namespace.call(can_connect, address),
        **options,  # type: ignore[arg-type]
    ) as running:
        yield running


@pytest.fixture(scope="module")
def plain(shared_narud: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with inside(shared_narud, tmp_path_factory.mktemp("plain"), PLAIN) as running:
        yield running.host


@pytest.fixture(scope="module")
def locked(shared_narud: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with inside(shared_narud, tmp_path_factory.mktemp("locked"), LOCKED, has_users=True) as running:
        yield running.host


@pytest.fixture
def narud(narud: Daemon) -> Iterator[Daemon]:
    """The shared daemon; names that the test gave and credentials that it stored are removed, too."""
    yield narud
    for reference in narud("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines():
        if reference.startswith(("127.", narud.namespace.address)):
            narud("rmi", "--force", reference)
    shutil.rmtree(narud.client_env["DOCKER_CONFIG"], ignore_errors=True)


def naru_(narud: Daemon, *arguments: str, stdin: str = "") -> Done:
    """Run naru's own command line to its end."""
    program = [sys.executable, "-I", "-S", f"{os.path.dirname(naru.cli.__file__)}/__main__.py"]
    done = subprocess.run([*program, *arguments], env=narud.client_env, input=stdin, capture_output=True, text=True)
    return Done(done.returncode, done.stdout, done.stderr)


def skopeo(narud: Daemon, *arguments: str) -> str:
    if shutil.which("skopeo") is None:
        pytest.skip("needs skopeo (libexec/install-test-peers)")
    return narud.namespace.run("skopeo", *arguments)


def digests(narud: Daemon, image: str) -> list[str]:
    return list(json.loads(narud("image", "inspect", "--format", "{{json .RepoDigests}}", image)))


def manifest_at(narud: Daemon, reference: str) -> dict[str, Any]:
    return dict(json.loads(skopeo(narud, "inspect", "--raw", "--tls-verify=false", f"docker://{reference}")))


def test_a_pushed_image_comes_back_and_runs(narud: Daemon, plain: str) -> None:
    name = f"{plain}/team/box:1"
    narud("tag", "busybox", name)
    out = narud("push", name)
    digest = next(line.split()[2] for line in out.splitlines() if line.startswith("1: digest: sha256:"))
    assert out.splitlines()[0] == f"The push refers to repository [{plain}/team/box]"
    assert f"{plain}/team/box@{digest}" in digests(narud, name)

    narud("rmi", name)
    narud("pull", name)
    assert narud("run", "--rm", f"{plain}/team/box@{digest}", "echo", "hi") == "hi"


def families(manifest: dict[str, Any]) -> set[str]:
    """Whose media types a manifest has: oci, docker, or both."""
    parts = (manifest, manifest["config"], *manifest["layers"])
    return {part["mediaType"].removeprefix("application/vnd.").partition(".")[0] for part in parts}


def test_skopeo_takes_what_was_pushed(narud: Daemon, plain: str, tmp_path: Path) -> None:
    name = f"{plain}/team/for-others:1"
    narud("tag", "busybox", name)
    narud("push", "--quiet", name)
    skopeo(narud, "copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/copy")
    manifest = json.loads((tmp_path / "copy/manifest.json").read_bytes())
    assert families(manifest) == {"oci"}
    assert all(part["mediaType"].endswith("gzip") for part in manifest["layers"])


def test_dockers_media_types_are_kept_as_they_came_and_never_mixed(narud: Daemon, plain: str, tmp_path: Path) -> None:
    base = f"{plain}/team/dockers:1"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /base\n")
    narud("build", "--quiet", "--tag", f"{plain}/team/ours:1", str(tmp_path))
    narud("push", f"{plain}/team/ours:1")
    anywhere = ("--src-tls-verify=false", "--dest-tls-verify=false")
    skopeo(narud, "copy", "--format=v2s2", *anywhere, f"docker://{plain}/team/ours:1", f"docker://{base}")
    narud("pull", "--quiet", base)
    narud("tag", base, f"{plain}/team/passed-on:1")
    narud("push", f"{plain}/team/passed-on:1")
    assert manifest_at(narud, f"{plain}/team/passed-on:1") == manifest_at(narud, base)
    assert families(manifest_at(narud, base)) == {"docker"}

    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nCOPY Dockerfile /x\n")
    narud("build", "--quiet", "--tag", f"{plain}/team/on-top:1", str(tmp_path))
    narud("push", f"{plain}/team/on-top:1")
    assert families(manifest_at(narud, f"{plain}/team/on-top:1")) == {"oci"}


def test_a_layers_state_is_drawn_on_a_terminal(narud: Daemon, plain: str, tmp_path: Path) -> None:
    name = f"{plain}/team/bars:1"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /bars\n")
    narud("build", "--quiet", "--tag", name, str(tmp_path))
    first = narud.terminal("push", name)
    assert first.end() == 0
    assert "Pushed" in first.seen
    second = narud.terminal("push", name)
    assert second.end() == 0
    assert "Layer already exists" in second.seen


def test_all_tags_of_a_repository_are_pushed(narud: Daemon, plain: str) -> None:
    [narud("tag", "busybox", f"{plain}/team/many:{tag}") for tag in ("a", "b")]
    narud("push", "--all-tags", f"{plain}/team/many")
    listed = json.loads(skopeo(narud, "list-tags", "--tls-verify=false", f"docker://{plain}/team/many"))
    assert sorted(listed["Tags"]) == ["a", "b"]


def test_a_layer_that_another_repository_there_has_is_mounted(narud: Daemon, plain: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo mounted >/file\n")
    narud("build", "--quiet", "--tag", f"{plain}/team/first:1", str(tmp_path))
    narud("push", f"{plain}/team/first:1")
    narud("tag", f"{plain}/team/first:1", f"{plain}/team/second:1")
    assert "Mounted from team/first" in narud("push", f"{plain}/team/second:1")


def test_a_push_is_an_event(narud: Daemon, plain: str) -> None:
    name = f"{plain}/team/told:1"
    narud("tag", "busybox", name)
    narud("push", name)
    until = str(int(time.time()) + 1)
    told = narud("events", "--since", "1m", "--until", until, "--filter", "event=push", "--format", "{{.Actor.ID}}")
    assert name in told.splitlines()


def test_what_is_not_here_is_refused_in_dockers_words(narud: Daemon, plain: str) -> None:
    refused = narud.docker("push", f"{plain}/team/nonesuch:1")
    assert refused.code == 1
    assert f"An image does not exist locally with the tag: {plain}/team/nonesuch" in refused.err
    narud("tag", "busybox", f"{plain}/team/once:1")
    assert f"tag does not exist: {plain}/team/once:2" in narud.docker("push", f"{plain}/team/once:2").err


def test_a_loaded_image_is_pushed_compressed_and_kept_once(narud: Daemon, plain: str, tmp_path: Path) -> None:
    name = f"{plain}/team/loaded:1"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /only/here\n")
    narud("build", "--quiet", "--tag", name, str(tmp_path))
    narud("save", "--output", str(tmp_path / "saved.tar"), name)
    narud("rmi", "--force", name)
    narud("builder", "prune", "--force")
    narud("load", "--input", str(tmp_path / "saved.tar"))
    before = narud("inspect", "--format", "{{.Id}} {{.RootFS.Layers}}", name)

    narud("push", name)

    assert narud("inspect", "--format", "{{.Id}} {{.RootFS.Layers}}", name) == before
    (layer,) = manifest_at(narud, name)["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    diff_id = before.partition("[")[2].rstrip("]")
    assert not (narud.data / "blobs/sha256" / diff_id.removeprefix("sha256:")).exists()
    assert (narud.data / "blobs/sha256" / layer["digest"].removeprefix("sha256:")).exists()
    narud("save", "--output", str(tmp_path / "again.tar"), name)


def test_login_is_tried_and_lasts_until_logout(narud: Daemon, locked: str) -> None:
    name = f"{locked}/team/box:1"
    narud("tag", "busybox", name)
    assert "no basic auth credentials" in narud.docker("push", name).err
    wrong = narud.docker("login", "--username", USER, "--password-stdin", locked, stdin=b"wrong")
    assert f"login attempt to http://{locked}/v2/ failed with status: 401 Unauthorized" in wrong.err
    login = narud("login", "--username", USER, "--password-stdin", locked, stdin=PASSWORD.encode())
    assert login.endswith("Login Succeeded")
    narud("push", name)
    narud("rmi", name)
    narud("pull", "--quiet", name)
    narud("logout", locked)
    assert "no basic auth credentials" in narud.docker("push", name).err


def test_docker_hub_is_what_a_login_without_a_name_means(narud: Daemon) -> None:
    refused = narud.docker("login", "--username", "nobody-of-this-name", "--password-stdin", stdin=b"wrong")
    assert refused.code == 1
    assert 'Get "https://registry-1.docker.io/v2/": ' in refused.err


def test_naru_logs_in_pushes_and_logs_out(narud: Daemon, locked: str) -> None:
    name = f"{locked}/team/by-naru:1"
    narud("tag", "busybox", name)
    assert naru_(narud, "login", "-u", USER, "--password-stdin", locked, stdin="wrong\n").code == 1
    assert "Login Succeeded" in naru_(narud, "login", "-u", USER, "--password-stdin", locked, stdin=PASSWORD).out
    pushed = naru_(narud, "push", name)
    assert (pushed.code, pushed.out.splitlines()[-1].partition(" sha256:")[0]) == (0, "1: digest:")
    assert naru_(narud, "logout", locked).out == f"Removing login credentials for {locked}\n"
    refused = naru_(narud, "push", name)
    assert (refused.code, "no basic auth credentials" in refused.err) == (1, True)


def test_a_registrys_own_authority_is_believed_where_certs_d_names_it(narud: Daemon, tmp_path: Path) -> None:
    address = narud.namespace.address
    certificates = make_certificates_for(tmp_path, address)
    pair = (certificates / "cert.pem", certificates / "key.pem")
    with inside(narud, tmp_path / "secure", SECURE, address=address, certificate=pair) as secure:
        name = f"{secure.host}/team/box:1"
        narud("tag", "busybox", name)
        assert "certificate verify failed" in narud.docker("push", name).err
        with certs_d(secure.host, certificates / "ca.pem"):
            narud("push", name)
            narud("rmi", name)
            narud("pull", "--quiet", name)
        assert "certificate verify failed" in narud.docker("push", name).err


@contextlib.contextmanager
def certs_d(host: str, authority: Path) -> Iterator[None]:
    """/etc/docker/certs.d/<host>/ca.crt, and what of that was not there before removed again."""
    with contextlib.ExitStack() as undo:
        for directory in (Path("/etc/docker"), Path("/etc/docker/certs.d"), Path("/etc/docker/certs.d") / host):
            if not directory.is_dir():
                directory.mkdir()
                undo.callback(directory.rmdir)
        shutil.copy(authority, directory / "ca.crt")
        undo.callback((directory / "ca.crt").unlink)
        yield


def test_a_registry_named_as_insecure_may_do_without_tls(busybox_archive: Path, tmp_path: Path) -> None:
    with contextlib.closing(Daemon("--insecure-registry=198.18.0.0/15")) as narud:
        address = narud.namespace.address
        narud("load", "--input", str(busybox_archive))
        with inside(narud, tmp_path / "registry", PLAIN, address=address) as registry:
            narud("tag", "busybox", f"{registry.host}/box:1")
            narud("push", f"{registry.host}/box:1")
        config = json.loads(narud("info", "--format", "{{json .RegistryConfig}}"))
        assert config["InsecureRegistryCIDRs"] == ["127.0.0.0/8", "::1/128", "198.18.0.0/15"]


def test_a_registry_that_is_not_named_has_to_speak_tls(narud: Daemon, tmp_path: Path) -> None:
    address = narud.namespace.address
    with inside(narud, tmp_path / "registry", SECURE, address=address) as registry:
        narud("tag", "busybox", f"{registry.host}/box:1")
        assert f'Get "https://{registry.host}/v2/"' in narud.docker("push", f"{registry.host}/box:1").err


def test_docker_py_logs_in_and_pushes(narud: Daemon, locked: str) -> None:
    name = f"{locked}/team/by-docker-py"
    narud("tag", "busybox", f"{name}:1")
    api = narud.api
    assert api.login(USER, PASSWORD, registry=locked, reauth=True)["Status"] == "Login Succeeded"
    lines = list(api.push(name, tag="1", stream=True, decode=True))
    assert lines[-1]["aux"]["Tag"] == "1"
    refused = list(api.push(name, tag="2", stream=True, decode=True))
    assert refused[-1]["errorDetail"] == {"message": f"tag does not exist: {name}:2"}


def test_only_the_platform_that_is_here_can_be_pushed(narud: Daemon, plain: str) -> None:
    name = f"{plain}/team/platform:1"
    narud("tag", "busybox", name)
    refused = narud.docker("push", "--platform", "linux/s390x", name)
    assert "does not provide the specified platform (linux/s390x)" in refused.err
    here = narud("inspect", "--format", "{{.Os}}/{{.Architecture}}", name)
    narud("push", "--platform", here, name)


def test_what_a_registry_has_is_told_with_its_platforms(narud: Daemon, plain: str) -> None:
    name = f"{plain}/team/asked:1"
    narud("tag", "busybox", name)
    narud("push", name)
    found = narud.api.inspect_distribution(name)
    assert f"{plain}/team/asked@{found['Descriptor']['digest']}" in digests(narud, name)
    assert [platform["os"] for platform in found["Platforms"]] == ["linux"]


def test_every_platform_of_an_index_is_told(narud: Daemon, plain: str, tmp_path: Path) -> None:
    name = f"{plain}/team/index:1"
    narud("tag", "busybox", name)
    narud("push", name)
    manifest = skopeo(narud, "inspect", "--raw", "--tls-verify=false", f"docker://{name}").encode()
    digest = narud.api.inspect_distribution(name)["Descriptor"]["digest"]
    entry = {"mediaType": json.loads(manifest)["mediaType"], "digest": digest, "size": len(manifest)}
    places = [{"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm", "variant": "v7"}]
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
    document = json.dumps(index | {"manifests": [entry | {"platform": place} for place in places]})
    put = f"import urllib.request as u;u.urlopen(u.Request('http://{plain}/v2/team/index/manifests/all',method='PUT',data={document.encode()!r},headers={{'Content-Type':{index['mediaType']!r}}}))"
    narud.namespace.run(sys.executable, "-c", put)
    found = narud.api.inspect_distribution(f"{plain}/team/index:all")
    assert found["Descriptor"]["mediaType"] == index["mediaType"]
    assert found["Platforms"] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "variant": "v7"},
    ]


def test_search_is_strict_about_what_it_is_asked(narud: Daemon, plain: str) -> None:
    assert "limit 101 is outside the range of [1, 100]" in narud.docker("search", "--limit", "101", "redis").err
    assert "invalid filter 'nonsense'" in narud.docker("search", "--filter", "nonsense=1", "redis").err
    assert f"search at {plain}: this registry has no search" in narud.docker("search", f"{plain}/redis").err


def test_search_at_a_registry_that_has_one(narud: Daemon) -> None:
    with serving(searchable, narud.namespace.call(listening)) as port:
        host = f"127.0.0.1:{port}"
        assert narud("search", "--format", "{{.Name}} {{.StarCount}}", f"{host}/web") == "team/web 7\nweb 90"
        assert narud("search", "--format", "{{.Name}}", "--filter", "stars=10", f"{host}/web") == "web"
        assert narud("search", "--format", "{{.Name}}", "--filter", "is-official=false", f"{host}/web") == "team/web"
        assert "team/web" in naru_(narud, "search", f"{host}/web").out


async def searchable(request: web.Request) -> web.StreamResponse:
    assert (request.path, request.query["q"]) == ("/v1/search", "web")
    team = {"name": "team/web", "star_count": 7, "description": "ours"}
    return web.json_response({"results": [team, {"name": "web", "star_count": 90, "is_official": True}]})


def listening() -> socket.socket:
    """A socket bound to a free port of loopback, for `Namespace.call`."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


class Stuck(MemoryRegistry):
    """Takes the beginning of a layer and then no more."""

    is_stuck = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method != "PATCH":
            return await self.serve(request)
        await request.content.readany()
        self.is_stuck = True
        return await asyncio.Future()  # until the server is closed


def test_a_push_whose_daemon_is_killed_leaves_nothing_half_done(own_narud: Daemon, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM busybox\nRUN head -c 20000000 /dev/urandom >/file\n")
    server = Stuck()
    with serving(server, own_narud.namespace.call(listening)) as port:
        name = f"127.0.0.1:{port}/team/killed:1"
        own_narud("build", "--quiet", "--tag", name, str(tmp_path / "context"))
        pushing = own_narud.popen("push", name)
        wait_until(lambda: server.is_stuck)
        own_narud.restart()
        assert pushing.wait(20) != 0
    assert server.manifests == {}
    assert digests(own_narud, name) == []
    assert list((own_narud.data / "ingest").iterdir()) == []
    with inside(own_narud, tmp_path / "registry", PLAIN) as registry:
        own_narud("tag", name, f"{registry.host}/team/killed:1")
        own_narud("push", f"{registry.host}/team/killed:1")
