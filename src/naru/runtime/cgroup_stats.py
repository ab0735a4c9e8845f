"""What a container has used, in the same types for cgroup versions 1 and 2.

A value the kernel does not give is None, or an empty tuple; a limit of None means unlimited.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field


class CpuStats(Struct, frozen=True):
    """`percpu_ns` exists only in version 1."""

    usage_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    percpu_ns: tuple[int, ...] | None = None
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0


class MemoryStats(Struct, frozen=True):
    """`stat` is memory.stat with the kernel's own keys, which differ between the versions.

    `usage_bytes` counts the page cache. `failures` is how often the limit was hit.
    """

    usage_bytes: int = 0
    max_usage_bytes: int | None = None
    limit_bytes: int | None = None
    swap_usage_bytes: int | None = None
    swap_limit_bytes: int | None = None
    failures: int = 0
    stat: Mapping[str, int] = field(default_factory=dict)


class PidsStats(Struct, frozen=True):
    current: int = 0
    limit: int | None = None


class IoEntry(Struct, frozen=True):
    """`operation` is the kernel's word: Read, Write, Sync, … in version 1; read, write, discard in version 2."""

    major: int
    minor: int
    operation: str
    value: int


class IoStats(Struct, frozen=True):
    """Named as in the Engine API's blkio_stats; all count descendants. Version 2 has only the first two."""

    service_bytes: tuple[IoEntry, ...] = ()
    serviced: tuple[IoEntry, ...] = ()
    queued: tuple[IoEntry, ...] = ()
    service_time: tuple[IoEntry, ...] = ()
    wait_time: tuple[IoEntry, ...] = ()
    merged: tuple[IoEntry, ...] = ()
    time: tuple[IoEntry, ...] = ()
    sectors: tuple[IoEntry, ...] = ()


class HugetlbStats(Struct, frozen=True):
    usage_bytes: int = 0
    max_usage_bytes: int | None = None
    failures: int = 0


class PressureStats(Struct, frozen=True):
    """Time some, or all, tasks waited for a resource, as percentages over windows and microseconds in all."""

    some: Mapping[str, float]
    full: Mapping[str, float]


class CgroupStats(Struct, frozen=True):
    """`hugetlb` is by page size ("2MB"); `pressure` by resource ("cpu", "memory", "io"), where the kernel has it."""

    cpu: CpuStats = CpuStats()
    memory: MemoryStats = field(default_factory=MemoryStats)
    pids: PidsStats = PidsStats()
    io: IoStats = IoStats()
    hugetlb: Mapping[str, HugetlbStats] = field(default_factory=dict)
    rdma: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pressure: Mapping[str, PressureStats] = field(default_factory=dict)


class Support(Struct, frozen=True):
    """What this host can limit; the Engine API's `info` says it, and the engine drops a wish that is not met."""

    version: int
    controllers: tuple[str, ...]
    memory_limit: bool = False
    swap_limit: bool = False
    memory_reservation: bool = False
    memory_swappiness: bool = False
    kernel_memory_tcp: bool = False
    oom_kill_disable: bool = False
    cpu_shares: bool = False
    cpu_quota: bool = False
    cpu_realtime: bool = False
    cpuset: bool = False
    pids_limit: bool = False
    io_weight: bool = False
    io_weight_device: bool = False
    io_throttle: bool = False
    hugetlb: bool = False


class CgroupMount(Struct, frozen=True):
    """One mount of what a container sees below /sys/fs/cgroup; `destination` is relative to it, "" is itself.

    Without a cgroup namespace `source` is a directory of the host to bind; with one, `source` is empty and a new
    mount of `type` with `data` shows the namespace's own part.
    """

    destination: str
    type: str
    source: str = ""
    data: str = ""


class CgroupView(Struct, frozen=True):
    """A container's /sys/fs/cgroup: a tmpfs first if `tmpfs`, then `mounts` in order, then symlinks name -> target."""

    tmpfs: bool
    mounts: tuple[CgroupMount, ...]
    links: tuple[tuple[str, str], ...] = ()
