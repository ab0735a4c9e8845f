"""`naru-runtime`: the runtime as an OCI runtime program, with the options that containerd, CRI-O and Podman pass.

Only what parses the command line is imported here; the verbs are in `cli_verbs`. The specification names the verbs
create, start, state, kill and delete (runtime.md, Operations); the others, and all options, are those that callers
of runtimes have come to expect.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

_MAKES_PROCESSES = ("create", "run", "exec")


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 1 for an error, for `run` and `exec` what the process returned."""
    options = parser().parse_args(arguments)
    if options.verb in _MAKES_PROCESSES:
        from naru.runtime.self_exe import protect

        protect()
    from naru.errors import CannotStart, NaruError
    from naru.runtime import cli_verbs

    try:
        code = int(getattr(cli_verbs, options.verb.replace("-", "_"))(options) or 0)
        if arguments is None:
            _leave(code)
        return code
    except (NaruError, OSError) as error:
        message = (
            str(error)
            if isinstance(error, NaruError)
            else f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
        )
        if isinstance(error, CannotStart):
            message = f"unable to start container process: {message}"
        _report(options, message)
        if options.verb in ("run", "exec") and isinstance(error, CannotStart) and error.exit_code in (126, 127):
            return error.exit_code
        return 1


def _leave(code: int) -> None:
    """End at once: callers begin to watch a container when `start` has ended, and it runs already."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    from naru import __version__

    top = argparse.ArgumentParser(
        prog="naru-runtime",
        description="Run containers from OCI bundles.",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # callers read the version line by line
    )
    version = f"naru-runtime version {__version__}\nspec: 1.2.0"
    top.add_argument("-v", "--version", action="version", version=version)
    top.add_argument("--root", default=_default_root(), help="directory of the containers' state")
    top.add_argument("--log", help="file for errors, instead of only standard error")
    top.add_argument("--log-format", choices=("text", "json"), default="text")
    top.add_argument("--debug", action="store_true", help="accepted; there is nothing more to tell")
    top.add_argument("--systemd-cgroup", action="store_true", help="cgroupsPath is slice:prefix:name")
    top.add_argument("--rootless", help="accepted: true, false or auto")
    top.add_argument("--criu", help=argparse.SUPPRESS)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    create = verbs.add_parser("create", help="create a container from a bundle")
    run = verbs.add_parser("run", help="create a container, start it, and wait for it")
    for verb in (create, run):
        verb.add_argument("-b", "--bundle", default=".")
        verb.add_argument("--console-socket")
        verb.add_argument("--pid-file")
        verb.add_argument("--no-pivot", action="store_true")
        verb.add_argument("--no-new-keyring", action="store_true")
        verb.add_argument("--preserve-fds", type=int, default=0)
        verb.add_argument("id")
    run.add_argument("-d", "--detach", action="store_true")
    run.add_argument("--keep", action="store_true", help="keep the container's state after it has ended")
    run.add_argument("--no-subreaper", action="store_true", help=argparse.SUPPRESS)

    for name, text in (
        ("start", "execute the program of a created container"),
        ("state", "print a container's state"),
        ("pause", "freeze all processes of a container"),
        ("resume", "let a paused container go on"),
    ):
        verbs.add_parser(name, help=text).add_argument("id")

    kill = verbs.add_parser("kill", help="send a signal to a container's process")
    kill.add_argument("-a", "--all", action="store_true")
    kill.add_argument("id")
    kill.add_argument("signal", nargs="?", default="TERM")

    delete = verbs.add_parser("delete", help="remove what a stopped container has left")
    delete.add_argument("-f", "--force", action="store_true")
    delete.add_argument("id")

    _add_exec(verbs)

    listing = verbs.add_parser("list", help="list containers")
    listing.add_argument("-f", "--format", choices=("table", "json"), default="table")
    listing.add_argument("-q", "--quiet", action="store_true")

    processes = verbs.add_parser("ps", help="list the processes in a container")
    processes.add_argument("-f", "--format", choices=("table", "json"), default="table")
    processes.add_argument("id")
    processes.add_argument("ps_options", nargs=argparse.REMAINDER)

    events = verbs.add_parser("events", help="print what a container uses, and when it runs out of memory")
    events.add_argument("--stats", action="store_true", help="print once and end")
    events.add_argument("--interval", default="5s")
    events.add_argument("id")

    _add_update(verbs)
    spec = verbs.add_parser("spec", help="write a config.json to start from")
    spec.add_argument("-b", "--bundle", default=".")
    verbs.add_parser("features", help="print what this runtime can do")
    return top


def _add_exec(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verb = verbs.add_parser("exec", help="run another process in a container")
    verb.add_argument("--console-socket")
    verb.add_argument("--cwd")
    verb.add_argument("-e", "--env", action="append", default=[])
    verb.add_argument("-t", "--tty", action="store_true")
    verb.add_argument("-u", "--user", help="uid[:gid]")
    verb.add_argument("-g", "--additional-gids", type=int, action="append", default=[])
    verb.add_argument("-p", "--process", help="file with the process in JSON")
    verb.add_argument("-d", "--detach", action="store_true")
    verb.add_argument("--pid-file")
    verb.add_argument("--process-label")
    verb.add_argument("--apparmor")
    verb.add_argument("--no-new-privs", action="store_true")
    verb.add_argument("-c", "--cap", action="append", default=[])
    verb.add_argument("--preserve-fds", type=int, default=0)
    verb.add_argument("--ignore-paused", action="store_true")
    verb.add_argument("id")
    verb.add_argument("command", nargs=argparse.REMAINDER)


def _add_update(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verb = verbs.add_parser("update", help="change a container's limits")
    verb.add_argument("-r", "--resources", help="file with the resources in JSON, - for standard input")
    for name in ("memory", "memory-reservation", "memory-swap"):
        verb.add_argument(f"--{name}", type=_bytes)
    for name in ("cpu-period", "cpu-quota", "cpu-share", "cpu-burst", "cpu-idle", "blkio-weight", "pids-limit"):
        verb.add_argument(f"--{name}", type=int)
    for name in ("cpuset-cpus", "cpuset-mems"):
        verb.add_argument(f"--{name}")
    verb.add_argument("id")


def _bytes(text: str) -> int:
    """-1, or a number of bytes with an optional unit of k, m or g."""
    unit = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1:].lower(), 1)
    return int(text[:-1]) * unit if unit > 1 else int(text)


def _default_root() -> str:
    directory = os.environ.get("XDG_RUNTIME_DIR")
    return f"{directory}/naru-runtime" if os.geteuid() and directory else "/run/naru-runtime"


def _report(options: argparse.Namespace, message: str) -> None:
    """To standard error for people, and to the log for the caller, who looks for the last record of level error."""
    print(f"naru-runtime {options.verb} failed: {message}", file=sys.stderr)
    if not options.log:
        return
    from msgspec import json

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = json.encode({"level": "error", "msg": message, "time": now}).decode()
    line = record if options.log_format == "json" else f'time="{now}" level=error msg={json.encode(message).decode()}'
    with open(options.log, "a") as log:
        log.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
