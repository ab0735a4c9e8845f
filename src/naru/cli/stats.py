"""`naru stats`: what containers use, live."""

from __future__ import annotations

import sys
import threading
import time

from naru.cli import units
from naru.cli.command import Call, Command
from naru.cli.flags import BOOL, Flag
from naru.cli.ps import FORMAT
from naru.cli.table import print_rows, short_id
from naru.client.connection import Client, quoted
from naru.errors import NaruError
from naru.template.values import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADERS = {
    "ID": "CONTAINER ID",
    "Container": "CONTAINER",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_DEFAULT = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"]
_REFRESH_S = 0.5
_CLEAR = "\033[2J\033[H"


class StatsRow(Row):
    """One container's figures."""

    kind = "*container.statsContext"


class _Watched:
    """The newest figures of one container, kept by a thread of its own: each stream blocks its reader."""

    def __init__(self, client: Client, name: str, *, is_once: bool) -> None:
        self.name = name
        self.newest: dict[str, Any] | None = None
        self.error: NaruError | None = None
        self.is_over = False
        self._path = f"/containers/{quoted(name)}/stats"
        self._client = client
        self._is_once = is_once
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for figures in self._client.stream("GET", self._path, {"stream": "0" if self._is_once else "1"}):
                self.newest = figures
        except NaruError as error:
            self.error = error
        self.is_over = True


def run(call: Call) -> int:
    """Show the figures of the named containers, or all that run, until interrupted."""
    flags = call.flags
    is_once = flags.on("no-stream")
    form = flags.text("format") or call.config.text("statsFormat")
    watched = {name: _watch(call, name, is_once=is_once) for name in _names(call)}
    if is_once:
        for one in watched.values():
            one.thread.join()
    else:
        _wait_for_first(list(watched.values()))
    while True:
        for one in watched.values():
            if one.error is not None and call.arguments:
                raise one.error
        rows = [_row(one, is_whole=flags.on("no-trunc")) for one in watched.values() if not _is_gone(one, call)]
        if not is_once and sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        print_rows(rows, _HEADERS, _DEFAULT, form)
        sys.stdout.flush()
        if is_once or (call.arguments and all(one.is_over for one in watched.values())):
            return 0
        time.sleep(_REFRESH_S)
        for name in _names(call):
            if name not in watched:
                watched[name] = _watch(call, name, is_once=False)


def _names(call: Call) -> list[str]:
    if call.arguments:
        return call.arguments
    return [
        short_id(container["Id"]) for container in call.client.get("/containers/json", {"all": call.flags.on("all")})
    ]


def _watch(call: Call, name: str, *, is_once: bool) -> _Watched:
    return _Watched(call.connect(), name, is_once=is_once)


def _wait_for_first(watched: list[_Watched]) -> None:
    deadline = time.monotonic() + 2.5  # the daemon sends figures each second
    while time.monotonic() < deadline and any(one.newest is None and not one.is_over for one in watched):
        time.sleep(0.05)


def _is_gone(one: _Watched, call: Call) -> bool:
    return one.is_over and not call.arguments and not call.flags.on("no-stream")


def _row(one: _Watched, *, is_whole: bool) -> StatsRow:
    figures = one.newest
    if figures is None or not figures.get("id"):
        blank = dict.fromkeys(_DEFAULT, "--")
        return StatsRow(
            {**blank, "Container": one.name, "ID": one.name if is_whole else short_id(one.name),
             "MemUsage": "-- / --", "NetIO": "--", "BlockIO": "--"}
        )  # fmt: skip
    memory = figures.get("memory_stats") or {}
    used, limit = memory_used(memory), memory.get("limit") or 0
    received, sent = _network(figures)
    read, written = _block(figures)
    return StatsRow(
        ID=figures["id"] if is_whole else short_id(figures["id"]),
        Container=one.name,
        Name=str(figures.get("name", "")).removeprefix("/"),
        CPUPerc=f"{cpu_percent(figures):.2f}%",
        MemUsage=f"{units.human_binary_size(used)} / {units.human_binary_size(limit)}",
        MemPerc=f"{used / limit * 100 if limit else 0:.2f}%",
        NetIO=f"{units.human_size(received, 3)} / {units.human_size(sent, 3)}",
        BlockIO=f"{units.human_size(read, 3)} / {units.human_size(written, 3)}",
        PIDs=str((figures.get("pids_stats") or {}).get("current", 0)),
    )


def cpu_percent(figures: dict[str, Any]) -> float:
    """Return the CPU time used between the two samples, one whole CPU being 100."""
    now, before = figures["cpu_stats"], figures.get("precpu_stats") or {}
    used = now["cpu_usage"]["total_usage"] - (before.get("cpu_usage") or {}).get("total_usage", 0)
    system = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    count = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or ()) or 1
    return used / system * count * 100 if used > 0 and system > 0 else 0.0


def memory_used(memory: dict[str, Any]) -> int:
    """Return the memory in use without what the page cache would give back."""
    usage, parts = memory.get("usage") or 0, memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):
        if 0 < parts.get(name, 0) < usage:
            return int(usage - parts[name])
    return int(usage)


def _network(figures: dict[str, Any]) -> tuple[int, int]:
    cards = (figures.get("networks") or {}).values()
    return sum(card["rx_bytes"] for card in cards), sum(card["tx_bytes"] for card in cards)


def _block(figures: dict[str, Any]) -> tuple[int, int]:
    entries = (figures.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    totals = {"r": 0, "w": 0}
    for entry in entries:
        letter = entry["op"][:1].lower()
        if letter in totals:
            totals[letter] += entry["value"]
    return totals["r"], totals["w"]


COMMANDS = (
    Command(
        "container stats",
        "[OPTIONS] [CONTAINER...]",
        "Show what containers use, live; all that run if none is named.",
        run,
        (
            Flag("all", "a", BOOL, "Those that do not run too"),
            FORMAT,
            Flag("no-stream", "", BOOL, "Only once"),
            Flag("no-trunc", "", BOOL, "Do not shorten anything"),
        ),
        count=(0, None),
    ),
)
