"""Images by the unmodified docker command line: what is there, its names, its way out and back in, and building."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon

pytestmark = pytest.mark.root


@pytest.fixture
def narud(narud: Daemon) -> Iterator[Daemon]:
    """The shared daemon; images that the test named are removed, too."""
    before = set(_names(narud))
    yield narud
    narud.clear()
    [narud("rmi", "--force", name) for name in set(_names(narud)) - before]


def _names(narud: Daemon) -> list[str]:
    return narud("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "dangling=false").splitlines()


def test_version_names_both_sides(narud: Daemon) -> None:
    version = json.loads(narud("version", "--format", "{{json .}}"))
    assert version["Server"]["ApiVersion"] >= "1.44"
    assert "naru" in version["Server"]["Platform"]["Name"].lower()
    assert version["Server"]["Os"] == "linux"


def test_info_counts_containers_and_images(narud: Daemon) -> None:
    narud("create", "busybox")
    info = json.loads(narud("info", "--format", "{{json .}}"))
    assert (info["Containers"], info["ContainersRunning"], info["ContainersStopped"]) == (1, 0, 1)
    assert info["Images"] >= 1
    assert info["DockerRootDir"] == str(narud.data)
    assert "ERROR" not in narud("info")


def test_images_are_listed_and_filtered(narud: Daemon) -> None:
    narud("tag", "busybox", "other:1")
    assert {"busybox:latest", "other:1"} <= set(_names(narud))
    assert narud("images", "--format", "{{.Tag}}", "other") == "1"
    assert narud("images", "--quiet", "--no-trunc", "other") == narud("inspect", "--format", "{{.Id}}", "busybox")
    assert narud("images", "--quiet", "--filter", "reference=oth*:*").count("\n") == 0
    assert narud("images", "--quiet", "nonesuch") == ""


def test_a_tag_is_another_name_and_untagging_leaves_the_image(narud: Daemon) -> None:
    narud("tag", "busybox", "127.0.0.1:5000/team/box:v1")
    assert narud("run", "--rm", "127.0.0.1:5000/team/box:v1", "echo", "hi") == "hi"
    assert narud("rmi", "127.0.0.1:5000/team/box:v1") == "Untagged: 127.0.0.1:5000/team/box:v1"
    assert narud("run", "--rm", "busybox", "echo", "hi") == "hi"


def test_rmi_refuses_an_image_in_use(narud: Daemon) -> None:
    container = narud("create", "busybox")
    refused = narud.docker("rmi", "busybox")
    assert refused.code == 1
    assert "conflict: unable to remove repository reference" in refused.err
    assert f"container {container[:12]} is using its referenced image" in refused.err
    assert "No such image: nonesuch" in narud.docker("rmi", "nonesuch").err


def test_history_and_inspect_agree_about_the_layers(narud: Daemon) -> None:
    image = json.loads(narud("image", "inspect", "busybox"))[0]
    assert image["Config"]["Cmd"] == ["sh"]
    assert image["Architecture"] in ("amd64", "arm64")
    lines = narud("history", "--no-trunc", "--format", "{{.Size}} {{.CreatedBy}}", "busybox").splitlines()
    assert "CMD" in lines[0]
    assert [line.startswith("0B ") for line in lines].count(False) == len(image["RootFS"]["Layers"])


def test_saved_and_loaded_it_is_the_same_image(narud: Daemon, tmp_path: Path) -> None:
    archive = tmp_path / "busybox.tar"
    narud("tag", "busybox", "saved:1")
    before = narud("inspect", "--format", "{{.Id}}", "saved:1")
    narud("save", "--output", str(archive), "saved:1")
    narud("rmi", "saved:1")
    assert narud("load", "--input", str(archive)) == "Loaded image: saved:1"
    assert narud("inspect", "--format", "{{.Id}}", "saved:1") == before
    assert narud("run", "--rm", "saved:1", "echo", "alive") == "alive"


def test_a_saved_archive_is_dockers_and_an_oci_layout(narud: Daemon, tmp_path: Path) -> None:
    (tmp_path / "busybox.tar").write_bytes(narud.docker_bytes("save", "busybox"))
    with tarfile.open(tmp_path / "busybox.tar") as archive:
        manifest = json.load(archive.extractfile("manifest.json") or _none())[0]
        index = json.load(archive.extractfile("index.json") or _none())
        config = (archive.extractfile(manifest["Config"]) or _none()).read()
        layers = [(archive.extractfile(name) or _none()).read() for name in manifest["Layers"]]
    assert manifest["RepoTags"] == ["busybox:latest"]
    assert f"sha256:{hashlib.sha256(config).hexdigest()}" == narud("inspect", "--format", "{{.Id}}", "busybox")
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    assert digests == json.loads(config)["rootfs"]["diff_ids"]
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "docker.io/library/busybox:latest"


def _none() -> object:
    raise AssertionError("not a file")


def test_a_legacy_archive_is_loaded(narud: Daemon, busybox_archive: Path, tmp_path: Path) -> None:
    with tarfile.open(busybox_archive) as archive:
        archive.extractall(tmp_path / "new")
    new = tmp_path / "new"
    manifest = json.loads((new / "manifest.json").read_text())[0]
    old = tmp_path / "old"
    (old / "abc").mkdir(parents=True)
    (new / manifest["Layers"][0]).rename(old / "abc/layer.tar")
    (new / manifest["Config"]).rename(old / "config.json")
    described = [{"Config": "config.json", "RepoTags": ["legacy:1"], "Layers": ["abc/layer.tar"]}]
    (old / "manifest.json").write_text(json.dumps(described))
    with tarfile.open(tmp_path / "old.tar.gz", "w:gz") as archive:
        archive.add(old, ".")
    assert narud("load", "--input", f"{tmp_path}/old.tar.gz") == "Loaded image: legacy:1"
    assert narud("run", "--rm", "legacy:1", "echo", "alive") == "alive"


def test_pull_again_says_it_is_up_to_date(narud: Daemon) -> None:
    assert "docker.io/library/busybox:latest" in narud("pull", "busybox")


def test_build_makes_an_image_step_by_step_and_again_from_cache(narud: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS first\nARG WHO=nobody\nRUN echo hello $WHO >/greeting\n"
        "FROM busybox\nLABEL made=by-test\nENV A=1 B='two words'\nWORKDIR /work\n"
        "COPY --from=first /greeting .\nCOPY local sub/\nEXPOSE 80\nVOLUME /data\nUSER nobody\n"
        'ENTRYPOINT ["cat"]\nCMD ["greeting", "sub/local"]\n'
    )
    (tmp_path / "local").write_text("local\n")
    (tmp_path / ".dockerignore").write_text("ignored\n")
    (tmp_path / "ignored").write_text("x" * 1000)
    first = narud("build", "--tag", "built:1", "--build-arg", "WHO=world", str(tmp_path), timeout_s=120)
    assert "Step 3/14 : RUN echo hello $WHO >/greeting" in first
    assert "Successfully tagged built:1" in first
    assert narud("run", "--rm", "built:1") == "hello world\nlocal"
    config = json.loads(narud("inspect", "--format", "{{json .Config}}", "built:1"))
    assert (config["User"], config["WorkingDir"], config["Labels"]["made"]) == ("nobody", "/work", "by-test")
    assert set(config["Env"]) >= {"A=1", "B=two words"}
    again = narud("build", "--tag", "built:2", "--build-arg", "WHO=world", str(tmp_path))
    assert again.count("Using cache") >= 3
    assert narud("inspect", "--format", "{{.Id}}", "built:1") == narud("inspect", "--format", "{{.Id}}", "built:2")


def test_a_build_that_fails_says_where_and_names_nothing(narud: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo before; exit 9\n")
    done = narud.docker("build", "--tag", "failed:1", str(tmp_path))
    assert done.code == 9 or done.code == 1
    assert "The command '/bin/sh -c echo before; exit 9' returned a non-zero code: 9" in done.err
    assert "failed:1" not in _names(narud)


def test_a_build_of_nonsense_says_which_line(narud: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nNONSENSE here\n")
    done = narud.docker("build", str(tmp_path))
    assert done.code == 1
    assert "unknown instruction: NONSENSE" in done.err
