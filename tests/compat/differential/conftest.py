"""Debian's dockerd and narud of this checkout, each apart from the host and with one image, driven by the same CLI."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sides import IMAGE, Side, Sides

from tests.bench.engines import Dockerd, Naru
from tests.bench.scratch import write_image


@pytest.fixture(scope="session")
def sides(busybox_root: Path) -> Iterator[Sides]:
    """Both engines with the image busybox, for the whole session."""
    if os.geteuid():
        pytest.skip("needs root")
    missing = [program for program in ("dockerd", "containerd", "docker", "runc", "ip") if not shutil.which(program)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (libexec/install-conformance-peers)")
    with contextlib.ExitStack() as undo:
        # The bench's narud pulls through a proxy; without it both find the same nothing at a closed port.
        undo.enter_context(pytest.MonkeyPatch.context()).setenv("no_proxy", "*")
        # Short, for sockets' names are.
        place = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="naru-vs-", ignore_cleanup_errors=True)))
        place.chmod(0o755)
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            archive.add(busybox_root, ".")
        image = write_image(place / "image.tar", IMAGE, layer.getvalue(), ["PATH=/bin"], ["sh"])
        engines = [kind(place / kind.name, undo) for kind in (Naru, Dockerd)]
        for engine in engines:
            engine.docker("load", "--input", str(image))
        sides = Sides(*map(Side, engines))
        undo.callback(sides.naru.clear)
        undo.callback(sides.dockerd.clear)
        yield sides
