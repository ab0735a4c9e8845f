"""A container's resource use. Engine API, ContainerStats. Times in nanoseconds, sizes in bytes."""

from __future__ import annotations

from naru.api.wire import LowerWire, always, made


class CPUUsage(LowerWire):
    total_usage: int = always(0)
    percpu_usage: list[int] | None = None
    usage_in_kernelmode: int = always(0)
    usage_in_usermode: int = always(0)


class ThrottlingData(LowerWire):
    periods: int = always(0)
    throttled_periods: int = always(0)
    throttled_time: int = always(0)


class CPUStats(LowerWire):
    cpu_usage: CPUUsage = made(CPUUsage)
    system_cpu_usage: int = 0
    online_cpus: int = 0
    throttling_data: ThrottlingData = made(ThrottlingData)


class MemoryStats(LowerWire):
    usage: int = 0
    max_usage: int = 0
    stats: dict[str, int] | None = None
    failcnt: int = 0
    limit: int = 0


class BlkioEntry(LowerWire):
    major: int = always(0)
    minor: int = always(0)
    op: str = always("")
    value: int = always(0)


class BlkioStats(LowerWire):
    io_service_bytes_recursive: list[BlkioEntry] | None = always(None)
    io_serviced_recursive: list[BlkioEntry] | None = always(None)
    io_queue_recursive: list[BlkioEntry] | None = always(None)
    io_service_time_recursive: list[BlkioEntry] | None = always(None)
    io_wait_time_recursive: list[BlkioEntry] | None = always(None)
    io_merged_recursive: list[BlkioEntry] | None = always(None)
    io_time_recursive: list[BlkioEntry] | None = always(None)
    sectors_recursive: list[BlkioEntry] | None = always(None)


class PidsStats(LowerWire):
    current: int = 0
    limit: int = 0


class NetworkStats(LowerWire):
    rx_bytes: int = always(0)
    rx_packets: int = always(0)
    rx_errors: int = always(0)
    rx_dropped: int = always(0)
    tx_bytes: int = always(0)
    tx_packets: int = always(0)
    tx_errors: int = always(0)
    tx_dropped: int = always(0)


class StorageStats(LowerWire):
    read_count_normalized: int = 0
    read_size_bytes: int = 0
    write_count_normalized: int = 0
    write_size_bytes: int = 0


class ContainerStats(LowerWire):
    """`precpu_stats` and `preread` are the sample before, so that a client can work out percentages."""

    name: str = always("")
    id: str = always("")
    os_type: str = always("linux")
    read: str = always("0001-01-01T00:00:00Z")
    preread: str = always("0001-01-01T00:00:00Z")
    pids_stats: PidsStats = made(PidsStats)
    blkio_stats: BlkioStats = made(BlkioStats)
    num_procs: int = always(0)
    storage_stats: StorageStats = made(StorageStats)
    cpu_stats: CPUStats = made(CPUStats)
    precpu_stats: CPUStats = made(CPUStats)
    memory_stats: MemoryStats = made(MemoryStats)
    networks: dict[str, NetworkStats] | None = None
