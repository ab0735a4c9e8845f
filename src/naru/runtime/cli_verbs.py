"""The verbs of `naru-runtime`, each taking the parsed command line and returning an exit code or None."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from typing import Any

from msgspec import json, structs, to_builtins

from naru.errors import Conflict, InvalidArgument, Unsupported
from naru.oci.runtime import (
    CPU,
    BlockIO,
    Capabilities,
    Memory,
    Pids,
    Process,
    Resources,
    Spec,
    User,
    decode_process,
    decode_spec,
    encode,
)
from naru.persist.files import write_atomically
from naru.runtime import foreground
from naru.runtime.cgroup import systemd_path
from naru.runtime.create import Stdio
from naru.runtime.default_spec import default_spec
from naru.runtime.exec import exec_process
from naru.runtime.state import (
    Container,
    Record,
    containers,
    create_container,
    delete_container,
    kill_container,
    start_container,
)


def create(options: argparse.Namespace) -> None:
    """Create the container; its process stays, and waits to be started."""
    spec = _load_bundle(options)
    if spec.process is not None and spec.process.terminal and not options.console_socket:
        raise InvalidArgument("cannot allocate a terminal for a detached container without a console socket")
    _create(options, spec)


def run(options: argparse.Namespace) -> int | None:
    """Create and start; in the foreground, relay the terminal, wait, and delete."""
    spec = _load_bundle(options)
    container = Container(options.root, options.id)
    record, console = _create(options, spec)
    try:
        _warn(start_container(container))
    except BaseException:
        delete_container(container, force=True)
        raise
    if options.detach:
        return None
    pidfd = os.pidfd_open(record.pid)
    try:
        return foreground.attend(record.pid, pidfd, console)
    finally:
        os.close(pidfd)
        if not options.keep:
            _warn(delete_container(container, force=True))


def _create(options: argparse.Namespace, spec: Spec) -> tuple[Record, int | None]:
    container = Container(options.root, options.id)
    record, console = create_container(
        container,
        spec,
        bundle=os.path.realpath(options.bundle),
        cgroups_path=_cgroups_path(options, spec),
        stdio=Stdio(0, 1, 2),
        preserve_fds=options.preserve_fds,
        use_pivot=not options.no_pivot,
        new_keyring=not options.no_new_keyring,
    )
    try:
        if console is not None and options.console_socket:
            foreground.send_console(options.console_socket, console)
            os.close(console)
            console = None
        if options.pid_file:
            write_atomically(options.pid_file, str(record.pid).encode(), mode=0o644, durable=False)
    except BaseException:
        delete_container(container, force=True)
        raise
    return record, console


def _load_bundle(options: argparse.Namespace) -> Spec:
    path = os.path.join(options.bundle, "config.json")
    try:
        with open(path, "rb") as file:
            return decode_spec(file.read())
    except FileNotFoundError:
        raise InvalidArgument(f"JSON specification file {path} not found") from None


def _cgroups_path(options: argparse.Namespace, spec: Spec) -> str:
    """The spec's, in the notation asked for; a relative one is taken below the top, as other runtimes do."""
    path = spec.linux.cgroups_path if spec.linux else ""
    if options.systemd_cgroup:
        if not path:
            return systemd_path(f"system.slice:naru:{options.id}")
        return systemd_path(path)
    if path.count(":") == 2 and "/" not in path:
        raise Unsupported(f"cgroupsPath {path} is in systemd's notation: use --systemd-cgroup")
    return "/" + path.strip("/") if path else f"/naru/{options.id}"


def start(options: argparse.Namespace) -> None:
    """Execute the program of a created container."""
    _warn(start_container(Container(options.root, options.id)))


def state(options: argparse.Namespace) -> None:
    """Print the specification's state, and what callers of other runtimes also look for."""
    container = Container(options.root, options.id)
    print(json.format(json.encode(_describe(container)), indent=2).decode())


def _describe(container: Container) -> dict[str, Any]:
    record = container.record()
    found: dict[str, Any] = json.decode(encode(container.state()))
    found.setdefault("pid", 0)
    return found | {"rootfs": record.rootfs, "created": record.created, "owner": ""}


def kill(options: argparse.Namespace) -> None:
    """Send a signal, by number or by name with or without SIG."""
    kill_container(Container(options.root, options.id), _signal_number(options.signal), everyone=options.all)


def _signal_number(text: str) -> int:
    if text.isdigit() and int(text) in signal.valid_signals() | {0}:
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    base, plus, offset = name.partition("+")
    try:
        return int(signal.Signals[base]) + (int(offset) if plus else 0)
    except (KeyError, ValueError):
        raise InvalidArgument(f"unknown signal {text!r}") from None


def delete(options: argparse.Namespace) -> None:
    """Remove a container."""
    _warn(delete_container(Container(options.root, options.id), force=options.force))


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"naru-runtime: warning: {warning}", file=sys.stderr)


def exec(options: argparse.Namespace) -> int | None:
    """Run another process; in the foreground wait for it."""
    container = Container(options.root, options.id)
    record = container.record()
    status = container.status(record)
    if status == "stopped":
        raise Conflict("cannot exec in a stopped container")
    if status == "paused" and not options.ignore_paused:
        raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
    spec = container.spec()
    process = _exec_process(options, spec)
    if process.terminal and options.detach and not options.console_socket:
        raise InvalidArgument("cannot allocate a terminal for a detached process without a console socket")
    executed = exec_process(
        process,
        target_pid=record.pid,
        spec=spec,
        cgroup=container.cgroup(),
        stdio=Stdio(0, 1, 2),
        preserve_fds=options.preserve_fds,
    )
    console = executed.console
    if console is not None and options.console_socket:
        foreground.send_console(options.console_socket, console)
        console = None
    if options.pid_file:
        write_atomically(options.pid_file, str(executed.pid).encode(), mode=0o644, durable=False)
    return None if options.detach else foreground.attend(executed.pid, executed.pidfd, console)


def _exec_process(options: argparse.Namespace, spec: Spec) -> Process:
    """From --process, or the container's own process with what the options say."""
    if options.process:
        with open(options.process, "rb") as file:
            return decode_process(file.read())
    if not options.command or spec.process is None:
        raise InvalidArgument("exec: no command")
    process = structs.replace(spec.process, args=options.command, terminal=options.tty, console_size=None)
    process.env = [*process.env, *options.env]
    if options.cwd:
        process.cwd = options.cwd
    if options.user:
        uid, _colon, gid = options.user.partition(":")
        process.user = User(uid=int(uid), gid=int(gid or 0))
    if options.additional_gids:
        process.user = structs.replace(process.user, additional_gids=options.additional_gids)
    if options.apparmor:
        process.apparmor_profile = options.apparmor
    if options.process_label:
        process.selinux_label = options.process_label
    if options.cap:
        sets = process.capabilities or Capabilities()
        process.capabilities = Capabilities(
            **{field: [*getattr(sets, field), *options.cap] for field in ("bounding", "effective", "permitted")},
            inheritable=sets.inheritable,
            ambient=sets.ambient,
        )
    process.no_new_privileges = process.no_new_privileges or options.no_new_privs
    return process


def list(options: argparse.Namespace) -> None:
    """Print the containers below the root."""
    found = [_describe(container) for container in containers(options.root)]
    if options.quiet:
        print(*(entry["id"] for entry in found), sep="\n")
    elif options.format == "json":
        print(json.encode(found).decode())
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        rows += [(e["id"], str(e["pid"]), e["status"], e["bundle"], e["created"], e["owner"]) for e in found]
        _print_table(rows)


def ps(options: argparse.Namespace) -> None:
    """Print the processes in the container's cgroup, as this host numbers them."""
    pids = Container(options.root, options.id).cgroup().processes()
    if options.format == "json":
        print(json.encode(pids).decode())
        return
    rows = [("PID", "COMMAND")]
    for pid in pids:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                rows.append((str(pid), file.read().replace(b"\0", b" ").decode(errors="replace").strip()))
        except (FileNotFoundError, ProcessLookupError):
            continue
    _print_table(rows)


def _print_table(rows: Any) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def pause(options: argparse.Namespace) -> None:
    """Freeze the container."""
    container = Container(options.root, options.id)
    with container.locked():
        status = container.status(container.record())
        if status not in ("running", "created"):
            raise Conflict(f"container not running or created: {status}")
        container.cgroup().freeze()


def resume(options: argparse.Namespace) -> None:
    """Thaw the container."""
    container = Container(options.root, options.id)
    with container.locked():
        status = container.status(container.record())
        if status != "paused":
            raise Conflict("container not paused")
        container.cgroup().thaw()


def events(options: argparse.Namespace) -> None:
    """Print a JSON object a line: usage at every interval, and each time the kernel kills for want of memory."""
    container = Container(options.root, options.id)
    record = container.record()
    if container.status(record) == "stopped":
        raise Conflict(f"container with id {options.id} is not running")
    cgroup = container.cgroup()
    if options.stats:
        _print_event("stats", options.id, to_builtins(cgroup.stats()))
        return
    interval_s = _seconds(options.interval)
    pidfd, oom = os.pidfd_open(record.pid), cgroup.oom_fd()
    killed = cgroup.oom_kills()
    due = time.monotonic() + interval_s
    while True:
        ready = select.select([pidfd, oom], [], [], max(0.0, due - time.monotonic()))[0]
        if oom in ready:
            os.read(oom, 4096)
            if cgroup.oom_kills() > killed:
                killed = cgroup.oom_kills()
                _print_event("oom", options.id, None)
        if pidfd in ready:
            return
        if time.monotonic() >= due:
            _print_event("stats", options.id, to_builtins(cgroup.stats()))
            due += interval_s


def _print_event(kind: str, container_id: str, data: dict[str, Any] | None) -> None:
    event = {"type": kind, "id": container_id} | ({"data": data} if data is not None else {})
    print(json.encode(event).decode(), flush=True)


def _seconds(text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0}
    for unit, factor in units.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            return max(0.01, float(number) * factor)
    raise InvalidArgument(f"interval {text!r}: not a duration such as 5s")


def update(options: argparse.Namespace) -> None:
    """Change limits."""
    container = Container(options.root, options.id)
    if options.resources:
        data = sys.stdin.buffer.read() if options.resources == "-" else _read(options.resources)
        resources = json.decode(data, type=Resources)
    else:
        resources = Resources(
            memory=Memory(limit=options.memory, reservation=options.memory_reservation, swap=options.memory_swap),
            cpu=CPU(
                shares=options.cpu_share,
                period=options.cpu_period,
                quota=options.cpu_quota,
                burst=options.cpu_burst,
                idle=options.cpu_idle,
                cpus=options.cpuset_cpus or "",
                mems=options.cpuset_mems or "",
            ),
            block_io=BlockIO(weight=options.blkio_weight) if options.blkio_weight else None,
            pids=Pids(limit=options.pids_limit) if options.pids_limit is not None else None,
        )
    with container.locked():
        container.cgroup().update(resources)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def spec(options: argparse.Namespace) -> None:
    """Write config.json."""
    path = os.path.join(options.bundle, "config.json")
    if os.path.exists(path):
        raise Conflict(f"file {path} exists. Remove it first")
    with open(path, "wb") as file:
        file.write(json.format(encode(default_spec()), indent=4) + b"\n")


def features(options: argparse.Namespace) -> None:
    """Print the features object."""
    from naru.runtime.features import features as found

    print(json.format(json.encode(found()), indent=2).decode())
