"""Print how many of each validation program's checks `naru-runtime`, runc and crun pass on this host."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import tap_programs
from peers import naru_program, peer_program
from test_validation import LONG, QUICK


def _cell(verdict: tap_programs.Verdict) -> str:
    passed, failed = verdict.passed.total(), verdict.failed.total()
    return f"{passed}" if not failed else f"{passed}, {failed} not"


def main() -> None:
    """Print the table in Markdown."""
    programs = tap_programs.build()
    peers = [name for name in ("runc", "crun") if shutil.which(name)]
    print("|".join(["", "program", "naru-runtime", *peers, ""]))
    print("|".join(["", *["---"] * (2 + len(peers)), ""]))
    with tempfile.TemporaryDirectory(prefix="naru-conformance-", ignore_cleanup_errors=True) as path:
        scratch = Path(path)
        scratch.chmod(0o755)
        runtimes = [naru_program(scratch, root=scratch / "naru-state")]
        runtimes += [peer_program(scratch, name, root=scratch / f"{name}-state") for name in peers]
        for program in sorted(QUICK + LONG):
            cells = [_cell(tap_programs.judge(program, runtime, programs, scratch)) for runtime in runtimes]
            print("|".join(["", program, *cells, ""]), flush=True)


if __name__ == "__main__":
    main()
