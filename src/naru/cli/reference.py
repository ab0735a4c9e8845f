"""Image names as people write them: default tags, short forms, registries. Only what a client must know of them."""

from __future__ import annotations

from naru.errors import InvalidArgument

DEFAULT_REGISTRY = "docker.io"


def _is_tag(text: str, *, is_digest: bool) -> bool:
    return all(char.isalnum() or char in ("_.-:" if is_digest else "_.-") for char in text)


def is_id(name: str) -> bool:
    """True for what is an image's ID, or the beginning of one, and no name."""
    bare = name.removeprefix("sha256:")
    return bool(bare) and (bare != name or len(bare) == 64) and all(char in "0123456789abcdef" for char in bare)


def split(name: str) -> tuple[str, str]:
    """Return repository and tag or digest ("" if absent) of `redis:7`, `host:5000/a@sha256:…`."""
    repository, separator, digest = name.partition("@")
    if separator:
        return repository, digest
    head, _, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return (f"{head}/{last}" if head else last), tag


def familiar(name: str) -> str:
    """Return the name without what everybody leaves out: `docker.io/library/redis` is `redis`."""
    if name.startswith(f"{DEFAULT_REGISTRY}/"):
        name = name.removeprefix(f"{DEFAULT_REGISTRY}/").removeprefix("library/")
    return name


def tagged(name: str) -> str:
    """Return the familiar name with a tag or digest: `redis` is `redis:latest`. InvalidArgument: not a name."""
    repository, tag = split(name)
    if not repository or any(char.isspace() for char in name) or not _is_tag(tag, is_digest="@" in name):
        raise InvalidArgument("invalid reference format")
    path = repository.removeprefix(f"{registry(repository)}/")
    if path != path.lower():
        shown = path if "/" in path else f"library/{path}"
        raise InvalidArgument(f"invalid reference format: repository name ({shown}) must be lowercase")
    if "@" in name:
        return familiar(name)
    return f"{familiar(repository)}:{tag or 'latest'}"


def registry(name: str) -> str:
    """Return the registry's host: what stands before the first slash if it looks like a host."""
    first, slash, _ = name.partition("/")
    is_host = slash and (any(char in first for char in ".:") or first == "localhost")
    return first if is_host else DEFAULT_REGISTRY
