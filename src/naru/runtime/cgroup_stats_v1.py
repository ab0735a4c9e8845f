"""Reading what a container used from the files of cgroup version 1. kernel documentation, cgroup-v1"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from msgspec.structs import replace

from naru.errors import NotFound
from naru.kernel import cgroup as kernel
from naru.runtime.cgroup_stats import CgroupStats, CpuStats, HugetlbStats, IoEntry, IoStats, MemoryStats, PidsStats
from naru.runtime.cgroup_values import unlimited_as_none

_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_HUGETLB_USAGE = re.compile(r"hugetlb\.(\d+[KMG]B)\.usage_in_bytes")


def collect(path: str, directories: Mapping[str, str], *, beside: CgroupStats) -> CgroupStats:
    """Return what cgroup `path` used; `beside` has what the version 2 hierarchy of a hybrid host adds.

    NotFound: the cgroup is gone.
    """
    try:
        return replace(
            beside,
            cpu=_cpu(directories),
            memory=_memory(directories["memory"]) if "memory" in directories else MemoryStats(),
            pids=_pids(directories["pids"]) if "pids" in directories else PidsStats(),
            io=_io(directories["blkio"]) if "blkio" in directories else IoStats(),
            hugetlb=_hugetlb(directories["hugetlb"]) if "hugetlb" in directories else beside.hugetlb,
        )
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotFound(f"cgroup {path}: {error.strerror}") from error


def _cpu(directories: Mapping[str, str]) -> CpuStats:
    stats = CpuStats()
    if (cpu := directories.get("cpu")) is not None:
        throttling = kernel.flat_keyed(kernel.read(cpu, "cpu.stat"))
        stats = replace(
            stats,
            periods=throttling.get("nr_periods", 0),
            throttled_periods=throttling.get("nr_throttled", 0),
            throttled_ns=throttling.get("throttled_time", 0),
        )
    if (account := directories.get("cpuacct")) is not None:
        ticks = kernel.flat_keyed(kernel.read(account, "cpuacct.stat"))
        stats = replace(
            stats,
            usage_ns=int(kernel.read(account, "cpuacct.usage")),
            user_ns=ticks.get("user", 0) * _NS_PER_TICK,
            system_ns=ticks.get("system", 0) * _NS_PER_TICK,
            percpu_ns=tuple(int(word) for word in kernel.read(account, "cpuacct.usage_percpu").split()),
        )
    return stats


def _memory(directory: str) -> MemoryStats:
    def number(name: str) -> int:
        return int(kernel.read(directory, f"memory.{name}"))

    swap = kernel.has(directory, "memory.memsw.usage_in_bytes")
    usage = number("usage_in_bytes")
    return MemoryStats(
        usage_bytes=usage,
        max_usage_bytes=number("max_usage_in_bytes"),
        limit_bytes=unlimited_as_none(kernel.read(directory, "memory.limit_in_bytes")),
        swap_usage_bytes=max(0, number("memsw.usage_in_bytes") - usage) if swap else None,
        swap_limit_bytes=unlimited_as_none(kernel.read(directory, "memory.memsw.limit_in_bytes")) if swap else None,
        failures=number("failcnt"),
        stat=kernel.flat_keyed(kernel.read(directory, "memory.stat")),
    )


def _pids(directory: str) -> PidsStats:
    limit = unlimited_as_none(kernel.read(directory, "pids.max"))
    return PidsStats(int(kernel.read(directory, "pids.current")), limit)


def _io(directory: str) -> IoStats:
    """The proportional scheduler's numbers where it counts any, else the throttling layer's, which are always there."""

    def entries(name: str) -> tuple[IoEntry, ...]:
        for prefix in ("blkio.", "blkio.bfq."):
            if kernel.has(directory, f"{prefix}{name}") and (found := _entries(directory, f"{prefix}{name}")):
                return found
        throttled = f"blkio.throttle.{name}"
        return _entries(directory, throttled) if kernel.has(directory, throttled) else ()

    return IoStats(
        service_bytes=entries("io_service_bytes_recursive"),
        serviced=entries("io_serviced_recursive"),
        queued=entries("io_queued_recursive"),
        service_time=entries("io_service_time_recursive"),
        wait_time=entries("io_wait_time_recursive"),
        merged=entries("io_merged_recursive"),
        time=entries("time_recursive"),
        sectors=entries("sectors_recursive"),
    )


def _entries(directory: str, name: str) -> tuple[IoEntry, ...]:
    """Parse `8:0 Read 4096` and `8:0 4096`; the last line is a sum over devices, without a device."""
    found = []
    for line in kernel.read(directory, name).splitlines():
        device, *rest = line.split()
        major, colon, minor = device.partition(":")
        if colon and rest:
            operation = rest[0] if len(rest) == 2 else ""
            found.append(IoEntry(int(major), int(minor), operation, int(rest[-1])))
    return tuple(found)


def _hugetlb(directory: str) -> dict[str, HugetlbStats]:
    sizes = [match[1] for name in os.listdir(directory) if (match := _HUGETLB_USAGE.fullmatch(name))]

    def number(size: str, name: str) -> int:
        return int(kernel.read(directory, f"hugetlb.{size}.{name}"))

    return {
        size: HugetlbStats(number(size, "usage_in_bytes"), number(size, "max_usage_in_bytes"), number(size, "failcnt"))
        for size in sizes
    }
