"""Platforms: which of an index's manifests to run on this machine, and `os/arch/variant` as people write it.

Normalisation follows containerd's platforms package. OCI image-spec, image-index.md, Platform Variants.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from naru.errors import InvalidArgument
from naru.oci.image import Descriptor, Platform

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
}
# A variant without a number means this one.
_BASE_LEVEL = {"amd64": 1, "arm": 7, "arm64": 8}


def host() -> Platform:
    """Return the platform of this machine."""
    return normalize("linux", os.uname().machine)


def normalize(os_name: str, architecture: str, variant: str = "") -> Platform:
    """Return the platform in Go's words, without a variant that says nothing (`arm64/v8`, `amd64/v1`)."""
    arch, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
    chosen = variant.lower() or implied
    if chosen.isdecimal():
        chosen = f"v{chosen}"
    if arch == "arm":
        chosen = chosen or f"v{_BASE_LEVEL[arch]}"
    elif chosen == f"v{_BASE_LEVEL.get(arch)}":
        chosen = ""
    return Platform(os="darwin" if os_name.lower() == "macos" else os_name.lower(), architecture=arch, variant=chosen)


def parse(text: str) -> Platform:
    """Parse `os[/architecture[/variant]]` or a lone architecture, filling in this machine's.

    InvalidArgument: empty parts or too many of them.
    """
    parts = text.lower().split("/")
    if not all(parts) or len(parts) > 3:
        raise InvalidArgument(f"{text!r}: invalid platform: expected os[/arch[/variant]]")
    if len(parts) > 1:
        return normalize(parts[0], parts[1], parts[2] if len(parts) > 2 else "")
    if parts[0] in {"linux", "windows", "darwin", "freebsd"}:
        here = host()
        return normalize(parts[0], here.architecture, here.variant)
    return normalize("linux", parts[0])


def rank(wanted: Platform, offered: Platform) -> int | None:
    """Say how well `offered` serves `wanted`: 0 is best, None not at all."""
    want = normalize(wanted.os, wanted.architecture, wanted.variant)
    offer = normalize(offered.os, offered.architecture, offered.variant)
    if (want.os, want.architecture) != (offer.os, offer.architecture):
        return None
    if want.variant == offer.variant:
        return 0
    wanted_level, offered_level = _level(want), _level(offer)
    if wanted_level is None or offered_level is None or offered_level > wanted_level:
        return None
    return wanted_level - offered_level


def _level(platform: Platform) -> int | None:
    """Return the number in a variant; each level runs what was made for the levels below it."""
    if not platform.variant:
        return _BASE_LEVEL.get(platform.architecture)
    number = platform.variant.removeprefix("v")
    return int(number) if number.isdecimal() else None


def choose(manifests: Iterable[Descriptor], wanted: Platform) -> Descriptor | None:
    """Return the manifest of an index that serves `wanted` best, the first of equals; None if none does."""
    ranked = [
        (quality, position, descriptor)
        for position, descriptor in enumerate(manifests)
        if descriptor.platform is not None and (quality := rank(wanted, descriptor.platform)) is not None
    ]
    return min(ranked)[2] if ranked else None
