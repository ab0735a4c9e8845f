"""A real narud for tests, in a network namespace of its own, and unmodified clients pointed at its socket.

The host's own engines are never disturbed: bridges, published ports and firewall tables live in the namespace, state
in a temporary directory. When a daemon is closed it must have left nothing; what it left is the test's failure.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import docker
import pytest

import naru
from naru.kernel import netns

_NUMBERS = itertools.count()
_ID = re.compile("[0-9a-f]{64}")
_CGROUPS = Path("/sys/fs/cgroup")
_PACKAGE_PATH = str(Path(naru.__file__).parents[1])
T = TypeVar("T")


def wait_until(what: Callable[[], T], timeout_s: float = 10.0) -> T:
    """Return the first true value of `what()`; fail with the last one when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := what()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s; last: {value!r}"
        time.sleep(0.01)
    return value


def _ip(*arguments: str, check: bool = True) -> str:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True).stdout


def _nft(*arguments: str, check: bool = True) -> str:
    return subprocess.run(["nft", *arguments], check=check, capture_output=True, text=True).stdout


def call_in(namespace: str, action: Callable[..., T], *arguments: object) -> T:
    """Call `action` in the network namespace file; a socket that it makes belongs there for good."""
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        return netns.run_inside(descriptor, lambda: action(*arguments))
    finally:
        os.close(descriptor)


class Namespace:
    """A network namespace, joined to the host by a veth pair whose traffic the host translates to its own address."""

    def __init__(self) -> None:
        number = next(_NUMBERS)
        self.name = f"naru-test-{os.getpid()}-{number}"
        self.path = f"/run/netns/{self.name}"
        self._device = f"nt{os.getpid()}x{number}"
        self._table = f"naru_test_{os.getpid()}_{number}"
        start = f"198.18.{os.getpid() % 256}.{number * 4 % 256}".rpartition(".")
        self.outer, self.address = (f"{start[0]}.{int(start[2]) + last}" for last in (1, 2))
        self._accepts: list[tuple[str, str, str, str]] = []
        forward = Path("/proc/sys/net/ipv4/ip_forward")
        with contextlib.ExitStack() as undo:
            _ip("netns", "add", self.name)
            undo.callback(_ip, "netns", "del", self.name)
            _ip("link", "add", self._device, "type", "veth", "peer", "name", "eth0", "netns", self.name)
            undo.callback(_ip, "link", "del", self._device, check=False)
            _ip("address", "add", f"{self.outer}/30", "dev", self._device)
            _ip("link", "set", self._device, "up")
            _ip("-n", self.name, "address", "add", f"{self.address}/30", "dev", "eth0")
            _ip("-n", self.name, "link", "set", "eth0", "up")
            _ip("-n", self.name, "link", "set", "lo", "up")
            _ip("-n", self.name, "route", "add", "default", "via", self.outer)
            rule = f"ip saddr {self.address} masquerade"
            _nft(f"table ip {self._table} {{ chain out {{ type nat hook postrouting priority 100; {rule}; }}; }}")
            undo.callback(_nft, "delete", "table", "ip", self._table)
            undo.callback(forward.write_text, forward.read_text())
            forward.write_text("1")
            undo.callback(self._withdraw_accepts)
            self._accept_where_forwarding_is_refused()
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Remove the namespace, and bring the host back to where it was."""
        self._undo.close()

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs `arguments` in this namespace, in the host's mount namespace."""
        return ["nsenter", f"--net={self.path}", *arguments]

    def run(self, *arguments: str, stdin: bytes = b"", timeout_s: float = 30) -> str:
        """Run a program inside; its output."""
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True, timeout=timeout_s)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def call(self, action: Callable[..., T], *arguments: object) -> T:
        """Call `action` inside; a socket that it makes belongs there for good."""
        return call_in(self.path, action, *arguments)

    def links(self) -> set[str]:
        return {link["ifname"] for link in json.loads(_ip("-n", self.name, "-json", "link"))}

    def translations(self) -> list[str]:
        """The elements of all nftables maps: published ports."""
        rules = json.loads(self.run("nft", "--json", "list", "ruleset"))["nftables"]
        return [str(element) for rule in rules for element in rule.get("map", {}).get("elem", [])]

    def processes(self) -> list[str]:
        """Whatever runs inside, shims among them."""
        inside = os.stat(self.path)
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(entry / "ns/net"), inside):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found.append(f"{entry.name}: {command}")
        return found

    def _accept_where_forwarding_is_refused(self) -> None:
        """An engine or a firewall on the host may drop what it forwards for others; a masquerade does not help then."""
        rules = json.loads(_nft("--json", "list", "ruleset"))["nftables"]
        for chain in [entry["chain"] for entry in rules if entry.get("chain", {}).get("hook") == "forward"]:
            family, table, name = chain["family"], chain["table"], chain["name"]
            for match in (("iifname", self._device), ("oifname", self._device)):
                _nft("insert", "rule", family, table, name, *match, "accept", "comment", f'"{self._table}"')
            self._accepts.append((family, table, name, self._table))

    def _withdraw_accepts(self) -> None:
        for family, table, name, comment in self._accepts:
            listed = _nft("--json", "--handle", "list", "chain", family, table, name, check=False)
            for entry in json.loads(listed)["nftables"] if listed else []:
                if entry.get("rule", {}).get("comment") == comment:
                    _nft("delete", "rule", family, table, name, "handle", str(entry["rule"]["handle"]), check=False)


@dataclass(frozen=True)
class Done:
    """How a client's command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Terminal:
    """A client on a pseudo-terminal, as somebody at a keyboard has it."""

    def __init__(self, command: Sequence[str], env: dict[str, str], *, rows: int = 24, columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        self._set_size(slave, rows, columns)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=env | {"TERM": "xterm"}, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str, timeout_s: float = 10.0) -> None:
        """Read until `text` appears in what has not been expected yet."""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            assert self._read(deadline - time.monotonic()), f"{text!r} did not come, but: {self.seen!r}"
        self.seen = self.seen.partition(text)[2]

    def sees(self, text: str) -> bool:
        """Read what is there now, and say whether `text` has appeared."""
        while self._read(0.05):
            pass
        return text in self.seen

    def resize(self, *, rows: int, columns: int) -> None:
        """Change the window's size and tell the client, as a terminal program does."""
        self._set_size(self._master, rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def end(self, timeout_s: float = 10.0) -> int:
        """Read to the end; the exit code. What was not expected is in `seen`."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    @staticmethod
    def _set_size(fd: int, rows: int, columns: int) -> None:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self, timeout_s: float) -> bool:
        if timeout_s <= 0 or not select.select([self._master], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the last slave is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


class Daemon:
    """narud in a namespace and a directory of its own."""

    def __init__(self, *flags: str, data: Path | None = None, **environ: str) -> None:
        self.flags = flags
        self.directory = Path(tempfile.mkdtemp(prefix="narud-"))
        self.data = data or self.directory / "data"
        self.run = self.directory / "run"
        self.log = self.directory / "narud.log"
        self.host = f"unix://{self.run}/naru.sock"
        self.environ = environ
        self._cgroups_before = set(_cgroups())
        self.namespace = Namespace()
        self._process: subprocess.Popen[bytes] | None = None
        self._opened: list[contextlib.AbstractContextManager[object]] = []
        self.start()

    # The daemon's own life

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def program(self) -> list[str]:
        return [sys.executable, "-m", "naru.daemon", f"--config-file={self.directory}/none"]

    @property
    def program_env(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": _PACKAGE_PATH} | self.environ

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the program, and do not wait for it to serve."""
        arguments = [*self.program, f"--data-root={self.data}", f"--exec-root={self.run}", *self.flags]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.namespace.command(*arguments),
                cwd="/",
                env=self.program_env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start, and wait until it serves."""
        self._process = process = self.spawn()

        def serves() -> bool:
            assert process.poll() is None, f"narud ended: {self.log.read_text()}"
            try:
                return bool(self.api.ping())
            except (docker.errors.APIError, OSError):
                return False

        wait_until(serves, 20)

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer or a power button would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_everything(self) -> None:
        """SIGKILL the daemon, its launcher and its shims, as a power cut would; the containers go with them."""
        self.kill()
        for process in self.namespace.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.partition(":")[0]), signal.SIGKILL)
        wait_until(lambda: not self.namespace.processes())

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def restart(self) -> None:
        """Kill and start again."""
        self.kill()
        self.start()

    # Clients

    @property
    def api(self) -> docker.APIClient:
        """docker-py's low-level client, one request per connection."""
        return docker.APIClient(base_url=self.host, version="1.44", timeout=60)

    @property
    def client_env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "DOCKER_CONFIG": str(self.directory / "docker"),
            "DOCKER_HOST": self.host,
            "DOCKER_BUILDKIT": "0",
        }

    def docker(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = 60) -> Done:
        """Run the docker command line to its end."""
        done = subprocess.run(
            ["docker", *arguments],
            env=self.client_env,
            capture_output=True,
            timeout=timeout_s,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        )
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def __call__(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = 60) -> str:
        """Run the docker command line, which must succeed; its output without the last newline."""
        done = self.docker(*arguments, stdin=stdin, timeout_s=timeout_s)
        assert done.code == 0, f"docker {' '.join(arguments)}: {done.code}: {done.out}{done.err}"
        return done.out.rstrip("\n")

    def docker_bytes(self, *arguments: str) -> bytes:
        """Run the docker command line, which must succeed; its output as it is."""
        return subprocess.run(["docker", *arguments], env=self.client_env, check=True, stdout=subprocess.PIPE).stdout

    def popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the docker command line with pipes; ended by `clear` if still there."""
        process = subprocess.Popen(
            ["docker", *arguments],
            env=self.client_env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._opened.append(_ended(process))
        return process

    def terminal(self, *arguments: str, **size: int) -> Terminal:
        """Start the docker command line on a pseudo-terminal."""
        terminal = Terminal(["docker", *arguments], self.client_env, **size)
        self._opened.append(contextlib.closing(terminal))
        return terminal

    # Afterwards

    def clear(self) -> None:
        """End the clients and remove every container and every volume."""
        for opened in self._opened:
            opened.__exit__(None, None, None)
        self._opened.clear()
        api = self.api
        for container in api.containers(all=True):
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_container(container["Id"], force=True, v=True)
        for volume in api.volumes()["Volumes"] or []:
            api.remove_volume(volume["Name"])

    def leaks(self) -> list[str]:
        """What containers left on this machine, once none is there any more."""
        mounts = [line for pid in ("self", self.pid) for line in _mounts(pid) if str(self.directory) in line]
        expected = {"lo", "eth0", "naru0"}
        members = [link for link in self.namespace.links() - expected if self._is_plugged(link)]
        containers = [str(path) for path in (self.data / "containers").iterdir()]
        shims = [str(path) for path in (self.run / "shims").iterdir()]
        return [*mounts, *members, *containers, *shims, *self.namespace.translations(), *self._dead_cgroups()]

    def close(self) -> None:
        """Remove everything, and fail if the daemon had left anything."""
        problems: list[str] = []
        try:
            if self._process is not None and self._process.poll() is not None:
                self.start()
            self.clear()
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self.leaks(), 5)
            problems += self.leaks()
            if code := self.stop():
                problems.append(f"narud ended with {code}")
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self.namespace.processes(), 5)
            problems += self.namespace.processes()
        finally:
            for process in self.namespace.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process.partition(":")[0]), signal.SIGKILL)
            self.namespace.close()
            shutil.rmtree(self.directory, ignore_errors=True)
        assert not problems, "\n".join(["left behind:", *problems])

    def _is_plugged(self, link: str) -> bool:
        """On a bridge; the daemon keeps a few veths ready, which are on none and die with it."""
        shown = json.loads(_ip("-n", self.namespace.name, "-json", "link", "show", link, check=False) or "[{}]")
        return "master" in shown[0] or not link.startswith("veth")

    def _dead_cgroups(self) -> list[str]:
        """New cgroups without a process: a container's that is gone, as others' tests run theirs beside us."""
        return [str(path) for path in set(_cgroups()) - self._cgroups_before if not _has_process(path)]


@contextlib.contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    yield
    if process.poll() is None:
        process.kill()
    process.communicate()


def _ended(process: subprocess.Popen[bytes]) -> contextlib.AbstractContextManager[None]:
    manager = _ending(process)
    manager.__enter__()
    return manager


def _cgroups() -> Iterator[Path]:
    for parent in (_CGROUPS / "naru", *_CGROUPS.glob("*/naru")):
        if parent.is_dir():
            yield from (path for path in parent.iterdir() if _ID.fullmatch(path.name))


def _has_process(cgroup: Path) -> bool:
    try:
        return any(file.read_text() for file in cgroup.rglob("cgroup.procs"))
    except OSError:
        return True  # it went away under our eyes


def _mounts(pid: str | int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return []


def _need(programs: Sequence[str]) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (libexec/install-test-peers)")


def pull(daemon: Daemon, *names: str) -> None:
    """Pull library images, side by side; skip the test if no package mirror can be reached."""
    pulls = [daemon.popen("pull", "--quiet", name) for name in names]
    for pulling in pulls:
        _, said = pulling.communicate(timeout=180)
        if b"cannot be reached" in said or b"Temporary failure in name resolution" in said:
            pytest.skip(f"needs a Debian mirror: {said.decode().strip()}")
        assert pulling.returncode == 0, said.decode()


@pytest.fixture(scope="session")
def shared_narud() -> Iterator[Daemon]:
    """One daemon for all tests that do not harm it, with the image busybox."""
    _need(["docker", "ip", "nft", "nsenter"])
    daemon = Daemon()
    try:
        pull(daemon, "busybox")
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def narud(shared_narud: Daemon) -> Iterator[Daemon]:
    """The shared daemon; its containers and volumes are removed after the test."""
    yield shared_narud
    shared_narud.clear()


@pytest.fixture(scope="session")
def busybox_archive(shared_narud: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`docker save busybox`."""
    archive = tmp_path_factory.mktemp("archive") / "busybox.tar"
    shared_narud("save", "--output", str(archive), "busybox")
    return archive


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[Daemon]:
    daemon = Daemon()
    try:
        daemon("load", "--input", str(archive))
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def own_narud(busybox_archive: Path) -> Iterator[Daemon]:
    """A daemon for one test alone, to be killed or restarted, with the image busybox."""
    with _opened(busybox_archive) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def own_narud_shared(busybox_archive: Path) -> Iterator[Daemon]:
    """A daemon for one module alone, with the image busybox and nothing else."""
    with _opened(busybox_archive) as daemon:
        yield daemon
