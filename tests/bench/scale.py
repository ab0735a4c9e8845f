"""Many at once: starts, listings and memory of a hundred containers, and what else the daemon does meanwhile."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles

from tests.bench.engines import Engine, find
from tests.bench.figures import Bench, Row, remove_all
from tests.bench.processes import megabytes
from tests.bench.scratch import IMAGE
from tests.bench.timing import command, in_turns

_CONTAINERS = 100
_LISTED = 500
_SAVED_BYTES = 2 << 30
_STEADY_S = 15.0
_LONGEST_SETTLING_S = 120.0


class _Connection(http.client.HTTPConnection):
    """HTTP over an engine's socket, as any SDK speaks it; the docker CLI's own start is not the engine's doing."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _ask(engine: Engine, method: str, path: str, body: object = None) -> bytes:
    connection = _Connection(engine.socket)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, f"/v1.41{path}", json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{engine.name}: {method} {path}: {answer.status} {said.decode(errors='replace')}")
        return said
    finally:
        connection.close()


def _create(engine: Engine) -> str:
    asked = {"Image": IMAGE, "Cmd": ["sleep", "1000000"]}
    found: str = json.loads(_ask(engine, "POST", "/containers/create", asked))["Id"]
    return found


def _start_many(engine: Engine) -> None:
    def one(_number: int) -> None:
        _ask(engine, "POST", f"/containers/{_create(engine)}/start")

    with ThreadPoolExecutor(_CONTAINERS) as pool:
        list(pool.map(one, range(_CONTAINERS)))


def scale(bench: Bench) -> list[Row]:
    """100 containers created and started at once, the memory of all that serves them, and `ps` among 500."""
    remove_all(bench)

    def job(engine: Engine) -> Callable[[], float]:
        def run() -> float:
            remove_all(bench)
            begin = time.perf_counter()
            _start_many(engine)
            return time.perf_counter() - begin

        return run

    try:
        started = in_turns({engine.name: job(engine) for engine in bench.engines}, max(2, bench.rounds // 5), warm=0)
        remove_all(bench)
        for engine in bench.engines:
            _start_many(engine)
        _settle(bench.naru)
        serving = [megabytes([*engine.daemon_processes(), *engine.shim_processes()], "Pss") for engine in bench.engines]
        for engine in bench.engines:
            for _ in range(_LISTED - _CONTAINERS):
                _create(engine)
        listed = bench.milliseconds(f"docker ps --all with {_LISTED} containers", ["ps", "--all"], 0.5)
        answered = in_turns(
            {one.name: lambda one=one: _ask(one, "GET", "/containers/json?all=1") for one in bench.engines},  # type: ignore[misc]
            bench.rounds,
        )
    finally:
        remove_all(bench)
    return [
        Row(f"create and start {_CONTAINERS} containers at once", "s", started["naru"], started["dockerd"], 0.25),
        Row(f"all that serves {_CONTAINERS} running containers, PSS", "MB", serving[0], serving[1], 0.4),
        listed,
        Row("the same list by the API alone", "ms", answered["naru"] * 1e3, answered["dockerd"] * 1e3),
    ]


def _settle(engine: Engine) -> None:
    """Wait until the memory of what serves containers does not change any more: naru has equal pages merged."""

    def taken() -> float:
        return megabytes([*engine.daemon_processes(), *engine.shim_processes()], "Pss")

    steady_since, before = time.monotonic(), taken()
    begin = steady_since
    while time.monotonic() < min(steady_since + _STEADY_S, begin + _LONGEST_SETTLING_S):
        time.sleep(1)
        now = taken()
        if abs(now - before) > before / 50:
            steady_since, before = time.monotonic(), now


def attached(bench: Bench) -> list[Row]:
    """A container's output through `docker run … | cat`, with the log that an engine keeps unless told otherwise."""
    lines, line_bytes = 1_000_000, 100
    producer = f"yes {'x' * (line_bytes - 1)} | head -n {lines}"
    arguments = ["run", "--rm", "--network", "none", IMAGE, "sh", "-c"]
    jobs = {
        engine.name: command(["sh", "-c", f'{find("docker")} {" ".join(arguments)} "{producer}" | cat'], engine.env)
        for engine in bench.engines
    }
    empty = {
        engine.name: command(["sh", "-c", f"{find('docker')} {' '.join(arguments)} true | cat"], engine.env)
        for engine in bench.engines
    }
    rounds = max(3, bench.rounds // 5)
    whole, start = in_turns(jobs, rounds, warm=1), in_turns(empty, rounds, warm=1)
    rates = {name: lines * line_bytes / 1e6 / (whole[name] - start[name]) for name in whole}
    return [
        Row("container output by docker run | cat", "MB/s", rates["naru"], rates["dockerd"], 2, less_is_better=False)
    ]


def ping(bench: Bench) -> list[Row]:
    """How long `GET /_ping` takes at the 99th percentile while a 2 GB image is saved and 100 containers start."""
    naru = bench.naru
    remove_all(bench)
    archive = bench.directory / "large.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("random")
        info.size = _SAVED_BYTES
        block = io.BytesIO(os.urandom(64 << 20))
        tar.addfile(info, _Repeated(block.getvalue(), _SAVED_BYTES))
    naru.docker("import", str(archive), "bench-large")
    archive.unlink()
    saving = threading.Thread(
        target=command(
            [find("docker"), "save", "--output", str(bench.directory / "saved.tar"), "bench-large"], naru.env
        )
    )
    starting = threading.Thread(target=_start_many, args=(naru,))
    taken: list[float] = []
    try:
        _ask(naru, "GET", "/_ping")
        for thread in (saving, starting):
            thread.start()
        while saving.is_alive() or starting.is_alive():
            begin = time.perf_counter()
            _ask(naru, "GET", "/_ping")
            taken.append(time.perf_counter() - begin)
            time.sleep(0.005)
    finally:
        for thread in (saving, starting):
            thread.join()
        remove_all(bench)
        naru.docker("rmi", "bench-large", check=False)
        (bench.directory / "saved.tar").unlink(missing_ok=True)
    worst = quantiles(taken, n=100)[98]
    return [Row("GET /_ping meanwhile, 99th percentile", "ms", worst * 1e3, None, 50, absolute=True, peer="")]


class _Repeated(io.RawIOBase):
    """`size` bytes of `block` over and over, as a file."""

    def __init__(self, block: bytes, size: int) -> None:
        self._block = block
        self._left = size

    def read(self, size: int = -1) -> bytes:
        count = min(self._left, len(self._block), size if size >= 0 else self._left)
        self._left -= count
        return self._block[:count]


FIGURES: dict[str, Callable[[Bench], list[Row]]] = {"scale": scale, "attached": attached, "ping": ping}
