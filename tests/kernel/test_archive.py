"""Images from making to removal, and their way through archives of every age."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tars import Tar

from naru.api.progress import ProgressMessage
from naru.content.store import ContentStore
from naru.errors import Conflict, Corrupt, InvalidArgument, NotFound
from naru.image import archive
from naru.image.snapshot import Snapshots
from naru.image.store import Image, Images, Roots
from naru.oci import digest
from naru.oci.digest import DiffID
from naru.oci.image import ContainerConfig, History, ImageConfig, RootFS
from naru.oci.reference import parse_familiar
from naru.persist.database import Database

pytestmark = pytest.mark.root

BASE = Tar().directory("bin").add("bin/sh", b"shell", mode=0o755).bytes()
TOP = Tar().add("app", b"application").add("bin/.wh.sh").bytes()


class Pipe(io.RawIOBase):
    """A source that cannot seek and hands out what it likes."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1000) if size >= 0 else -1)


class Site:
    """A data root."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        database = Database(root / "naru.db")
        self.content = ContentStore(root)
        self.snapshots = Snapshots(database, root / "snapshots")
        self.images = Images(database, self.content, self.snapshots)

    def make(self, *layers: bytes, tag: str | None = None, cmd: str = "sh") -> Image:
        """An image of gzip layers."""
        config = ImageConfig(
            architecture="amd64",
            os="linux",
            config=ContainerConfig(cmd=[cmd]),
            rootfs=RootFS(type="layers", diff_ids=[DiffID(digest.of(layer)) for layer in layers]),
            history=[History(created_by="ENV a=b", empty_layer=True), *(History(created_by="COPY") for _ in layers)],
        )
        with self.content.lease():
            blobs = [self.content.put(gzip.compress(layer, mtime=0), "application/gzip") for layer in layers]
            image = self.images.create(config, blobs)
            if tag is not None:
                self.images.tag(image.id, parse_familiar(tag))
        return self.images.get(image.id)

    def save(self, *names: str) -> bytes:
        sink = io.BytesIO()
        archive.save(names, sink, images=self.images, content=self.content)
        return sink.getvalue()

    def load(self, data: bytes) -> list[str]:
        """Load, and return the lines that a person sees."""
        lines: list[ProgressMessage] = []
        archive.load(Pipe(data), images=self.images, content=self.content, progress=lines.append, quiet=True)
        return [line.stream for line in lines]

    def blobs(self) -> int:
        return len(list(self.content.blobs()))

    def files(self, image: Image) -> set[str]:
        root = self.snapshots.mount_view(image.chain_id)
        try:
            return {
                os.path.relpath(os.path.join(parent, name), f"/proc/self/fd/{root}")
                for parent, _directories, names in os.walk(f"/proc/self/fd/{root}/.")
                for name in names
            }
        finally:
            os.close(root)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def other(tmp_path: Path) -> Site:
    return Site(tmp_path / "other")


def _tar(files: dict[str, bytes]) -> bytes:
    tar = Tar()
    for name, data in files.items():
        tar.add(name, data)
    return tar.bytes()


# Finding


def test_an_image_is_found_by_name_id_and_the_beginning_of_its_id(site: Site) -> None:
    image = site.make(BASE, TOP, tag="redis:7")
    hex_id = digest.encoded(image.id)
    for name in ("redis:7", "docker.io/library/redis:7", image.id, hex_id, hex_id[:12], hex_id[:1], image.id[:20]):
        assert site.images.get(name) == image
    assert image.tags == ("redis:7",) and image.size == len("shell" + "application")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("redis", "No such image: redis:latest"),
        ("redis:8", "No such image: redis:8"),
        ("deadbeef", "No such image: deadbeef:latest"),
        ("a" * 64, f"No such image: {'a' * 64}"),
        (f"sha256:{'a' * 64}", f"No such image: sha256:{'a' * 64}"),
        (f"redis@sha256:{'a' * 64}", f"No such image: redis@sha256:{'a' * 64}"),
    ],
)
def test_an_absent_image_is_named_as_docker_names_it(site: Site, name: str, message: str) -> None:
    with pytest.raises(NotFound) as refusal:
        site.images.get(name)
    assert str(refusal.value) == message


def test_the_beginning_of_several_ids_is_ambiguous(site: Site) -> None:
    for number in range(17):
        site.make(cmd=str(number))
    counts: dict[str, int] = {}
    for image in site.images.list():
        counts[image.id[7]] = counts.get(image.id[7], 0) + 1
    shared = max(counts, key=lambda letter: counts[letter])
    with pytest.raises(InvalidArgument, match="multiple IDs found with provided prefix"):
        site.images.get(shared)


def test_a_percent_sign_is_no_wildcard(site: Site) -> None:
    site.make(BASE)
    with pytest.raises(InvalidArgument):
        site.images.get("%")


def test_history_gives_each_step_its_layer_newest_first(site: Site) -> None:
    image = site.make(BASE, TOP, tag="x")
    lines = [(item.id, item.created_by, item.size) for item in site.images.history("x")]
    missing = "<missing>"
    assert lines == [(image.id, "COPY", 11), (missing, "COPY", 5), (missing, "ENV a=b", 0)]


# Making


def test_a_wrong_diff_id_records_nothing(site: Site) -> None:
    config = ImageConfig(rootfs=RootFS(type="layers", diff_ids=[DiffID(digest.of(TOP))]))
    with pytest.raises(Corrupt):
        site.images.create(config, [site.content.put(BASE)])
    assert site.images.list() == []
    assert [path.name for path in (site.root / "snapshots").iterdir()] == ["empty"]
    site.images.prune_content()
    assert site.blobs() == 0


def test_the_same_image_made_twice_at_once_is_one(site: Site) -> None:
    gate = threading.Barrier(3)

    def make() -> str:
        gate.wait(10)
        return site.make(BASE, TOP).id

    with ThreadPoolExecutor(3) as pool:
        assert len({future.result() for future in [pool.submit(make) for _ in range(3)]}) == 1
    assert len(site.snapshots.committed()) == 2


def test_a_name_moves_and_the_old_image_stays_without_it(site: Site) -> None:
    old, new = site.make(BASE, tag="app"), site.make(TOP)
    assert site.images.tag(new.id, parse_familiar("app")) == old.id
    assert site.images.get("app").id == new.id
    assert site.images.get(old.id).tags == ()


# Removing


def test_removing_the_last_name_removes_the_image_and_what_was_its_own(site: Site) -> None:
    site.make(BASE, tag="base")
    image = site.make(BASE, TOP, tag="app")
    items = [item.untagged or item.deleted for item in site.images.remove("app")]
    assert items == ["app:latest", image.id, image.chain_ids[1]]
    assert [chain.chain_id for chain in site.snapshots.committed()] == [image.chain_ids[0]]
    site.images.remove("base")
    assert site.blobs() == 0 and site.snapshots.committed() == []


def test_removing_one_of_two_names_only_untags(site: Site) -> None:
    image = site.make(BASE, tag="a")
    site.images.tag(image.id, parse_familiar("b"))
    assert [item.untagged for item in site.images.remove("a")] == ["a:latest"]
    assert site.images.get("b").tags == ("b:latest",)


def test_an_id_with_names_in_several_repositories_must_be_forced(site: Site) -> None:
    image = site.make(BASE, tag="a")
    site.images.tag(image.id, parse_familiar("b"))
    short = digest.short(image.id)
    with pytest.raises(Conflict) as refusal:
        site.images.remove(short)
    assert str(refusal.value) == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    assert [item.untagged for item in site.images.remove(short, force=True)][:2] == ["a:latest", "b:latest"]


CANNOT = "conflict: unable to delete {id} (cannot be forced) - image is being used by running container cccccccccccc"
MUST = "conflict: unable to delete {id} (must be forced) - image is being used by stopped container cccccccccccc"
BY_NAME = (
    'conflict: unable to remove repository reference "app" (must force) - container cccccccccccc is using its '
    "referenced image {id}"
)


@pytest.mark.parametrize(
    ("runs", "force", "by_name", "message"),
    [(True, True, False, CANNOT), (False, False, False, MUST), (False, False, True, BY_NAME)],
    ids=["running", "stopped", "by name"],
)
def test_a_used_image_is_refused_in_dockers_words(
    site: Site, runs: bool, force: bool, by_name: bool, message: str
) -> None:
    short = digest.short(site.make(BASE, tag="app").id)
    with pytest.raises(Conflict) as refusal:
        site.images.remove("app" if by_name else short, force=force, in_use=lambda _id: [("c" * 64, runs)])
    assert str(refusal.value) == message.format(id=short)


def test_forcing_away_the_name_of_a_running_image_leaves_it_dangling(site: Site) -> None:
    image = site.make(BASE, tag="app")
    items = site.images.remove("app", force=True, in_use=lambda _id: [("c" * 64, True)])
    assert [(item.untagged, item.deleted) for item in items] == [("app:latest", "")]
    assert site.images.get(image.id).tags == ()


def test_a_stopped_containers_layers_survive_the_forced_removal_of_its_image(site: Site) -> None:
    image = site.make(BASE, tag="app")
    site.snapshots.prepare("container", image.chain_id)
    site.images.remove(image.id, force=True, in_use=lambda _id: [("c" * 64, False)])
    assert site.snapshots.exists(image.chain_ids[0])
    site.snapshots.remove("container")
    site.images.prune_content()
    assert not site.snapshots.exists(image.chain_ids[0])


def test_pruning_keeps_what_others_need(site: Site) -> None:
    kept, cached = site.make(BASE, tag="kept"), site.content.put(b"cache")
    site.images.add_roots(lambda: Roots(blobs=frozenset({cached.digest})))
    site.content.put(b"lost")
    assert site.images.prune_content() == len(b"lost")
    assert site.content.exists(cached.digest) and site.images.get("kept") == kept


# Archives


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, zstandard.compress, lzma.compress], ids="tar gz zst xz".split()
)
def test_a_saved_image_is_loaded_elsewhere_as_the_same(site: Site, other: Site, compress: Any) -> None:
    site.images.tag(site.make(BASE, TOP, tag="redis:7").id, parse_familiar("host:5000/mine:x"))
    image = site.images.get("redis:7")
    saved = site.save("redis:7", "host:5000/mine:x")
    assert other.load(compress(saved)) == ["Loaded image: redis:7\n", "Loaded image: host:5000/mine:x\n"]
    again = other.images.get("redis:7")
    assert (again.id, again.tags, again.chain_ids) == (image.id, image.tags, image.chain_ids)
    assert other.files(again) == {"app"}


def test_what_load_did_not_need_is_not_kept(site: Site, other: Site) -> None:
    site.make(BASE, tag="a")
    other.load(site.save("a"))
    other.images.remove("a")
    assert other.blobs() == 0


def test_a_bare_name_saves_all_its_tags_and_an_id_none(site: Site, other: Site) -> None:
    first = site.make(BASE, tag="app:1")
    site.make(BASE, TOP, tag="app:2")
    assert sorted(other.load(site.save("app"))) == ["Loaded image: app:1\n", "Loaded image: app:2\n"]
    assert site.save("app").count(BASE[:512]) == 1
    assert other.load(site.save(first.id)) == [f"Loaded image ID: {first.id}\n"]


def test_loading_takes_a_name_from_another_image(site: Site, other: Site) -> None:
    site.make(BASE, tag="app")
    old = other.make(TOP, tag="app")
    lines = other.load(site.save("app"))
    assert lines[0] == f"The image app:latest already exists, renaming the old one with ID {old.id} to empty string\n"


def test_an_archive_of_an_older_docker_is_loaded(other: Site, site: Site) -> None:
    config = site.content.read(digest.Digest(site.make(BASE, TOP).id))
    manifest = [{"Config": "c.json", "RepoTags": ["old:1"], "Layers": ["aaa/layer.tar", "bbb/layer.tar"]}]
    tar = Tar().directory("aaa").add("aaa/VERSION", b"1.0").add("aaa/json", b"{}")
    tar.symlink("aaa/layer.tar", "../ccc/layer.tar").add("bbb/layer.tar", TOP).add("ccc/layer.tar", BASE)
    tar.add("c.json", config).add("manifest.json", json.dumps(manifest).encode())
    assert other.load(tar.bytes()) == ["Loaded image: old:1\n"]
    assert other.files(other.images.get("old:1")) == {"app"}


def _layout(layer: bytes, config: bytes, *, annotations: dict[str, str]) -> dict[str, bytes]:
    def entry(data: bytes, kind: str, **more: Any) -> dict[str, Any]:
        media_type = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media_type, "digest": digest.of(data), "size": len(data), **more}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": entry(config, "config.v1+json"),
            "layers": [entry(layer, "layer.v1.tar+gzip")],
        }
    ).encode()
    platform = {"os": "linux", "architecture": "amd64"}
    nested = json.dumps(
        {"schemaVersion": 2, "manifests": [entry(manifest, "manifest.v1+json", platform=platform)]}
    ).encode()
    top = json.dumps(
        {"schemaVersion": 2, "manifests": [entry(nested, "index.v1+json", annotations=annotations)]}
    ).encode()
    blobs = {f"blobs/sha256/{hashlib.sha256(data).hexdigest()}": data for data in (layer, config, manifest, nested)}
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": top, **blobs}


def _config(*layers: bytes) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [digest.of(layer) for layer in layers]}
    return json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": None}, "rootfs": rootfs}).encode()


def test_an_oci_layout_is_loaded(other: Site) -> None:
    files = _layout(gzip.compress(BASE), _config(BASE), annotations={"org.opencontainers.image.ref.name": "app:oci"})
    assert other.load(_tar(files)) == ["Loaded image: app:oci\n"]
    assert other.files(other.images.get("app:oci")) == {"bin/sh"}


def test_an_oci_layout_with_a_lying_blob_is_corrupt_and_leaves_nothing(other: Site) -> None:
    files = _layout(gzip.compress(BASE), _config(BASE), annotations={})
    victim = next(name for name in files if name.startswith("blobs/"))
    with pytest.raises(Corrupt):
        other.load(_tar({**files, victim: b"x" * len(files[victim])}))
    assert other.blobs() == 0 and other.images.list() == []


@pytest.mark.parametrize(
    "tar",
    [
        Tar().add("x"),
        Tar().add("manifest.json", b"{"),
        Tar().add("manifest.json", b'[{"Config":"../../etc/passwd","Layers":[]}]'),
        Tar().symlink("c", "/etc/passwd").add("manifest.json", b'[{"Config":"c","Layers":[]}]'),
        Tar().symlink("c", "c").add("manifest.json", b'[{"Config":"c","Layers":[]}]'),
        Tar().add("c", _config(BASE)).add("manifest.json", b'[{"Config":"c","Layers":[]}]'),
        Tar().add("c", _config(BASE)).add("l", TOP).add("manifest.json", b'[{"Config":"c","Layers":["l"]}]'),
        Tar().add("c", b"[" * 100_000).add("manifest.json", b'[{"Config":"c","Layers":[]}]'),
    ],
    ids="nothing json traversal symlink loop too-few-layers other-layer nested".split(),
)
def test_hostile_archives_load_nothing(other: Site, tar: Tar) -> None:
    with pytest.raises((Corrupt, InvalidArgument)):
        other.load(tar.bytes())
    assert other.images.list() == [] and other.blobs() == 0 and other.snapshots.committed() == []


def test_a_root_file_system_becomes_an_image(site: Site) -> None:
    image = archive.import_rootfs(
        Pipe(lzma.compress(BASE)), parse_familiar("imported"), images=site.images, content=site.content
    )
    assert image.tags == ("imported:latest",) and site.files(image) == {"bin/sh"}
    assert site.images.history("imported")[0].comment == "Imported from -"


@pytest.mark.peer
def test_skopeo_reads_what_we_save_as_docker_archive_and_as_oci_layout(site: Site, tmp_path: Path) -> None:
    skopeo = shutil.which("skopeo") or pytest.skip("needs skopeo")
    image = site.make(BASE, TOP, tag="app:1")
    saved = tmp_path / "saved.tar"
    saved.write_bytes(site.save("app:1"))
    for source in (f"docker-archive:{saved}:app:1", f"oci-archive:{saved}:1"):
        shown = subprocess.run([skopeo, "inspect", "--config", "--raw", source], check=True, capture_output=True)
        assert digest.of(shown.stdout) == image.id
        target = f"dir:{tmp_path / digest.encoded(digest.of(source.encode()))}"
        subprocess.run([skopeo, "copy", "--insecure-policy", source, target], check=True, capture_output=True)


def test_an_archive_is_a_tar_like_any_other(site: Site) -> None:
    image = site.make(BASE, TOP, tag="app")
    with tarfile.open(fileobj=io.BytesIO(site.save("app"))) as tar:
        names = tar.getnames()
        manifest = json.load(tar.extractfile("manifest.json") or pytest.fail("no manifest.json"))
    assert names[-4:] == ["index.json", "manifest.json", "oci-layout", "repositories"]
    assert manifest == [
        {
            "Config": f"blobs/sha256/{digest.encoded(image.id)}",
            "RepoTags": ["app:latest"],
            "Layers": [f"blobs/sha256/{digest.encoded(diff_id)}" for diff_id in image.config.rootfs.diff_ids],
        }
    ]
