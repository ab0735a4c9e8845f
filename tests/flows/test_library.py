"""The library against a real Debian mirror: bootstraps in a chroot and in our own container, recipes, entrypoints."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from naru.build.builder import Builder
from naru.build.step import StepRunner
from naru.content.store import ContentStore
from naru.errors import InvalidArgument, Unavailable
from naru.image.snapshot import Snapshots
from naru.image.store import Image, Images
from naru.kernel import netns
from naru.kernel.loopback import bring_loopback_up
from naru.launcher import spawn
from naru.library.apt_config import read_apt_config
from naru.library.debian_bootstrap import Bootstrap, Bootstrapped
from naru.library.debian_index import fetch_index, keyring
from naru.library.debian_resolve import resolve
from naru.library.fetch import Fetcher
from naru.library.library import Library
from naru.library.recipes import DockerfileRecipe, Recipes, recipes_root
from naru.network.networks import Networks
from naru.network.record import Sandbox
from naru.oci import platform as platforms
from naru.oci.reference import parse_familiar
from naru.persist.database import Database
from naru.task.tasks import Tasks

LIBRARY = Path(__file__).parents[2] / "library"

pytestmark = [
    pytest.mark.packages,
    pytest.mark.root,
    pytest.mark.skipif(platforms.host().architecture != "amd64", reason="the mirror is asked for amd64"),
]


def chroot(root: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command on `root` in namespaces of its own, with a /dev as containers have; return its output."""
    prepare = (
        "mount -t tmpfs dev /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/zero c 1 5 "
        '&& mknod -m 666 /dev/urandom c 1 9 && exec "$@"'
    )
    command = ["unshare", "--mount", "--pid", "--fork", f"--root={root}", "--mount-proc"]
    done = subprocess.run(
        [*command, "/bin/sh", "-c", prepare, "sh", *arguments],
        env=dict(environment or {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def bootstrap(root: Path, suite: str, *, slim: bool = True) -> Bootstrapped:
    def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        chroot(root, arguments, environment)
        return 0

    maker = Bootstrap(read_apt_config(os.environ), shipped_keyring=LIBRARY / "debian/keyring.gpg")
    root.mkdir()
    try:
        return maker.make(str(root), suite, architecture="amd64", slim=slim, run=run, progress=lambda _text: None)
    except Unavailable as error:
        pytest.skip(f"needs a Debian mirror: {error}")


@pytest.fixture(scope="module")
def trixie(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("library") / "trixie"
    bootstrap(root, "trixie")
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def bookworm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("library") / "bookworm"
    bootstrap(root, "bookworm", slim=False)
    yield root
    shutil.rmtree(root)


def listing(root: Path) -> list[str]:
    form = "%P %m %U:%G %s %T@ %l\\n"
    text = subprocess.run(["find", str(root), "-printf", form], capture_output=True, text=True, check=True).stdout
    return sorted(text.splitlines())


def test_every_package_is_installed_and_nothing_waits(trixie: Path) -> None:
    states = chroot(trixie, ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${db:Status-Want}\n"]).split("\n")
    assert set(filter(None, states)) == {"ii install"}
    assert chroot(trixie, ["dpkg", "--audit"]) == ""


def test_the_files_of_a_full_image_are_what_dpkg_says_they_are(bookworm: Path) -> None:
    assert chroot(bookworm, ["dpkg", "--verify"]) == ""


def test_apt_installs_a_package_from_the_mirror_that_was_used(trixie: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(trixie), str(root)], check=True)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy("/etc/hosts", root / "etc/hosts")
    relaxed = [] if read_apt_config(os.environ).check_valid_until else ["-oAcquire::Check-Valid-Until=false"]
    chroot(root, ["apt-get", *relaxed, "-qq", "update"])
    chroot(root, ["apt-get", *relaxed, "-qq", "install", "--yes", "--no-install-recommends", "redis-server"])
    assert "v=8.0" in chroot(root, ["redis-server", "--version"])
    assert not (root / "usr/share/man/man1/redis-server.1.gz").exists()
    shutil.rmtree(root)


def test_two_bootstraps_from_one_index_are_equal(trixie: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    bootstrap(again, "trixie")
    assert listing(again) == listing(trixie)
    assert subprocess.run(["diff", "-r", "--no-dereference", str(trixie), str(again)]).returncode == 0
    shutil.rmtree(again)


def test_usr_is_merged_in_both_suites(trixie: Path, bookworm: Path) -> None:
    links = ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64"]
    assert [os.readlink(trixie / name) for name in ("bin", "sbin", "lib", "lib64")] == links
    assert [os.readlink(bookworm / name) for name in ("bin", "sbin", "lib", "lib64")] == links


@pytest.mark.peer
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_the_package_list_is_debootstraps(suite: str, tmp_path: Path) -> None:
    program = shutil.which("debootstrap")
    if program is None:
        pytest.skip("needs debootstrap to compare with")
    config = read_apt_config(os.environ)
    sources = config.mirrors(suite)
    theirs = subprocess.run(
        [program, "--variant=minbase", "--print-debs", suite, str(tmp_path / "root"), sources[0].uri],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    fetcher = Fetcher(proxies=config.proxies, credentials=config.credentials)
    _releases, index = fetch_index(fetcher, sources, keyring(None), "amd64", check_valid_until=config.check_valid_until)
    fetcher.close()
    assert sorted(package.name for package in resolve(index)) == sorted(theirs)


def test_a_short_name_finds_the_recipe_docker_users_expect() -> None:
    recipes = Recipes(recipes_root({}))
    redis = recipes.find(parse_familiar("redis"))
    assert isinstance(redis, DockerfileRecipe)
    assert redis.arguments == {"DEBIAN": "trixie"}
    assert recipes.find(parse_familiar("redis:7.0")) != redis
    assert recipes.find(parse_familiar("somebody/redis")) is None
    assert recipes.find(parse_familiar("redis:nonesuch")) is None


def test_no_tag_is_claimed_by_two_images() -> None:
    tags = [f"{recipe.name}:{tag}" for recipe in Recipes(LIBRARY).all() for tag in recipe.tags]
    assert sorted(tags) == sorted(set(tags))


def test_the_library_can_be_turned_off() -> None:
    assert Recipes(recipes_root({"NARU_LIBRARY": "off"})).find(parse_familiar("redis")) is None


class NoNetworks:
    """Sandboxes with nothing but loopback: the host's links and firewall are not the tests' to touch."""

    def __init__(self) -> None:
        self.joined: dict[str, int] = {}

    def private_netns(self) -> int:
        return netns.create(bring_loopback_up)[0]

    def join(self, sandbox_id: str, endpoints: object, ports: object = ()) -> Sandbox:
        self.joined[sandbox_id] = self.private_netns()
        return Sandbox(sandbox_id, self.joined[sandbox_id])

    def leave(self, sandbox_id: str) -> None:
        self.joined.pop(sandbox_id, None)


class Site:
    """A library with everything real below it but networks, over a data root of its own."""

    def __init__(self, root: Path, launcher: socket.socket) -> None:
        self.root = root
        self.database = Database(root / "naru.db")
        self.content = ContentStore(root)
        self.snapshots = Snapshots(self.database, root / "snapshots")
        self.images = Images(self.database, self.content, self.snapshots)
        self.tasks = Tasks(launcher, str(root / "run"))
        self.runner = StepRunner(self.tasks, cast(Networks, NoNetworks()), root / "build", {})
        self.said: list[str] = []

    def library(self, recipes: Path = LIBRARY, **environ: str) -> Library:
        return Library(
            Recipes(recipes),
            make_builder=lambda resolve: Builder(
                self.content, self.images, self.snapshots, self.runner, resolve, self.root, self.database
            ),
            content=self.content,
            images=self.images,
            snapshots=self.snapshots,
            step_runner=self.runner,
            environ={**os.environ, **environ},
        )

    def provide(self, library: Library, name: str) -> Image | None:
        self.said = []
        return library.provide(parse_familiar(name), lambda message: self.said.append(message.status))

    def leftovers(self) -> list[str]:
        rows = self.database.query("SELECT key FROM snapshots WHERE state != 'committed'")
        steps = [path.name for path in (self.root / "build").glob("*") if path.name != "cache"]
        return [*steps, *(str(row["key"]) for row in rows), *self.tasks.found()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    _, launcher = spawn()
    made = Site(tmp_path_factory.mktemp("site"), launcher)
    yield made
    made.tasks.close()
    launcher.close()


@pytest.fixture(scope="module")
def debian(site: Site) -> Image:
    try:
        image = site.provide(site.library(), "debian:trixie-slim")
    except Unavailable as error:
        pytest.skip(f"needs a Debian mirror: {error}")
    assert image is not None
    return image


def write_recipe(root: Path, name: str, dockerfile: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "Dockerfile").write_text(dockerfile)
    (root / name / "recipe.toml").write_text('kind = "dockerfile"\n[[image]]\ntags = ["1", "latest"]\n')


def test_debian_is_made_in_our_own_container_as_one_layer_with_dockers_config(site: Site, debian: Image) -> None:
    assert debian.tags == ("debian:trixie-slim",)
    assert debian.config.config is not None
    assert debian.config.config.cmd == ["bash"]
    assert len(debian.layers) == 1
    assert site.leftovers() == []


def test_another_tag_of_the_same_recipe_is_the_same_image(site: Site, debian: Image) -> None:
    twin = site.provide(site.library(), "debian:13-slim")
    assert twin is not None
    assert twin.id == debian.id
    assert len(site.said) == 2


def test_the_same_index_gives_the_same_image_id(site: Site, debian: Image) -> None:
    again = site.library().provide(parse_familiar("debian:stable-slim"), lambda _message: None, refresh=True)
    assert again is not None
    assert again.id == debian.id


def test_a_recipe_gets_its_base_from_the_library_and_runs_in_it(site: Site, debian: Image, tmp_path: Path) -> None:
    shutil.copytree(LIBRARY / "debian", tmp_path / "debian")
    write_recipe(tmp_path, "lower", "FROM debian:oldest\nRUN dpkg --audit && cat /etc/debian_version > /seen\n")
    write_recipe(tmp_path, "upper", "FROM lower:1\nCMD cat /seen\n")
    recipe = tmp_path / "debian/recipe.toml"
    recipe.write_text(recipe.read_text().replace('"13-slim"', '"13-slim", "oldest"'))
    image = site.provide(site.library(tmp_path), "upper")
    assert image is not None
    assert image.layers[0].digest == debian.layers[0].digest
    assert site.images.get("lower:1").id != image.id


def test_a_recipe_that_needs_itself_is_refused(site: Site, tmp_path: Path) -> None:
    write_recipe(tmp_path, "one", "FROM two:1\n")
    write_recipe(tmp_path, "two", "FROM one:1\n")
    with pytest.raises(InvalidArgument, match="one:1: its recipe needs the image itself"):
        site.provide(site.library(tmp_path), "one")


def test_a_mirror_out_of_reach_leaves_nothing_behind(site: Site) -> None:
    library = site.library(NARU_DEBIAN_MIRROR="http://127.0.0.1:9/debian")
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9/debian/dists/bookworm"):
        site.provide(library, "debian:bookworm-slim")
    assert site.leftovers() == []


def test_a_name_without_a_recipe_is_not_provided(site: Site) -> None:
    assert site.provide(site.library(), "nonesuch") is None


def entrypoint(tmp_path: Path, *arguments: str) -> str:
    """Run redis's entrypoint as it runs once it is no longer root, with a redis-server that prints its arguments."""
    for name, script in {"redis-server": 'echo "$(umask) $*"', "id": "echo 999"}.items():
        fake = tmp_path / "bin" / name
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
    done = subprocess.run(
        [str(LIBRARY / "redis/docker-entrypoint.sh"), *arguments],
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        cwd=tmp_path,
        umask=0o022,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_redis_options_become_arguments_of_a_server_that_answers_the_network(tmp_path: Path) -> None:
    expected = "0077 --save 60 1 --loglevel warning --protected-mode no"
    assert entrypoint(tmp_path, "--save", "60", "1", "--loglevel", "warning") == expected
    assert entrypoint(tmp_path, "redis-server", "--save", "60", "1", "--loglevel", "warning") == expected


def test_redis_obeys_whoever_sets_protected_mode(tmp_path: Path) -> None:
    inner, outer, plain = tmp_path / "inner.conf", tmp_path / "outer.conf", tmp_path / "plain.conf"
    inner.write_text("port 1\nprotected-mode yes\n")
    outer.write_text(f"include {inner}\ninclude {outer}\n")
    plain.write_text("port 1\n# protected-mode yes\n")
    assert entrypoint(tmp_path, "--protected-mode", "yes") == "0077 --protected-mode yes"
    assert entrypoint(tmp_path, str(outer)) == f"0077 {outer}"
    assert entrypoint(tmp_path, str(plain)) == f"0077 {plain} --protected-mode no"


def test_redis_questions_and_other_commands_pass_unchanged(tmp_path: Path) -> None:
    assert entrypoint(tmp_path, "redis-server", "--version") == "0077 --version"
    assert entrypoint(tmp_path, "echo", "--hello") == "--hello"
