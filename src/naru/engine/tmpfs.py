"""Options of tmpfs mounts, from `--tmpfs` and from `--mount type=tmpfs`. Pure. tmpfs(5)"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence

from naru.api.host import TmpfsOptions
from naru.errors import InvalidArgument
from naru.runtime.mount_options import KNOWN_OPTIONS

_DEFAULT = ("noexec", "nosuid", "nodev")
# What a value of each of tmpfs's own parameters looks like.
_PARAMETERS = {
    "size": re.compile(r"\d+[kmgtpe%]?\Z", re.IGNORECASE),
    "nr_blocks": re.compile(r"\d+[kmgtpe]?\Z", re.IGNORECASE),
    "nr_inodes": re.compile(r"\d+[kmgtpe]?\Z", re.IGNORECASE),
    "mode": re.compile(r"[0-7]{1,5}\Z"),
    "uid": re.compile(r"\d+\Z"),
    "gid": re.compile(r"\d+\Z"),
    "mpol": re.compile(r"\w[\w:=,.-]*\Z"),
    "huge": re.compile(r"(never|always|within_size|advise)\Z"),
}
_NOT_HERE = frozenset({"bind", "rbind"})


def check_tmpfs(destination: str, options: str) -> None:
    """Refuse a `--tmpfs` that cannot be mounted. InvalidArgument in Docker's words."""
    if not destination.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{destination}' mount path must be absolute")
    if posixpath.normpath(destination) == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'")
    merge_options(filter(None, options.split(",")))


def merge_options(asked: Iterable[str]) -> list[str]:
    """Return `asked` over Docker's defaults: noexec, nosuid and nodev unless they say otherwise.

    InvalidArgument: an option that tmpfs has not, or a value that it would refuse.
    """
    options = list(_DEFAULT)
    for option in asked:
        key, has_value, value = option.partition("=")
        pattern = _PARAMETERS.get(key)
        if pattern is None and (has_value or key not in KNOWN_OPTIONS or key in _NOT_HERE):
            words = [key, value] if has_value else [key]
            raise InvalidArgument("invalid tmpfs option [" + " ".join(f'"{word}"' for word in words) + "]")
        if pattern is not None and not pattern.match(value):
            raise InvalidArgument(f'invalid tmpfs option: bad value for "{key}": "{value}"')
        opposite = option.removeprefix("no") if option.startswith("no") else f"no{option}"
        options = [kept for kept in options if kept not in (option, opposite)]
        if option not in ("exec", "suid", "dev"):
            options.append(option)
    return options


def mount_options(asked: TmpfsOptions | None, *, read_only: bool) -> list[str]:
    """Return the options of a `--mount type=tmpfs`. InvalidArgument: one that tmpfs has not."""
    words: list[str] = []
    if asked is not None:
        if asked.size_bytes < 0:
            raise InvalidArgument(f"invalid tmpfs size: {asked.size_bytes}")
        words += [f"size={asked.size_bytes}"] if asked.size_bytes else []
        words += [f"mode={asked.mode:o}"] if asked.mode else []
        words += ["=".join(_pair(pair)) for pair in asked.options or []]
    return merge_options([*words, "ro"] if read_only else words)


def _pair(words: Sequence[str]) -> Sequence[str]:
    if not 1 <= len(words) <= 2 or not words[0]:
        raise InvalidArgument(f"invalid tmpfs option: {list(words)}: one word for a flag, two for a key and its value")
    return words
