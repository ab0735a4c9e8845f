"""python -m tests.bench [--rounds N] [--record] [names]"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench import figures, report, scale
from tests.bench.engines import TOP, Dockerd, Naru, find
from tests.bench.figures import Bench, Row
from tests.bench.scratch import Missing, make_image

FIGURES = figures.FIGURES | scale.FIGURES


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Figures beside the engines installed here.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FIGURES)}; default all")
    parser.add_argument("--rounds", type=int, default=15, help="how often each command is timed (default %(default)s)")
    parser.add_argument("--record", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args()
    if unknown := set(options.names) - FIGURES.keys():
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        sys.exit("./dev bench: needs root, as the engines do")
    subprocess.run(["sh", TOP / "libexec" / "install-bench-peers"], check=True)
    # Not in /tmp, which may be a tmpfs: overlay and fsync would be free.
    with tempfile.TemporaryDirectory(prefix="naru-bench-", dir="/var/tmp") as directory, ExitStack() as undo:
        results: dict[str, list[Row] | Missing] = {}
        try:
            bench = _bench(Path(directory), options.rounds, undo)
        except Missing as missing:
            sys.exit(f"./dev bench: {missing}")
        for name in options.names or FIGURES:
            print(f"{name}: {FIGURES[name].__doc__}", file=sys.stderr)
            try:
                results[name] = FIGURES[name](bench)
            except (Missing, RuntimeError, subprocess.CalledProcessError) as error:
                said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
                results[name] = Missing(said[-1] if said else str(error))
            print(report.table({name: results[name]}).partition("|\n")[2].partition("|\n")[2], file=sys.stderr)
        text = f"{report.machine(_versions(bench))}\n{report.table(results)}"
        print(text)
        if options.record:
            report.record(TOP / "docs" / "benchmarks.md", text)
    return 0


def _bench(directory: Path, rounds: int, undo: ExitStack) -> Bench:
    image = make_image(directory)
    naru = Naru(directory / "naru", undo)
    dockerd = Dockerd(directory / "dockerd", undo)
    for engine in (naru, dockerd):
        engine.load(image)
    return Bench(naru, dockerd, image, directory, rounds)


def _versions(bench: Bench) -> dict[str, str]:
    client = subprocess.run([find("docker"), "--version"], capture_output=True, text=True).stdout
    return {
        "naru": bench.naru.version(),
        "dockerd": bench.dockerd.version(),
        "docker CLI": client.removeprefix("Docker version ").partition(",")[0],
    }


if __name__ == "__main__":
    sys.exit(main())
