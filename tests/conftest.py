"""Fixtures shared by all tests: a small root filesystem, and containers made of it by the runtime alone."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from naru.oci.runtime import Process, Spec
from naru.runtime.capability import DEFAULT_CAPABILITIES
from naru.runtime.create import Created, Overlay, Stdio, create
from naru.runtime.exec import exec_process
from naru.runtime.seccomp_default import default_profile
from naru.task.spec import base_spec

pytest_plugins = ["daemon"]

_CACHE = Path(tempfile.gettempdir()) / "naru-test-cache"
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\napp:x:1000:1000::/home/app:/bin/sh\n"
_GROUP = "root:x:0:\nwheel:x:10:root,app\nstaff:x:50:app\napp:x:1000:\n"


def _static_busybox() -> Path:
    """The host's busybox if it is static, else Debian's, kept between runs."""
    found = shutil.which("busybox")
    if found and subprocess.run(["ldd", found], capture_output=True).returncode != 0:
        return Path(found)
    cached = _CACHE / "bin" / "busybox"
    if not cached.exists():
        with tempfile.TemporaryDirectory() as scratch:
            os.chmod(scratch, 0o755)
            got = subprocess.run(["apt-get", "download", "busybox-static"], cwd=scratch, capture_output=True)
            packages = list(Path(scratch).glob("*.deb"))
            if got.returncode or not packages:
                pytest.skip("needs a static busybox (package busybox-static)")
            subprocess.run(["dpkg", "-x", packages[0], f"{scratch}/x"], check=True)
            cached.parent.mkdir(parents=True, exist_ok=True)
            beside = cached.with_name(f"busybox.{os.getpid()}")
            shutil.copy(f"{scratch}/x/bin/busybox", beside)
            beside.rename(cached)
    return cached


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with busybox, all its applets, users root, nobody and app. Not to be written to."""
    busybox = _static_busybox()
    root = tmp_path_factory.mktemp("busybox") / "root"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/app"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    os.chown(root / "home/app", 1000, 1000)
    shutil.copy(busybox, root / "bin/busybox")
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text(_GROUP)
    root.parent.chmod(0o755)
    return root


@dataclass(frozen=True)
class Result:
    """How a process ended, and what it wrote to standard output and standard error together."""

    code: int
    output: str


@dataclass
class Box:
    """Containers over one busybox root, each with a fresh upper directory; whatever is left is killed at the end."""

    root: Path
    directory: Path
    made: list[Created] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def spec(self, *args: str, **options: Any) -> Spec:
        """A Docker-like spec; `process` holds fields of Process, the rest is for `base_spec`."""
        process = Process(args=list(args), env=["PATH=/bin"])
        for name, value in options.pop("process", {}).items():
            setattr(process, name, value)
        defaults: dict[str, Any] = {
            "process": process,
            "hostname": "box",
            "cgroups_path": f"/naru/test-{os.getpid()}-{self.directory.name}-{next(self._numbers)}",
            "capabilities": DEFAULT_CAPABILITIES,
            "seccomp": default_profile(DEFAULT_CAPABILITIES),
        }
        return base_spec(**(defaults | options))

    def overlay(self) -> Overlay:
        """An overlay of the root with a new, empty upper directory."""
        layer = Path(tempfile.mkdtemp(dir=self.directory))
        layer.chmod(0o755)
        for name in ("upper", "work"):
            (layer / name).mkdir()
        top = str(layer).lstrip("/")
        return Overlay(base="/", lower=(str(self.root).lstrip("/"),), upper=f"{top}/upper", work=f"{top}/work")

    def create(self, spec: Spec, **options: Any) -> Created:
        (self.directory / "rootfs").mkdir(exist_ok=True)
        options.setdefault("overlay", self.overlay())
        options.setdefault("stdio", None)
        created = create(spec, container_id="test", bundle=str(self.directory), **options)
        self.made.append(created)
        return created

    def start(self, spec: Spec, **options: Any) -> Created:
        created = self.create(spec, **options)
        created.start()
        return created

    def run(self, *args: str, create_options: dict[str, Any] | None = None, **options: Any) -> Result:
        """Run to the end."""
        spec = self.spec(*args, **options)
        return _collect(lambda stdio: self.start(spec, stdio=stdio, **(create_options or {})))

    def exec(self, container: Created, spec: Spec, *args: str, **fields: Any) -> Result:
        """Run another process in `container` to its end."""
        capabilities = spec.process.capabilities if spec.process else None
        process = Process(args=list(args), env=["PATH=/bin"], capabilities=capabilities)
        for name, value in fields.items():
            setattr(process, name, value)
        return _collect(
            lambda stdio: exec_process(
                process, target_pid=container.pid, spec=spec, cgroup=container.cgroup, stdio=stdio
            )
        )

    def close(self) -> None:
        # The last made first: a namespace's init ends only when whoever joined it has been reaped.
        for created in reversed(self.made):
            with contextlib.suppress(ProcessLookupError):
                os.kill(created.pid, 9) if _is_child(created.pid) else None
            with contextlib.suppress(ChildProcessError):
                os.waitpid(created.pid, 0)
            created.cgroup.remove(kill=True)
            for fd in (created.pidfd, created.console):
                if fd is not None:
                    with contextlib.suppress(OSError):
                        os.close(fd)


def _is_child(pid: int) -> bool:
    """Not reaped yet, so that the number is still its own."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _collect(start: Callable[[Stdio], Any]) -> Result:
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        try:
            process = start(Stdio(null, write, write))
        finally:
            os.close(write)
            os.close(null)
        with open(read, "rb", closefd=False) as pipe:
            output = pipe.read().decode(errors="replace")
    finally:
        os.close(read)
    return Result(os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]), output)


@pytest.fixture
def box(busybox_root: Path, tmp_path: Path) -> Iterator[Box]:
    """Containers made by the runtime alone, without engine, shim or network."""
    if os.geteuid():
        pytest.skip("needs root")
    tmp_path.chmod(0o755)
    made = Box(busybox_root, tmp_path)
    yield made
    made.close()
