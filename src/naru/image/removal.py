"""What removing an image means: which names go, whether the image goes with them, and why not.

A pure decision, by Docker's rules, in Docker's words; `image.store` acts on it. Engine API, ImageDelete
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from naru.errors import Conflict
from naru.oci import digest as digests
from naru.oci.digest import ImageID
from naru.oci.reference import Reference, parse_familiar


class Removable(Protocol):
    """An image, as far as its removal is concerned."""

    @property
    def id(self) -> ImageID: ...
    @property
    def references(self) -> tuple[Reference, ...]: ...


@dataclass(frozen=True, slots=True)
class Removal:
    """Names to take away, in order, and whether the image itself goes."""

    untag: tuple[Reference, ...]
    deletes: bool


def plan(image: Removable, name: str, *, users: Sequence[tuple[str, bool]], force: bool) -> Removal:
    """Decide what `docker rmi name` does, where `name` means `image` and `users` are its containers (ID, runs).

    Conflict: containers use it, or an ID was given for an image with names in several repositories.
    """
    if is_id(image.id, name):
        if is_single(image.references):
            _refuse_if_used(image, users, force=force)
        elif not force:
            _refuse_if_running(image, users)
            raise _conflict(image, "image is referenced in multiple repositories", is_hard=False)
        _refuse_if_used(image, users, force=force)
        return Removal(image.references, deletes=True)

    if not force and is_single(image.references) and users:
        container = digests.short(users[0][0])
        raise Conflict(
            f'conflict: unable to remove repository reference "{name}" (must force) - container {container} '
            f"is using its referenced image {digests.short(image.id)}"
        )
    given = parse_familiar(name)
    if given.digest:
        given = given.with_digest(given.digest)
    left = [reference for reference in image.references if reference != given]
    untag = [given]
    if not given.digest and not any(_is_tag_of(reference, given) for reference in left):
        # The last tag of a repository takes the digests of that repository with it.
        untag += [reference for reference in left if reference.repository == given.repository]
        left = [reference for reference in left if reference.repository != given.repository]
    # Without a name it would only be in the way, unless a container stands on it: then it stays, dangling.
    return Removal(tuple(untag), deletes=not left and not any(force is False or runs for _id, runs in users))


def is_id(image_id: ImageID, name: str) -> bool:
    """Say whether `name` is the image's ID or the beginning of it."""
    return image_id.startswith(name) or digests.encoded(image_id).startswith(name)


def is_single(references: Sequence[Reference]) -> bool:
    """Say whether the names are one: at most one tag, and digests of the same repository."""
    tags = [reference for reference in references if not reference.digest]
    return len(references) <= 1 or (len(tags) <= 1 and len({reference.repository for reference in references}) == 1)


def _is_tag_of(reference: Reference, other: Reference) -> bool:
    return not reference.digest and reference.repository == other.repository


def _refuse_if_running(image: Removable, users: Sequence[tuple[str, bool]]) -> None:
    for container, runs in users:
        if runs:
            raise _conflict(image, f"image is being used by running container {digests.short(container)}", is_hard=True)


def _refuse_if_used(image: Removable, users: Sequence[tuple[str, bool]], *, force: bool) -> None:
    _refuse_if_running(image, users)
    if users and not force:
        reason = f"image is being used by stopped container {digests.short(users[0][0])}"
        raise _conflict(image, reason, is_hard=False)


def _conflict(image: Removable, reason: str, *, is_hard: bool) -> Conflict:
    force = "cannot be forced" if is_hard else "must be forced"
    return Conflict(f"conflict: unable to delete {digests.short(image.id)} ({force}) - {reason}")
