"""Image references: `[domain/]path[:tag][@digest]`, in the familiar form people type and the canonical one we store.

Follows the grammar of the distribution project's reference package, as Docker does: `redis` means
`docker.io/library/redis:latest`. Error texts are Docker's, which clients show as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from naru.errors import InvalidArgument
from naru.oci import digest as digests
from naru.oci.digest import Digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL_PREFIX = "library/"
_PATH_LENGTH = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BARE_HEX = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A name in canonical form, with a tag, a digest, both or neither."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def repository(self) -> str:
        """`domain/path`: what a tag and a digest are relative to."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as people write it: `redis`, `ubuntu/nginx`, `quay.io/x/y`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        official = self.path.removeprefix(_OFFICIAL_PREFIX)
        return official if "/" not in official else self.path

    def familiar(self) -> str:
        """Return the shortest form that parses to the same reference, as Docker prints it."""
        return self.familiar_repository + self._suffix()

    def canonical(self) -> str:
        """Return the full form, as stored."""
        return self.repository + self._suffix()

    def with_default_tag(self) -> Reference:
        """Return this reference with `latest` if it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """Return the same repository with `tag` alone. InvalidArgument: not a tag."""
        if not _TAG.fullmatch(tag):
            raise InvalidArgument("invalid tag format")
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """Return the same repository with `digest` alone."""
        return replace(self, tag=None, digest=digest)

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def __str__(self) -> str:
        return self.familiar()


def parse(text: str) -> Reference:
    """Parse what a person typed, adding the default domain and `library/` but no tag.

    InvalidArgument: not a reference, or 64 hex digits, which could only be an ID.
    """
    if _BARE_HEX.fullmatch(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    name, at, digest = text.partition("@")
    if at and not digests.is_digest(digest):
        raise InvalidArgument("invalid reference format")
    domain, path = _split_domain(name)
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidArgument("invalid reference format")
    if path != path.lower() and _PATH.fullmatch(path.lower()):
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain):
        raise InvalidArgument("invalid reference format")
    if len(path) > _PATH_LENGTH:
        raise InvalidArgument(f"repository name must not be more than {_PATH_LENGTH} characters")
    return Reference(domain, path, tag or None, Digest(digest) if digest else None)


def parse_familiar(text: str) -> Reference:
    """Parse what a person typed as the name of one image: `redis` is `docker.io/library/redis:latest`."""
    return parse(text).with_default_tag()


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = bool(slash) and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL_PREFIX + path
    return domain, path
