"""The figures: each a function of the engines that returns rows, naru's value beside the other's."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.engines import TOP, Dockerd, Engine, Naru, find
from tests.bench.outlet import mirror
from tests.bench.processes import megabytes
from tests.bench.scratch import IMAGE, Missing, wait_for
from tests.bench.timing import command, in_turns

_LINES = 2_000_000
_LINE_BYTES = 100
_IDLE_CONTAINERS = 10


@dataclass(frozen=True)
class Row:
    """One comparison. `target` is the most (`less_is_better`) or least that naru's value may be, as a ratio or,
    with `absolute`, as itself."""

    what: str
    unit: str
    ours: float
    theirs: float | None
    target: float | None = None
    less_is_better: bool = True
    absolute: bool = False
    peer: str = "dockerd"

    @property
    def ratio(self) -> float | None:
        return self.ours / self.theirs if self.theirs else None

    @property
    def is_met(self) -> bool | None:
        value = self.ours if self.absolute else self.ratio
        if self.target is None or value is None:
            return None
        return value <= self.target if self.less_is_better else value >= self.target


@dataclass(frozen=True)
class Bench:
    naru: Naru
    dockerd: Dockerd
    image: Path
    directory: Path
    rounds: int

    @property
    def engines(self) -> tuple[Engine, Engine]:
        return self.naru, self.dockerd

    def milliseconds(self, what: str, arguments: Sequence[str], target: float | None = None) -> Row:
        """The same docker command against both."""
        jobs = {engine.name: command([find("docker"), *arguments], engine.env) for engine in self.engines}
        medians = in_turns(jobs, self.rounds)
        return Row(what, "ms", medians["naru"] * 1e3, medians["dockerd"] * 1e3, target)


def run(bench: Bench) -> list[Row]:
    """`docker run --rm IMAGE true`, by network, and the part of it that is the docker CLI."""
    return [
        bench.milliseconds("docker run --rm IMAGE true", ["run", "--rm", IMAGE, "true"], 0.2),
        *(
            bench.milliseconds(
                f"docker run --rm --network {name} IMAGE true", ["run", "--rm", "--network", name, IMAGE, "true"]
            )
            for name in ("none", "host")
        ),
        bench.milliseconds("docker run --detach --rm IMAGE true", ["run", "--detach", "--rm", IMAGE, "true"]),
        bench.milliseconds("docker version (what the CLI itself takes)", ["version"]),
    ]


def exec_(bench: Bench) -> list[Row]:
    """`docker exec CONTAINER true`."""
    for engine in bench.engines:
        engine.docker("run", "--detach", "--name", "bench-exec", "--init", IMAGE, "sleep", "1000000")
    try:
        return [bench.milliseconds("docker exec CONTAINER true", ["exec", "bench-exec", "true"], 0.45)]
    finally:
        remove_all(bench)


def log(bench: Bench) -> list[Row]:
    """A container's output into its json-file log, until the container's end, and the log read back."""
    rounds = max(3, bench.rounds // 5)
    megabyte = _LINES * _LINE_BYTES / 1e6
    producer = f"yes {'x' * (_LINE_BYTES - 1)} | head -n {_LINES}"
    run_arguments = ["run", "--name", "bench-log", "--network", "none", "--log-driver", "json-file"]

    def write(engine: Engine) -> Callable[[], object]:
        def job() -> float:
            engine.docker("rm", "--force", "bench-log", check=False)
            begin = time.perf_counter()
            engine.docker(*run_arguments, "--detach", IMAGE, "sh", "-c", producer)
            engine.docker("wait", "bench-log")
            return time.perf_counter() - begin

        return job

    def start(engine: Engine) -> Callable[[], object]:
        def job() -> float:
            engine.docker("rm", "--force", "bench-log", check=False)
            begin = time.perf_counter()
            engine.docker(*run_arguments, "--detach", IMAGE, "true")
            engine.docker("wait", "bench-log")
            return time.perf_counter() - begin

        return job

    try:
        starting = in_turns({engine.name: start(engine) for engine in bench.engines}, rounds, warm=1)
        written = in_turns({engine.name: write(engine) for engine in bench.engines}, rounds, warm=1)
        read = in_turns(
            {one.name: command([find("docker"), "logs", "bench-log"], one.env) for one in bench.engines}, rounds
        )
    finally:
        remove_all(bench)
    rates = {name: megabyte / (written[name] - starting[name]) for name in written}
    return [
        Row("container output into json-file", "MB/s", rates["naru"], rates["dockerd"], 2, less_is_better=False),
        Row("docker logs", "MB/s", megabyte / read["naru"], megabyte / read["dockerd"], 2, less_is_better=False),
    ]


def cli(bench: Bench) -> list[Row]:
    """./naru against naru, beside the docker CLI against dockerd."""
    naru = str(TOP / "naru")
    rows = []
    for what, arguments, target in (
        ("run --rm IMAGE true", ["run", "--rm", IMAGE, "true"], 0.25),
        ("ps", ["ps"], None),
    ):
        jobs = {
            "naru": command([naru, *arguments], bench.naru.env),
            "dockerd": command([find("docker"), *arguments], bench.dockerd.env),
        }
        medians = in_turns(jobs, bench.rounds)
        row = Row(
            f"./naru {what}", "ms", medians["naru"] * 1e3, medians["dockerd"] * 1e3, target, peer="docker + dockerd"
        )
        rows.append(row)
    jobs = {"naru": command([naru, "--version"], {}), "dockerd": command([find("docker"), "--version"], {})}
    medians = in_turns(jobs, bench.rounds)
    version = Row(
        "./naru --version", "ms", medians["naru"] * 1e3, medians["dockerd"] * 1e3, 40, absolute=True, peer="docker"
    )
    return [*rows, version]


def memory(bench: Bench) -> list[Row]:
    """The daemons without containers, and what each of ten idle containers adds in shims."""
    remove_all(bench)
    rows = []
    for field, what, target in (("Rss", "RSS", 0.6), ("Pss", "PSS", None)):
        ours, theirs = (megabytes(engine.daemon_processes(), field) for engine in bench.engines)
        if field == "Rss":
            narud = bench.naru.daemons[0].pid
            main = [one for one in bench.naru.daemon_processes() if one.pid == narud or one.parent == narud]
            rows.append(Row("daemon, RSS: narud and launcher", "MB", megabytes(main, field), theirs, target))
            rows.append(Row("daemon, RSS: the spare shim counted too", "MB", ours, theirs))
        else:
            rows.append(Row(f"daemon, {what}: all processes", "MB", ours, theirs))
    for engine in bench.engines:
        for _ in range(_IDLE_CONTAINERS):
            engine.docker("run", "--detach", IMAGE, "sleep", "1000000")
    try:
        time.sleep(2)  # idle is a state of the kernel too: what was freed late is free now
        for field, limit in (("Pss", 2.5), ("Rss", None)):
            each = [megabytes(engine.shim_processes(), field) / _IDLE_CONTAINERS for engine in bench.engines]
            rows.append(
                Row(f"shim of an idle container, {field.upper()}", "MB", each[0], each[1], limit, absolute=True)
            )
    finally:
        remove_all(bench)
    return rows


def image(bench: Bench) -> list[Row]:
    """`docker load` of the image already known, and `docker save`."""
    return [
        bench.milliseconds("docker load", ["load", "--input", str(bench.image)]),
        bench.milliseconds("docker save", ["save", "--output", str(bench.directory / "saved.tar"), IMAGE]),
    ]


def podman(bench: Bench) -> list[Row]:
    """`podman run`, which has no daemon, beside ./naru run."""
    program = find("podman")
    directory = bench.directory / "podman"
    base = [program, "--root", f"{directory}/root", "--runroot", f"{directory}/run", "--cgroup-manager", "cgroupfs"]
    try:
        loaded = subprocess.run([*base, "load", "--input", bench.image], capture_output=True, text=True)
        if loaded.returncode:
            raise Missing(f"podman load: {loaded.stderr.strip().splitlines()[-1]}")
        runtime, theirs = _podman_that_runs(base)
        ours = command([str(TOP / "naru"), "run", "--rm", "--network", "none", IMAGE, "true"], bench.naru.env)
        medians = in_turns({"naru": ours, "podman": theirs}, bench.rounds)
    finally:
        subprocess.run(["umount", directory / "root" / "overlay"], capture_output=True)  # podman leaves it mounted
    what = "./naru run --rm --network none IMAGE true"
    return [Row(what, "ms", medians["naru"] * 1e3, medians["podman"] * 1e3, peer=f"podman with {runtime}")]


def _podman_that_runs(base: Sequence[str]) -> tuple[str, Callable[[], None]]:
    """podman raises limits, which it may not where this process lacks CAP_SYS_RESOURCE, unless told lower ones."""
    problem = "no runtime is installed"
    for runtime in ("crun", "runc"):
        for ulimit in ([], ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]):
            arguments = [*base, "--runtime", find(runtime), "run", "--rm", "--network", "none", *ulimit]
            job = command([*arguments, f"localhost/{IMAGE}", "true"], {})
            try:
                job()
            except RuntimeError as error:
                problem = str(error).splitlines()[-1]
            else:
                return runtime, job
    raise Missing(f"podman cannot run a container here: {problem}")


def bootstrap(bench: Bench) -> list[Row]:
    """debian:bookworm-slim made by the library, an image in the end, beside debootstrap; both fetch all packages."""
    program = find("debootstrap")
    root = bench.directory / "debootstrap"

    def theirs() -> float:
        shutil.rmtree(root, ignore_errors=True)
        begin = time.perf_counter()
        arguments: list[str | Path] = [program, "--variant=minbase", "bookworm", root, mirror()]
        made = bench.naru.namespaces.start(arguments, bench.directory / "debootstrap.log", bench.naru.env)
        if made.wait():
            raise Missing("debootstrap failed: " + (bench.directory / "debootstrap.log").read_text().splitlines()[-1])
        return time.perf_counter() - begin

    def ours() -> float:
        bench.naru.docker("rmi", "--force", "debian:bookworm-slim", check=False)
        begin = time.perf_counter()
        bench.naru.docker("pull", "debian:bookworm-slim")
        return time.perf_counter() - begin

    medians = in_turns({"naru": ours, "debootstrap": theirs}, 2, warm=0)
    return [Row("debian:bookworm-slim", "s", medians["naru"], medians["debootstrap"], 0.5, peer="debootstrap minbase")]


def remove_all(bench: Bench) -> None:
    """Remove every container of both engines and wait for their shims."""
    for engine in bench.engines:
        engine.remove_containers()
        wait_for(lambda engine=engine: not engine.shim_processes(), "shims to end")  # type: ignore[misc]


FIGURES: dict[str, Callable[[Bench], list[Row]]] = {
    "memory": memory,
    "run": run,
    "exec": exec_,
    "log": log,
    "cli": cli,
    "image": image,
    "podman": podman,
    "bootstrap": bootstrap,
}
