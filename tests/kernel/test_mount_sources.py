"""A part of a bind's source, while somebody who can write there exchanges it for a link that leads out."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from naru.oci.runtime import Mount

pytestmark = pytest.mark.root

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def exchanging(one: Path, other: Path) -> Iterator[None]:
    """Exchange two directory entries, over and over, each time at once."""
    libc, over = ctypes.CDLL(None), threading.Event()
    names = os.fsencode(one), os.fsencode(other)

    def work() -> None:
        while not over.is_set():
            libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_subpath_never_leads_out_of_its_volume(box: Any, tmp_path: Path) -> None:
    volume, secret = tmp_path / "volume", tmp_path / "secret"
    for directory, content in ((volume / "part", "inside"), (secret, "outside")):
        directory.mkdir(parents=True)
        (directory / "word").write_text(content)
    (volume / "link").symlink_to(secret)
    mount = Mount("/p", "bind", str(volume), ["rbind"], subpath="part")
    seen = set()
    with exchanging(volume / "part", volume / "link"):
        for _ in range(40):
            seen.add(_read(box, mount))
    assert "outside" not in seen
    assert "inside" in seen


def _read(box: Any, mount: Mount) -> str:
    from naru.errors import CannotStart

    try:
        return box.run("cat", "/p/word", mounts=[mount]).output
    except CannotStart as error:
        assert "subpath leads outside of it" in str(error)
        return "refused"


def test_layers_are_mounted_read_only_the_topmost_first(box: Any, tmp_path: Path) -> None:
    for name, word in (("lower", "old"), ("upper", "new")):
        (tmp_path / name / "d").mkdir(parents=True)
        (tmp_path / name / "d" / "word").write_text(word)
    (tmp_path / "lower" / "d" / "only").touch()
    layers = [str(tmp_path / name) for name in ("upper", "lower")]
    mounts = [
        Mount("/all", "bind", options=["rbind", "ro"], layers=layers),
        Mount("/part", "bind", options=["rbind", "ro"], layers=layers, subpath="d"),
    ]
    script = "cat /all/d/word; ls /part; touch /part/x"
    result = box.run("sh", "-c", script, mounts=mounts)
    assert result.output.splitlines() == ["newonly", "word", "touch: /part/x: Read-only file system"]
