"""A small signed Debian archive in a directory, for tests: packages, Packages.xz, InRelease."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import pysequoia

from naru.library.apt_config import Source

KEY = pysequoia.Tsk.generate("Archive of the tests <archive@test>")
CERTIFICATE = KEY.extract_certificate()


def tar_of(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def member(
    name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, mode: int = 0o644, link: str = ""
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.linkname, info.mtime = kind, size, mode, link, 1_600_000_000
    return info


def file(name: str, content: bytes, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, size=len(content), mode=mode), content


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.DIRTYPE, mode=mode), b""


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.SYMTYPE, mode=0o777, link=target), b""


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.LNKTYPE, link=target), b""


def deb(control: dict[str, bytes], data: bytes) -> bytes:
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": lzma.compress(tar_of(file(f"./{name}", content) for name, content in control.items())),
        "data.tar.xz": lzma.compress(data),
    }
    packed = b"!<arch>\n"
    for name, body in parts.items():
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}".encode() + b"`\n"
        packed += body + b"\n" * (len(body) % 2)
    return packed


def release(suite: str, date: datetime, packages: bytes, *, valid_until: datetime | None = None) -> bytes:
    packed = lzma.compress(packages)
    form = "%a, %d %b %Y %H:%M:%S UTC"
    until = f"Valid-Until: {valid_until.strftime(form)}\n" if valid_until else ""
    return (
        f"Origin: Debian\nSuite: stable\nCodename: {suite}\nVersion: 99\nDate: {date.strftime(form)}\n{until}SHA256:\n"
        f" {hashlib.sha256(packed).hexdigest()} {len(packed)} main/binary-amd64/Packages.xz\n"
    ).encode()


def sign(text: bytes, key: pysequoia.Tsk = KEY) -> bytes:
    return bytes(pysequoia.sign(key.signer(), text, mode=pysequoia.SignatureMode.CLEAR))


def publish(root: Path, suite: str, date: datetime, packages: bytes) -> Source:
    """Write a suite with this Packages file below `root` and return where it is."""
    binary = root / "dists" / suite / "main/binary-amd64"
    binary.mkdir(parents=True)
    (binary / "Packages.xz").write_bytes(lzma.compress(packages))
    (root / "dists" / suite / "InRelease").write_bytes(sign(release(suite, date, packages)))
    return Source(f"file://{root}", suite, ("main",))
