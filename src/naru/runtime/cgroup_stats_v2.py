"""Reading what a container used from the files of cgroup version 2. kernel documentation, cgroup-v2"""

from __future__ import annotations

import os
import re

from naru.errors import NotFound
from naru.kernel import cgroup as kernel
from naru.runtime.cgroup_stats import (
    CgroupStats,
    CpuStats,
    HugetlbStats,
    IoEntry,
    IoStats,
    MemoryStats,
    PidsStats,
    PressureStats,
)
from naru.runtime.cgroup_values import unlimited_as_none

_NS_PER_US = 1000
_HUGETLB_USAGE = re.compile(r"hugetlb\.(\d+[KMG]B)\.current")
_BYTES = {"rbytes": "read", "wbytes": "write", "dbytes": "discard"}
_OPERATIONS = {"rios": "read", "wios": "write", "dios": "discard"}


def collect(path: str, directory: str) -> CgroupStats:
    """Return what cgroup `path` used. Controllers that are not switched on give nothing. NotFound: it is gone."""
    try:
        return CgroupStats(
            cpu=_cpu(directory),
            memory=_memory(directory),
            pids=_pids(directory),
            io=_io(directory),
            hugetlb=_hugetlb(directory),
            rdma=kernel.nested_keyed(_optional(directory, "rdma.current")),
            pressure=_pressure(directory),
        )
    except FileNotFoundError as error:
        raise NotFound(f"cgroup {path}: {error.strerror}") from error


def _optional(directory: str, name: str, default: str = "") -> str:
    """A controller's file, or `default` if the controller is not switched on here."""
    try:
        return kernel.read(directory, name)
    except FileNotFoundError:
        return default


def _cpu(directory: str) -> CpuStats:
    """cpu.stat is there without the controller too: its absence means that the cgroup is."""
    stat = kernel.flat_keyed(kernel.read(directory, "cpu.stat"))
    return CpuStats(
        usage_ns=stat.get("usage_usec", 0) * _NS_PER_US,
        user_ns=stat.get("user_usec", 0) * _NS_PER_US,
        system_ns=stat.get("system_usec", 0) * _NS_PER_US,
        periods=stat.get("nr_periods", 0),
        throttled_periods=stat.get("nr_throttled", 0),
        throttled_ns=stat.get("throttled_usec", 0) * _NS_PER_US,
    )


def _memory(directory: str) -> MemoryStats:
    if not kernel.has(directory, "memory.current"):
        return MemoryStats()
    peak = _optional(directory, "memory.peak")  # since Linux 5.19
    swap = _optional(directory, "memory.swap.current")
    return MemoryStats(
        usage_bytes=int(kernel.read(directory, "memory.current")),
        max_usage_bytes=int(peak) if peak else None,
        limit_bytes=unlimited_as_none(kernel.read(directory, "memory.max")),
        swap_usage_bytes=int(swap) if swap else None,
        swap_limit_bytes=unlimited_as_none(_optional(directory, "memory.swap.max", "max")),
        failures=kernel.flat_keyed(kernel.read(directory, "memory.events")).get("max", 0),
        stat=kernel.flat_keyed(kernel.read(directory, "memory.stat")),
    )


def _pids(directory: str) -> PidsStats:
    current = _optional(directory, "pids.current")
    return PidsStats(int(current or 0), unlimited_as_none(_optional(directory, "pids.max", "max")))


def _io(directory: str) -> IoStats:
    devices = kernel.nested_keyed(_optional(directory, "io.stat"))

    def entries(operations: dict[str, str]) -> tuple[IoEntry, ...]:
        return tuple(
            IoEntry(int(major), int(minor), operation, int(values[key]))
            for device, values in devices.items()
            for major, _, minor in [device.partition(":")]
            for key, operation in operations.items()
            if key in values
        )

    return IoStats(service_bytes=entries(_BYTES), serviced=entries(_OPERATIONS))


def _hugetlb(directory: str) -> dict[str, HugetlbStats]:
    sizes = [match[1] for name in os.listdir(directory) if (match := _HUGETLB_USAGE.fullmatch(name))]
    return {
        size: HugetlbStats(
            usage_bytes=int(kernel.read(directory, f"hugetlb.{size}.current")),
            failures=kernel.flat_keyed(kernel.read(directory, f"hugetlb.{size}.events")).get("max", 0),
        )
        for size in sizes
    }


def _pressure(directory: str) -> dict[str, PressureStats]:
    """EOPNOTSUPP: the kernel was started without pressure accounting."""
    found = {}
    for resource in ("cpu", "memory", "io"):
        try:
            text = _optional(directory, f"{resource}.pressure")
        except OSError:
            continue
        lines = kernel.nested_keyed(text)
        if lines:
            some, full = (
                {key: float(value) for key, value in lines.get(kind, {}).items()} for kind in ("some", "full")
            )
            found[resource] = PressureStats(some, full)
    return found
