"""Tars built entry by entry, as hostile as need be."""

from __future__ import annotations

import io
import tarfile
from typing import Any


class Tar:
    """A tar built entry by entry, as hostile as need be."""

    def __init__(self, format: int = tarfile.PAX_FORMAT) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=format)

    def add(self, name: str, data: bytes = b"", **fields: Any) -> Tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o644
        for key, value in fields.items():
            setattr(info, key, value)
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def directory(self, name: str, **fields: Any) -> Tar:
        return self.add(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})

    def symlink(self, name: str, target: str) -> Tar:
        return self.add(name, type=tarfile.SYMTYPE, linkname=target)

    def link(self, name: str, target: str) -> Tar:
        return self.add(name, type=tarfile.LNKTYPE, linkname=target)

    def bytes(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()
