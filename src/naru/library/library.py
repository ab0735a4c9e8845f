"""Images of well-known names made on this machine from recipes, for when the registry they live at is out of reach.

`provide` is asked after a pull found the registry unreachable; it never decides that by itself. A Dockerfile recipe
goes through the builder, whose bases come from here again; a Debian recipe is bootstrapped into one layer. The
reference is tagged last, so what was interrupted has no name. Two callers who want the same wait for one another.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from naru.api.build import BuildOptions
from naru.api.progress import ProgressMessage
from naru.build.builder import Builder, Resolve
from naru.build.failure import StepFailed
from naru.build.layers import LayerStore
from naru.build.step import Step, StepRunner
from naru.content.store import ContentStore
from naru.errors import Corrupt, InvalidArgument, NotFound, Unavailable, Unsupported
from naru.image.snapshot import Snapshots
from naru.image.store import Image, Images
from naru.library.apt_config import read_apt_config
from naru.library.debian_bootstrap import Bootstrap, Bootstrapped
from naru.library.recipes import DebianRecipe, DockerfileRecipe, Recipes
from naru.oci import platform as platforms
from naru.oci.image import ContainerConfig, History, ImageConfig, Platform, RootFS
from naru.oci.reference import Reference
from naru.runtime.rootfs import Overlay

Progress = Callable[[ProgressMessage], None]

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Debian's names of the architectures that Go has names for.
_DEBIAN_ARCHITECTURES = {"amd64": "amd64", "arm64": "arm64", "386": "i386"}
_LOG_TAIL_BYTES = 2000
# Of a step that failed: enough to see why, short enough to find the error below it.
_LAST_LINES = 10
# What fits a terminal beside the image's name.
_LINE = 72


class Library:
    """The library of one daemon; safe between threads.

    `make_builder` gives a builder over the daemon's stores that finds bases by the function it is passed. `environ` is
    the daemon's: mirror settings and proxies.
    """

    def __init__(
        self,
        recipes: Recipes,
        *,
        make_builder: Callable[[Resolve], Builder],
        content: ContentStore,
        images: Images,
        snapshots: Snapshots,
        step_runner: StepRunner,
        environ: Mapping[str, str],
    ) -> None:
        self._recipes = recipes
        self._builder = make_builder(self._base)
        self._images = images
        self._layers = LayerStore(content, snapshots)
        self._runner = step_runner
        self._environ = environ
        self._caller = threading.local()
        self._making: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def provide(
        self, reference: Reference, progress: Progress, *, platform: Platform | None = None, refresh: bool = False
    ) -> Image | None:
        """Return the image of `reference` made here and tagged so, or None if no recipe makes it.

        What the recipe's other tags already name is not made again, unless `refresh`. Unavailable: no package mirror
        can be reached. Unsupported: `platform` is not this machine's.
        """
        reference = reference.with_default_tag()
        recipe = self._recipes.find(reference)
        if recipe is None:
            return None
        here = platforms.host()
        if platform is not None and platforms.rank(here, platform) is None:
            raise Unsupported(f"{reference.familiar()}: the library makes images for {here} only, not {platform}")
        known_as = f"{recipe.name}:{recipe.tags[0]}"
        if known_as in self._unfinished:
            raise InvalidArgument(f"{known_as}: its recipe needs the image itself")
        with self._making[known_as], self._telling(known_as, progress):
            _say(progress, known_as, "Making this image from the library's recipe")
            if isinstance(recipe, DebianRecipe):
                image = None if refresh else self._twin(recipe, reference)
                image = image or self._bootstrap(recipe, here, progress)
            else:
                image = self._build(recipe, progress)
            self._images.tag(image.id, reference)
            _say(progress, known_as, "Made")
        return self._images.get(reference.canonical())

    def names(self, term: str) -> list[str]:
        """Return the images that a recipe makes and whose name has `term` in it, by name."""
        return sorted({recipe.name for recipe in self._recipes.all() if term.lower() in recipe.name})

    def _base(self, reference: Reference, platform: Platform) -> Image:
        """Find what a recipe's FROM names and is not here: it can only come from another recipe."""
        progress: Progress = getattr(self._caller, "progress", lambda _message: None)
        image = self.provide(reference, progress, platform=platform)
        if image is None:
            raise NotFound(f"No such image: {reference.familiar()}", hint="a library recipe needs it, none makes it")
        return image

    @property
    def _unfinished(self) -> list[str]:
        """What this thread is in the middle of making, the outermost first."""
        if not hasattr(self._caller, "unfinished"):
            self._caller.unfinished = []
        names: list[str] = self._caller.unfinished
        return names

    @contextmanager
    def _telling(self, known_as: str, progress: Progress) -> Iterator[None]:
        before = getattr(self._caller, "progress", progress)
        self._caller.progress = progress
        self._unfinished.append(known_as)
        try:
            yield
        finally:
            self._unfinished.pop()
            self._caller.progress = before

    def _twin(self, recipe: DebianRecipe, reference: Reference) -> Image | None:
        """Return the image that another tag of the same recipe names, if there is one."""
        for tag in recipe.tags:
            try:
                return self._images.get(reference.with_tag(tag).canonical())
            except NotFound:
                continue
        return None

    def _build(self, recipe: DockerfileRecipe, progress: Progress) -> Image:
        known_as = f"{recipe.name}:{recipe.tags[0]}"
        options = BuildOptions(dockerfile=recipe.dockerfile, build_args=dict(recipe.arguments), remove=True)
        steps = _Steps(known_as, progress)
        try:
            return self._images.get(self._builder.build(recipe.context, options, steps))
        except StepFailed as failed:
            lines = failed.output_tail.strip().splitlines()
            for line in lines[-_LAST_LINES:]:
                _say(progress, "", line)
            raise Unavailable(
                f"{known_as}: the recipe's step in line {failed.line} failed with exit code {failed.exit_code}: "
                f"{lines[-1] if lines else 'it said nothing'}"
            ) from failed

    def _bootstrap(self, recipe: DebianRecipe, platform: Platform, progress: Progress) -> Image:
        """Make the root in an active snapshot, commit it as the one layer of an image."""
        known_as = f"{recipe.name}:{recipe.tags[0]}"
        architecture = _DEBIAN_ARCHITECTURES.get(platform.architecture)
        if architecture is None:
            raise Unsupported(f"{known_as}: Debian for {platform} is not known to the library")
        bootstrap = Bootstrap(read_apt_config(self._environ), shipped_keyring=self._recipes.keyring)
        with self._layers.keeping() as keeper, self._layers.active(None) as layer:
            made = bootstrap.make(
                os.path.join(layer.overlay.base, layer.overlay.upper),
                recipe.suite,
                architecture=architecture,
                slim=not recipe.full,
                run=self._runner_on(layer.overlay),
                progress=lambda text: _say(progress, known_as, text[0].upper() + text[1:]),
            )
            _say(progress, known_as, "Packing the layer")
            finished = self._layers.commit(layer, keeper, time_ns=int(made.date.timestamp()) * 10**9)
            if finished is None:
                raise Corrupt(f"{known_as}: the bootstrap made nothing")
            config = _image_config(recipe, made, platform)
            config.rootfs = RootFS(type="layers", diff_ids=[finished.diff_id])
            return self._images.create(config, [finished.blob])

    def _runner_on(self, overlay: Overlay) -> Callable[[Sequence[str], Mapping[str, str]], int]:
        """Return how the bootstrap runs a command on the root it makes; a failure tells the end of its output."""

        def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
            tail = bytearray()

            def output(data: bytes) -> None:
                tail.extend(data)
                del tail[:-_LOG_TAIL_BYTES]

            step = Step(arguments, environment, network="none")
            status = self._runner.run(step, overlay, output=output)
            if status != 0:
                lines = tail.decode("utf-8", "replace").strip().splitlines()
                said = lines[-1] if lines else "it said nothing"
                raise Corrupt(f"configuring the Debian packages failed with exit status {status}: {said}")
            return status

        return run


class _Steps:
    """Turns a build's stream into one status line an image, as a pull's display shows it."""

    def __init__(self, known_as: str, progress: Progress) -> None:
        self._known_as = known_as
        self._progress = progress

    def __call__(self, message: ProgressMessage) -> None:
        if message.stream.startswith("Step "):
            line = " ".join(message.stream.splitlines()[0].split())
            _say(self._progress, self._known_as, line if len(line) <= _LINE else f"{line[: _LINE - 1]}…")


def _say(progress: Progress, known_as: str, text: str) -> None:
    progress(ProgressMessage(status=text, id=known_as))


def _image_config(recipe: DebianRecipe, made: Bootstrapped, platform: Platform) -> ImageConfig:
    """The config docker's debian images have; dated by the index, so that the same packages give the same ID."""
    variant = "full" if recipe.full else "slim"
    history = History(created=made.date, created_by=f"naru library: debian {made.codename} {made.version} ({variant})")
    return ImageConfig(
        created=made.date,
        architecture=platform.architecture,
        variant=platform.variant,
        os=platform.os,
        config=ContainerConfig(env=[_PATH], cmd=["bash"]),
        rootfs=RootFS(type="layers"),
        history=[history],
    )
