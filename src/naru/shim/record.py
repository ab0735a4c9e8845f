"""The files by which a shim is found again, alive or dead; `protocol` draws the directory."""

from __future__ import annotations

import os

import msgspec

from naru.persist.files import write_atomically
from naru.shim.protocol import BIRTH_FILE, EXIT_FILE, Birth, ExitRecord

_birth_decoder = msgspec.json.Decoder(Birth)
_exit_decoder = msgspec.json.Decoder(ExitRecord)


def write(directory: str, record: Birth | ExitRecord) -> None:
    """Put the record in place, whole. Not synced: a run directory does not outlive the kernel."""
    name = BIRTH_FILE if isinstance(record, Birth) else EXIT_FILE
    write_atomically(os.path.join(directory, name), msgspec.json.encode(record), durable=False)


def read_birth(directory: str) -> Birth | None:
    """Return who serves, or served, this container; None if no shim came that far."""
    data = _read(os.path.join(directory, BIRTH_FILE))
    return None if data is None else _birth_decoder.decode(data)


def read_exit(directory: str) -> ExitRecord | None:
    """Return how the container ended; None if it has not, or nobody was left to write it down."""
    data = _read(os.path.join(directory, EXIT_FILE))
    return None if data is None else _exit_decoder.decode(data)


def remove(directory: str) -> None:
    """Remove a shim's directory with what it holds, which is files; nothing if it is gone."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.path for entry in entries]
        for name in names:
            os.unlink(name)
        os.rmdir(directory)
    except FileNotFoundError:
        pass


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def start_ticks(pid: int) -> int:
    """Return when process `pid` began, in clock ticks since boot: with the pid, a name that is never reused.

    ProcessLookupError if there is no such process. proc_pid_stat(5), field 22
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid}") from None


def is_alive(pid: int, ticks: int) -> bool:
    """Is the process that had `pid` and began at `ticks` still there, and not just a zombie?"""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[19]) == ticks and fields[0] not in (b"Z", b"X")
