"""Options of the local driver: a volume that is a file system mounted when it is used. Docker's words.

`type`, `device` and `o` are mount(8)'s: any file system this kernel can mount (`nfs`, `tmpfs`, `ext4` on a device …),
or `type=none` with `o=bind`. A size needs quotas, which no volume of ours has; tmpfs takes `o=size=`.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping

from naru.errors import InvalidArgument
from naru.kernel import mount as m
from naru.runtime.mount_options import Options, parse_options
from naru.runtime.mounts import apply_options

_OPTIONS = frozenset({"type", "o", "device", "size"})
_NEEDS = {"type": ("device",), "device": ("type",), "o": ("device", "type")}
_SIZE = re.compile(r"\d+(?:\.\d+)?\s?[kmgtp]?i?b?\Z", re.IGNORECASE)


def check_options(name: str, options: Mapping[str, str]) -> None:
    """Refuse options that no volume can have. InvalidArgument in Docker's words."""
    for key in options:
        if key not in _OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{key}"')
    if options.get("size"):
        if not _SIZE.match(options["size"]):
            raise InvalidArgument(f"create {name}: invalid size: '{options['size']}'")
        raise InvalidArgument(f"create {name}: quota size requested but no quota support")
    for key, needed in _NEEDS.items():
        for other in needed:
            if options.get(key) and not options.get(other):
                raise InvalidArgument(f'create {name}: missing required option: "{other}"')
    words = parse_options(_words(options))
    if words.copy_up or words.idmap:
        raise InvalidArgument(f"create {name}: invalid mount option in o={options['o']}")


def mount_at(options: Mapping[str, str], place: str) -> None:
    """Mount what `options` say at the directory `place`. InvalidArgument: the kernel's reason, in Docker's words."""
    device = options["device"]
    words = parse_options(_words(options))
    try:
        tree = _bind(device, words) if words.bind else _file_system(options["type"], device, words)
        try:
            target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                m.move_mount(tree, target)
            finally:
                os.close(target)
        finally:
            os.close(tree)
    except OSError as error:
        data = f", data: {options['o']}" if options.get("o") else ""
        reason = (error.strerror or os.strerror(error.errno or 0)).lower()
        raise InvalidArgument(
            f"error while mounting volume '{place}': failed to mount local volume: "
            f"mount {device}:{place}{data}: {reason}"
        ) from error


def _bind(source: str, words: Options) -> int:
    tree = m.open_tree(m.AT_FDCWD, source, clone=True, recursive=words.recursive_bind)
    try:
        apply_options(tree, words, (m.MS_PRIVATE, True))
    except BaseException:
        os.close(tree)
        raise
    return tree


def _file_system(kind: str, device: str, words: Options) -> int:
    parameters: list[tuple[str, str | None]] = [("source", device)]
    if words.attr_set & m.MOUNT_ATTR_RDONLY:
        parameters.append(("ro", None))  # of the file system too: a device may not let itself be opened for writing
    parameters += [(key, _address(value) if key == "addr" and value else value) for key, value in words.data]
    tree = m.new_mount(kind, parameters)
    try:
        apply_options(tree, words)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _address(name: str) -> str:
    """A server's name as its address: the kernel's NFS knows no names."""
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise InvalidArgument(f"error resolving passed in network volume address: {name}: {error.strerror}") from error


def _words(options: Mapping[str, str]) -> list[str]:
    return [word for word in options.get("o", "").split(",") if word]
