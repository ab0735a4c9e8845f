"""A table of processes for `docker top`, read from the host's /proc. proc(5), ps(1)"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from naru.errors import InvalidArgument

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    ppid: int
    uid: int
    state: str
    tty: str
    cpu_s: float
    started: float
    vsz_kib: int
    rss_kib: int
    threads: int
    command: str
    name: str


_COLUMNS: dict[str, tuple[str, Callable[[_Process], str]]] = {
    "user": ("USER", lambda p: _user(p.uid)),
    "uid": ("UID", lambda p: str(p.uid)),
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: str(p.ppid)),
    "c": ("C", lambda p: str(int(_cpu_percent(p)))),
    "pcpu": ("%CPU", lambda p: f"{_cpu_percent(p):.1f}"),
    "%cpu": ("%CPU", lambda p: f"{_cpu_percent(p):.1f}"),
    "pmem": ("%MEM", lambda p: f"{_memory_percent(p):.1f}"),
    "%mem": ("%MEM", lambda p: f"{_memory_percent(p):.1f}"),
    "vsz": ("VSZ", lambda p: str(p.vsz_kib)),
    "rss": ("RSS", lambda p: str(p.rss_kib)),
    "tty": ("TTY", lambda p: p.tty),
    "stat": ("STAT", lambda p: p.state),
    "s": ("S", lambda p: p.state),
    "start": ("START", lambda p: time.strftime("%H:%M", time.localtime(p.started))),
    "stime": ("STIME", lambda p: time.strftime("%H:%M", time.localtime(p.started))),
    "time": ("TIME", lambda p: time.strftime("%H:%M:%S", time.gmtime(p.cpu_s))),
    "nlwp": ("NLWP", lambda p: str(p.threads)),
    "comm": ("COMMAND", lambda p: p.name),
    "cmd": ("CMD", lambda p: p.command),
    "args": ("COMMAND", lambda p: p.command),
    "command": ("COMMAND", lambda p: p.command),
}
_FULL = ["user", "pid", "ppid", "c", "stime", "tty", "time", "cmd"]
_BSD = ["user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "command"]


def table(pids: Sequence[int], ps_args: str) -> tuple[list[str], list[list[str]]]:
    """Return column titles and a row for each living process of `pids`.

    `ps_args` is one of ps's common forms: `-ef`, `aux`, `-o pid,cmd`. InvalidArgument: another one.
    """
    columns = _columns(ps_args)
    titles = [_COLUMNS[column][0] for column in columns]
    if columns == _FULL:
        titles[0] = "UID"
    processes = [process for process in map(_read, pids) if process is not None]
    return titles, [[_COLUMNS[column][1](process) for column in columns] for process in processes]


def _columns(ps_args: str) -> list[str]:
    words = ps_args.split()
    if words in (["-ef"], ["ef"], ["-f"]):
        return _FULL
    if words in (["aux"], ["-aux"], ["u"], ["axu"]):
        return _BSD
    if words and words[0].lstrip("-") in ("o", "eo", "axo", "ao") and len(words) > 1:
        columns = [column.partition("=")[0] for column in ",".join(words[1:]).split(",")]
    elif words and words[0].startswith("-o"):
        columns = words[0][2:].split(",")
    else:
        raise InvalidArgument(f"ps: {ps_args}: only -ef, aux and -o COLUMN,… are understood")
    for column in columns:
        if column not in _COLUMNS:
            raise InvalidArgument(f'ps: error: unknown user-defined format specifier "{column}"')
    if "pid" not in columns:
        raise InvalidArgument("Couldn't find PID field in ps output")
    return columns


def _read(pid: int) -> _Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    uid = next(int(line.split()[2]) for line in status.splitlines() if line.startswith("Uid:"))
    command = b" ".join(words).decode(errors="replace").strip() or f"[{name}]"
    return _Process(
        pid=pid,
        ppid=int(fields[1]),
        uid=uid,
        state=fields[0],
        tty=_tty(int(fields[4])),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
        started=time.time() - _uptime() + int(fields[19]) / _TICKS,
        vsz_kib=int(fields[20]) // 1024,
        rss_kib=int(fields[21]) * _PAGE // 1024,
        threads=int(fields[17]),
        command=command,
        name=name,
    )


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def _tty(number: int) -> str:
    major, minor = os.major(number), os.minor(number)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    return "?" if number == 0 else f"{major}:{minor}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _cpu_percent(process: _Process) -> float:
    return 100 * process.cpu_s / max(time.time() - process.started, 0.01)


def _memory_percent(process: _Process) -> float:
    return 100 * process.rss_kib * 1024 / (os.sysconf("SC_PHYS_PAGES") * _PAGE)
