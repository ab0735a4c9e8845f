"""The Engine API's dealings with registries, but for the pull: push, log in, search, and look at what one has.

The client and with it aiohttp's are loaded at the first of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from naru.api.image import Descriptor, DistributionInspect, SearchResult
from naru.api.image import Platform as PlatformShown
from naru.api.progress import ProgressMessage
from naru.api.system import AuthConfig, AuthResponse, IndexInfo, RegistryServiceConfig
from naru.engine.parts import Parts, Progress
from naru.errors import InvalidArgument, NotFound, Unavailable
from naru.image.store import Image
from naru.oci import platform as platforms
from naru.oci.digest import Digest
from naru.oci.image import Platform
from naru.oci.reference import DEFAULT_DOMAIN, Reference, parse

T = TypeVar("T")

_SEARCH_LIMIT = 25
_SEARCH_MOST = 100
_SEARCH_FILTERS = {"is-automated", "is-official", "stars"}
_HUB_HOSTS = {"", "docker.io", "index.docker.io", "registry-1.docker.io"}
# A token's scopes name each of them, in an address of bounded length; a base image is rarely known from more.
_MAX_LENDERS = 3


class RegistryVerbs:
    """Operations at registries over the engine's parts."""

    parts: Parts

    def image_push(self, name: str, tag: str, platform: str, auth: AuthConfig | None, progress: Progress) -> None:
        """Engine API, ImagePush. Without a tag in either, all tags of the repository."""
        from naru.distribution.push import Outgoing, push
        from naru.image.publish import publishable

        reference = parse(name)
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        if tag:
            reference = reference.with_tag(tag)
        progress(ProgressMessage(status=f"The push refers to repository [{reference.repository}]"))
        chosen = self._tagged(reference, _platform(platform))
        images, content = self.parts.images, self.parts.content
        with content.lease() as lease:
            outgoing: dict[str, tuple[Image, Outgoing]] = {}
            for chosen_tag, image in chosen.items():
                ready = publishable(image, images=images, content=content)
                for digest in (ready.manifest_digest, Digest(ready.id), *(layer.digest for layer in ready.layers)):
                    if not lease.hold(digest):
                        raise NotFound(f"blob {digest} not found")
                diff_ids = ready.config.rootfs.diff_ids
                outgoing[chosen_tag] = (ready, Outgoing(chosen_tag, ready.manifest_digest, diff_ids))

            def note(pushed: Outgoing) -> None:
                with suppress(NotFound):  # removed here meanwhile; it is at the registry all the same
                    images.name_digest(outgoing[pushed.tag][0].id, reference, pushed.manifest)

            push(
                reference,
                [out for _image, out in outgoing.values()],
                content=content,
                auth=auth,
                progress=progress,
                sources=self._lenders(reference, [image for image, _out in outgoing.values()]),
                on_pushed=note,
                insecure_registries=self.parts.insecure_registries,
            )
        labels: dict[str, str] = {}
        if reference.tag:
            config = chosen[reference.tag].config.config
            labels = (config.labels if config else None) or {}
        actor = {**labels, "name": reference.familiar_repository}
        self.parts.events.publish("image", "push", reference.familiar(), actor)

    def _tagged(self, reference: Reference, platform: Platform | None) -> dict[str, Image]:
        """Return the images to push by tag. NotFound, in Docker's words."""
        found = {
            name.tag: image
            for image in self.parts.images.list()
            for name in image.references
            if name.tag and not name.digest and name.repository == reference.repository
        }
        if not found:
            raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_repository}")
        if reference.tag and reference.tag not in found:
            raise NotFound(f"tag does not exist: {reference.familiar()}")
        chosen = {tag: found[tag] for tag in sorted(found) if reference.tag in (None, tag)}
        for image in chosen.values():
            if platform is not None and platforms.rank(platform, image.config.platform) is None:
                raise NotFound(
                    f"image with reference {reference.familiar()} was found but does not provide the specified "
                    f"platform ({platform})"
                )
        return chosen

    def _lenders(self, target: Reference, pushed: Sequence[Image]) -> dict[Digest, list[str]]:
        """Say of each layer to push which other repositories of the same registry have it.

        Known from names with a digest: such an image came from there or went there, with all its layers.
        """
        wanted = {layer.digest for image in pushed for layer in image.layers}
        found: dict[Digest, list[str]] = {}
        for image in self.parts.images.list():
            paths = sorted({name.path for name in image.references if name.digest and name.domain == target.domain})
            for layer in image.layers:
                known = found.setdefault(layer.digest, []) if layer.digest in wanted and paths else []
                known += [path for path in paths if path not in known and path != target.path]
        return {digest: paths[:_MAX_LENDERS] for digest, paths in found.items()}

    def system_auth(self, auth: AuthConfig) -> AuthResponse:
        """Engine API, SystemAuth."""
        from naru.distribution.login import login

        token = login(_domain_of(auth.serveraddress), auth, insecure_registries=self.parts.insecure_registries)
        return AuthResponse(status="Login Succeeded", identity_token=token)

    def distribution_inspect(self, name: str, auth: AuthConfig | None) -> DistributionInspect:
        """Engine API, DistributionInspect."""
        from naru.distribution.inspect import inspect

        found = inspect(parse(name), auth=auth, insecure_registries=self.parts.insecure_registries)
        return DistributionInspect(
            descriptor=_shown(found.descriptor, Descriptor),
            platforms=[_shown(platform, PlatformShown) for platform in found.platforms],
        )

    def image_search(
        self,
        term: str,
        *,
        limit: int = 0,
        filters: Mapping[str, Sequence[str]] | None = None,
        auth: AuthConfig | None = None,
    ) -> list[SearchResult]:
        """Engine API, ImageSearch; where Docker Hub does not answer, names that the library has a recipe for."""
        from naru.distribution.search import search

        wanted = _SearchFilter.parse(filters or {})
        if limit and not 1 <= limit <= _SEARCH_MOST:
            raise InvalidArgument(f"limit {limit} is outside the range of [1, {_SEARCH_MOST}]")
        domain, path = _split_term(term)
        try:
            matches = search(
                domain,
                path,
                limit=limit or _SEARCH_LIMIT,
                auth=auth,
                insecure_registries=self.parts.insecure_registries,
            )
            found = [
                SearchResult(
                    name=match.name,
                    description=match.description or "",
                    star_count=match.star_count,
                    is_official=match.is_official,
                    is_automated=match.is_automated,
                )
                for match in matches
            ]
        except Unavailable as error:
            found = self._recipes(path) if domain == DEFAULT_DOMAIN else []
            if not found:
                raise error
        return [result for result in found if wanted.lets_through(result)]

    def _recipes(self, term: str) -> list[SearchResult]:
        """What can be pulled while Docker Hub is out of reach. Not called official: it is not what Docker publishes."""
        names = self.parts.recipes(term) if self.parts.recipes is not None else []
        text = "made here by naru's library: Docker Hub cannot be reached"
        return [SearchResult(name=name, description=text) for name in names]


def registry_config(insecure_registries: Sequence[str]) -> RegistryServiceConfig:
    """Return how registries are spoken to, as `docker info` shows it; this machine's own are insecure by nature."""
    networks = [name for name in insecure_registries if _is_network(name)]
    indexes = {DEFAULT_DOMAIN: IndexInfo(name=DEFAULT_DOMAIN, official=True)}
    for name in insecure_registries:
        if name not in networks:
            indexes[name] = IndexInfo(name=name, secure=False)
    return RegistryServiceConfig(
        insecure_registry_cidrs=["127.0.0.0/8", "::1/128", *networks], index_configs=indexes, mirrors=[]
    )


def _is_network(name: str) -> bool:
    try:
        ipaddress.ip_network(name)
    except ValueError:
        return False
    return True


class _SearchFilter(msgspec.Struct, frozen=True):
    """Which results are wanted; None where it does not matter."""

    is_official: bool | None = None
    is_automated: bool | None = None
    stars: int = 0

    @classmethod
    def parse(cls, filters: Mapping[str, Sequence[str]]) -> _SearchFilter:
        """InvalidArgument: unknown, or not a value of its kind."""
        for key in filters:
            if key not in _SEARCH_FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        try:
            stars = max((int(value) for value in filters.get("stars", ())), default=0)
        except ValueError:
            raise InvalidArgument(f"invalid filter 'stars={filters['stars'][0]}'") from None
        return cls(_yes_or_no(filters, "is-official"), _yes_or_no(filters, "is-automated"), stars)

    def lets_through(self, result: SearchResult) -> bool:
        return (
            self.is_official in (None, result.is_official)
            and self.is_automated in (None, result.is_automated)
            and result.star_count >= self.stars
        )


def _yes_or_no(filters: Mapping[str, Sequence[str]], key: str) -> bool | None:
    values = filters.get(key, ())
    if not values:
        return None
    if values[0] not in ("true", "1", "false", "0"):
        raise InvalidArgument(f"invalid filter '{key}={values[0]}'")
    return values[0] in ("true", "1")


def _split_term(term: str) -> tuple[str, str]:
    """Return the registry and what to search there: `quay.io/web` is two things, `team/web` is one."""
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: {term} (must not contain a scheme)")
    first, slash, rest = term.partition("/")
    is_domain = bool(slash) and ("." in first or ":" in first or first == "localhost")
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, term)
    if domain in _HUB_HOSTS:
        return DEFAULT_DOMAIN, path.removeprefix("library/")
    return domain, path


def _domain_of(server: str) -> str:
    """Return the registry that `docker login SERVER` means; Docker Hub goes by the address of its first protocol."""
    host = server.partition("://")[2] if "://" in server else server
    host = host.partition("/")[0]
    return DEFAULT_DOMAIN if host in _HUB_HOSTS else host


def _platform(text: str) -> Platform | None:
    """Return the platform of a request; Docker's client writes it as JSON."""
    if not text:
        return None
    if not text.startswith("{"):
        return platforms.parse(text)
    try:
        return msgspec.json.decode(text, type=Platform)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"invalid platform: {error}") from None


def _shown(value: msgspec.Struct, kind: type[T]) -> T:
    """Return an OCI value in the Engine API's type for it; the keys are the same."""
    return msgspec.convert(msgspec.to_builtins(value), kind)
