"""A container's resource use in the Engine API's shape, from its cgroup and its network namespace."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from naru.api import stats as wire
from naru.engine.clock import rfc3339
from naru.engine.container import Container
from naru.runtime.cgroup_stats import CgroupStats, IoEntry

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def container_stats(container: Container, used: CgroupStats, time_ns: int) -> wire.ContainerStats:
    """Return one sample taken at `time_ns`."""
    memory, cpu, io = used.memory, used.cpu, used.io
    host_memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return wire.ContainerStats(
        name=f"/{container.name}",
        id=container.id,
        read=rfc3339(datetime.fromtimestamp(time_ns / 1e9, UTC)),
        pids_stats=wire.PidsStats(current=used.pids.current, limit=used.pids.limit or 0),
        blkio_stats=wire.BlkioStats(
            io_service_bytes_recursive=_entries(io.service_bytes),
            io_serviced_recursive=_entries(io.serviced),
            io_queue_recursive=_entries(io.queued),
            io_service_time_recursive=_entries(io.service_time),
            io_wait_time_recursive=_entries(io.wait_time),
            io_merged_recursive=_entries(io.merged),
            io_time_recursive=_entries(io.time),
            sectors_recursive=_entries(io.sectors),
        ),
        cpu_stats=wire.CPUStats(
            cpu_usage=wire.CPUUsage(
                total_usage=cpu.usage_ns,
                percpu_usage=list(cpu.percpu_ns) if cpu.percpu_ns else None,
                usage_in_kernelmode=cpu.system_ns,
                usage_in_usermode=cpu.user_ns,
            ),
            system_cpu_usage=_system_cpu_ns(),
            online_cpus=os.cpu_count() or 1,
            throttling_data=wire.ThrottlingData(
                periods=cpu.periods, throttled_periods=cpu.throttled_periods, throttled_time=cpu.throttled_ns
            ),
        ),
        memory_stats=wire.MemoryStats(
            usage=memory.usage_bytes,
            max_usage=memory.max_usage_bytes or 0,
            stats=dict(memory.stat),
            failcnt=memory.failures,
            limit=min(memory.limit_bytes or host_memory, host_memory),
        ),
        networks=_networks(container.pid) if container.host_config.network_mode != "host" else None,
    )


def _entries(entries: Iterable[IoEntry]) -> list[wire.BlkioEntry] | None:
    found = [wire.BlkioEntry(major=e.major, minor=e.minor, op=e.operation, value=e.value) for e in entries]
    return found or None


def _system_cpu_ns() -> int:
    """The time all processors have spent on anything, idle included. proc(5), /proc/stat"""
    with open("/proc/stat") as file:
        fields = file.readline().split()[1:9]
    return sum(map(int, fields)) * _TICK_NS


def _networks(pid: int) -> dict[str, wire.NetworkStats] | None:
    """Counters by interface of the process's network namespace, lo aside. proc(5), /proc/pid/net/dev"""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = {}
    for line in lines:
        name, _, counters = line.partition(":")
        values = [int(value) for value in counters.split()]
        if name.strip() != "lo":
            found[name.strip()] = wire.NetworkStats(
                rx_bytes=values[0],
                rx_packets=values[1],
                rx_errors=values[2],
                rx_dropped=values[3],
                tx_bytes=values[8],
                tx_packets=values[9],
                tx_errors=values[10],
                tx_dropped=values[11],
            )
    return found
