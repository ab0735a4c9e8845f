"""The recipes of the library: which names there are, which tags are one image, and what each is made of.

    <library>/<name>/recipe.toml     kind and images
    <library>/<name>/Dockerfile      and its build context, where the kind is "dockerfile"
    <library>/debian/keyring.gpg     public keys of the Debian archive

The directory is `NARU_LIBRARY` if set (`off`: there is none), else `library/` of the checkout this code runs from,
else `recipes/` in the installed package. A recipe that cannot be read is an error that names the file. See
docs/library.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from naru.errors import InvalidArgument
from naru.oci.reference import DEFAULT_DOMAIN, Reference

SETTING = "NARU_LIBRARY"
_OFF = ("off", "no", "0", "false")
_OFFICIAL = "library/"


class _Image(msgspec.Struct, forbid_unknown_fields=True):
    tags: list[str]
    suite: str = ""
    full: bool = False
    dockerfile: str = "Dockerfile"
    arguments: dict[str, str] = {}


class _Recipe(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    image: list[_Image]


@dataclass(frozen=True, slots=True)
class DebianRecipe:
    """A Debian root made from packages."""

    name: str
    tags: tuple[str, ...]
    suite: str
    full: bool


@dataclass(frozen=True, slots=True)
class DockerfileRecipe:
    """An image that the builder makes from `context`."""

    name: str
    tags: tuple[str, ...]
    context: Path
    dockerfile: str
    arguments: Mapping[str, str]


Recipe = DebianRecipe | DockerfileRecipe


class Recipes:
    """The recipes below one directory; read anew at each question, so that editing one needs no restart."""

    def __init__(self, root: Path | None) -> None:
        """`root` None: a library without recipes."""
        self._root = root

    @property
    def keyring(self) -> Path | None:
        """The public keys of the Debian archive that came with the recipes."""
        return self._root / "debian/keyring.gpg" if self._root else None

    def find(self, reference: Reference) -> Recipe | None:
        """Return the recipe that `reference` (an official image's name and tag, no digest) is made by, if any."""
        if self._root is None or reference.digest is not None or reference.domain != DEFAULT_DOMAIN:
            return None
        name = reference.path.removeprefix(_OFFICIAL)
        if name == reference.path or "/" in name:
            return None
        tag = reference.tag or "latest"
        return next((recipe for recipe in self._read(name) if tag in recipe.tags), None)

    def all(self) -> Iterator[Recipe]:
        """Yield every recipe, by name, in the order of its file."""
        if self._root is not None:
            for path in sorted(self._root.glob("*/recipe.toml")):
                yield from self._read(path.parent.name)

    def _read(self, name: str) -> Iterator[Recipe]:
        directory = (self._root or Path()) / name
        path = directory / "recipe.toml"
        if not path.is_file():
            return
        try:
            recipe = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _Recipe)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise InvalidArgument(f"{path}: {error}") from None
        for image in recipe.image:
            tags = tuple(image.tags)
            if recipe.kind == "debian":
                yield DebianRecipe(name, tags, image.suite, image.full)
            elif recipe.kind == "dockerfile":
                yield DockerfileRecipe(name, tags, directory, image.dockerfile, image.arguments)
            else:
                raise InvalidArgument(f"{path}: unknown kind {recipe.kind!r}")


def is_off(environment: Mapping[str, str]) -> bool:
    """True if the environment turns the library off."""
    return environment.get(SETTING, "").lower() in _OFF


def recipes_root(environment: Mapping[str, str]) -> Path | None:
    """Return where the recipes are on this machine, or None when the library is turned off or not installed."""
    if is_off(environment):
        return None
    if setting := environment.get(SETTING, ""):
        return Path(setting)
    package = Path(__file__).parent
    candidates = (package.parents[2] / "library", package / "recipes")
    return next((path for path in candidates if (path / "debian/recipe.toml").is_file()), None)
