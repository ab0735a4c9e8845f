"""A virtual machine for what this host's kernel cannot be: Debian's cloud kernel, booted with cgroup version 2 only.

QEMU emulates the processor in software, so no special hardware is needed and everything is some ten times slower.
The guest is one initramfs: this Python with its library, our packages, the tests and busybox; `guest_init` is its
first process. Kernel and busybox are downloaded from the Debian mirror and unpacked, not installed.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

REPOSITORY = Path(__file__).parents[2]
# What pytest and our package need from the environment the tests run in.
_PACKAGES = ("_pytest", "pytest", "pluggy", "iniconfig", "packaging", "pygments", "msgspec", "py.py")
_NOT_NEEDED = {"test", "idlelib", "lib2to3", "ensurepip", "distutils", "tkinter", "turtledemo", "pydoc_data"}
_EXTENSIONS_NOT_NEEDED = re.compile(r"_tkinter|_ssl|_hashlib|_sqlite3|_dbm|_gdbm|_curses|readline|_test|_codecs_")
_APPLETS = ("sh", "true", "cat", "sleep", "id", "ls")


MODULES = ("fs/overlayfs/overlay.ko", "drivers/block/loop.ko", "fs/quota/quota_tree.ko", "fs/quota/quota_v2.ko")


def download(directory: Path) -> tuple[Path, list[Path], Path]:
    """Fetch kernel and busybox into `directory`; return the kernel image, the modules to load in order, and busybox."""
    depends = subprocess.run(
        ["apt-cache", "depends", "linux-image-cloud-amd64"], check=True, capture_output=True, text=True
    ).stdout
    (kernel,) = re.findall(r"Depends: (linux-image-\S+-cloud-amd64)", depends)
    subprocess.run(
        ["apt-get", "-o", "APT::Sandbox::User=root", "-q", "download", kernel, "busybox-static"],
        check=True,
        capture_output=True,
        cwd=directory,
    )
    for package in directory.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, directory], check=True)
        package.unlink()
    (image,) = directory.glob("boot/vmlinuz-*")
    modules = [path for name in MODULES for path in directory.glob(f"lib/modules/*/kernel/{name}")]
    return image, modules, directory / "bin/busybox"


def stage(root: Path, modules: Sequence[Path], busybox: Path) -> None:
    """Lay out the guest's files below `root`, with all Python already compiled."""
    for directory in ("dev", "proc", "sys", "tmp", "root", "bin", "naru/site"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    python = Path(sys.base_prefix, "bin", f"python{sysconfig.get_python_version()}").resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    _copy_tree(library, root / str(library).lstrip("/"))
    extensions = [
        extension
        for extension in (root / str(library).lstrip("/") / "lib-dynload").iterdir()
        if not _EXTENSIONS_NOT_NEEDED.match(extension.name) or extension.unlink()
    ]
    _copy_binary(python, root)
    for name in _PACKAGES:
        source = Path(msgspec.__file__).parents[1] / name
        _copy_tree(source, root / "naru/site" / name)
    for extension in [*extensions, *(root / "naru/site").rglob("*.so")]:
        _copy_libraries(extension, root)
    _copy_tree(REPOSITORY / "src/naru", root / "naru/site/naru")
    shutil.copytree(REPOSITORY / "tests/kernel", root / "naru/tests", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "naru/modules").mkdir()
    for number, module in enumerate(modules):
        shutil.copy(module, root / f"naru/modules/{number}")
    make_disk(root / "naru/quota.img")
    shutil.copy(busybox, root / "bin/busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    hashed = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(root / "naru/site", quiet=2, invalidation_mode=hashed, stripdir=root, workers=2)
    init = root / "init"
    init.write_text(f"#!{python}\n" + (Path(__file__).parent / "guest_init.py").read_text())
    init.chmod(0o755)


def make_disk(image: Path) -> None:
    """Make an ext4 file system that knows projects and counts what they hold."""
    with image.open("wb") as file:
        file.truncate(16 << 20)
    features = ["-O", "project,quota", "-E", "quotatype=prjquota"]
    subprocess.run(["mkfs.ext4", "-q", "-F", *features, str(image)], check=True, capture_output=True)


def _copy_tree(source: Path, target: Path) -> None:
    def skip(directory: str, names: list[str]) -> list[str]:
        if Path(directory) == source:
            return [name for name in names if name in _NOT_NEEDED or name.startswith("config-")]
        return []

    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=skip)
    else:
        shutil.copy2(source, target)


def _copy_binary(source: Path, root: Path) -> None:
    target = root / str(source).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    _copy_libraries(source, root)


def _copy_libraries(binary: Path, root: Path) -> None:
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    for path in re.findall(r"(/\S+) \(0x", listed):
        target = root / path.lstrip("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def pack(root: Path, archive: BinaryIO) -> None:
    """Write the tree as the cpio archive the kernel unpacks. kernel documentation, initramfs buffer format"""
    for number, path in enumerate(sorted(root.rglob("*")), 1):
        status = path.lstat()
        data = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        _entry(archive, number, status.st_mode, int(status.st_mtime), str(path.relative_to(root)), data)
    _entry(archive, 0, 0, 0, "TRAILER!!!", b"")


def _entry(archive: BinaryIO, number: int, mode: int, mtime: int, name: str, data: bytes) -> None:
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    archive.write(header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4))


def boot(kernel: Path, initramfs: Path, *, timeout_s: float) -> Iterator[str]:
    """Run the guest until it powers itself off, giving the lines it prints. TimeoutExpired: it did not."""
    machine = ["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768"]
    quiet = ["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]
    options = "console=ttyS0 quiet panic=-1 rdinit=/init"
    done = subprocess.run(
        ["qemu-system-x86_64", *machine, *quiet, "-kernel", kernel, "-initrd", initramfs, "-append", options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        check=True,
    )
    yield from done.stdout.decode(errors="replace").replace("\r", "").split("\n")
