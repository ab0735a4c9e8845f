"""What a container asks of its host's resources, judged against what this host can limit.

As Docker has it, what the kernel cannot limit is taken out of the request with a warning, and what can never be right
is refused. Texts are Docker's. Engine API, Resources.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from naru.api.host import Resources, ThrottleDevice
from naru.errors import InvalidArgument
from naru.runtime.cgroup import supported
from naru.runtime.cgroup_stats import Support

_LEAST_MEMORY = 6 << 20  # below this a container's start fails in strange ways (moby's limit)
_CPUS = re.compile(r"(\d+)(?:-(\d+))?\Z")


@dataclass(frozen=True, slots=True)
class Host:
    """What the machine has: its CPUs and memory nodes as the kernel lists them ("0-3"), and what it can limit."""

    support: Support
    cpu_count: int
    cpus: str
    memory_nodes: str


def check_resources(asked: Resources, host: Host, *, is_update: bool = False) -> list[str]:
    """Return warnings about limits that `host` cannot set, having taken them out of `asked`.

    InvalidArgument: a limit that contradicts another, or is out of its range.
    """
    warnings: list[str] = []
    _check_memory(asked, host.support, warnings, is_update=is_update)
    _check_cpu(asked, host, warnings)
    _check_cpuset(asked, host, warnings)
    _check_block_io(asked, host.support, warnings)
    if asked.pids_limit is not None and asked.pids_limit <= 0:
        asked.pids_limit = 0 if is_update else None  # both mean unlimited; on an update None means "as it is"
    if asked.pids_limit and not host.support.pids_limit:
        warnings.append(_discarded("PIDs limit capabilities", "PIDs limit"))
        asked.pids_limit = None
    return warnings


def _discarded(what: str, name: str) -> str:
    return f"Your kernel does not support {what} or the cgroup is not mounted. {name} discarded."


def _check_memory(asked: Resources, can: Support, warnings: list[str], *, is_update: bool) -> None:
    if asked.memory and asked.memory < _LEAST_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if asked.memory and not can.memory_limit:
        warnings.append(_discarded("memory limit capabilities", "Limitation"))
        asked.memory, asked.memory_swap = 0, -1
    if asked.memory and asked.memory_swap != -1 and not can.swap_limit:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        asked.memory_swap = -1
    if asked.memory and 0 < asked.memory_swap < asked.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if asked.memory_swap > 0 and not asked.memory and not is_update:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if asked.memory_swap < -1:
        raise InvalidArgument(f"invalid memory swap limit {asked.memory_swap}: -1 is unlimited")
    if asked.memory_swappiness == -1:
        asked.memory_swappiness = None
    if asked.memory_swappiness is not None:
        if not 0 <= asked.memory_swappiness <= 100:
            raise InvalidArgument(f"Invalid value: {asked.memory_swappiness}, valid memory swappiness range is 0-100")
        if not can.memory_swappiness:
            warnings.append(_discarded("memory swappiness capabilities", "Memory swappiness"))
            asked.memory_swappiness = None
    if asked.memory_reservation and asked.memory_reservation < _LEAST_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if asked.memory_reservation and not can.memory_reservation:
        warnings.append(_discarded("memory soft limit capabilities", "Limitation"))
        asked.memory_reservation = 0
    if asked.memory and asked.memory < asked.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    _check_kernel_memory(asked, can, warnings)
    if asked.oom_kill_disable and not can.oom_kill_disable:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        asked.oom_kill_disable = None
    if asked.oom_kill_disable and not asked.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )


def _check_kernel_memory(asked: Resources, can: Support, warnings: list[str]) -> None:
    """A limit of kernel memory is something Linux took back in 5.4 (5.16 refuses it); one of TCP buffers it has."""
    if asked.kernel_memory:
        if asked.kernel_memory < _LEAST_MEMORY:
            raise InvalidArgument("Minimum kernel memory limit allowed is 6MB")
        warnings.append(_discarded("kernel memory limit capabilities", "Limitation"))
        asked.kernel_memory = 0
    if asked.kernel_memory_tcp and not can.kernel_memory_tcp:
        warnings.append(_discarded("kernel memory TCP limit capabilities", "Limitation"))
        asked.kernel_memory_tcp = 0


def _check_cpu(asked: Resources, host: Host, warnings: list[str]) -> None:
    can = host.support
    for name, value in (("Period", asked.cpu_period), ("Quota", asked.cpu_quota)):
        if asked.nano_cpus and value > 0:
            raise InvalidArgument(f"Conflicting options: Nano CPUs and CPU {name} cannot both be set")
    if asked.nano_cpus and not can.cpu_quota:
        raise InvalidArgument(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted"
        )
    # The kernel's least quota is 1 ms, which is 0.01 of our period of 100 ms.
    if asked.nano_cpus and not 10_000_000 <= asked.nano_cpus <= host.cpu_count * 1_000_000_000:
        raise InvalidArgument(
            f"Range of CPUs is from 0.01 to {host.cpu_count}.00, as there are only {host.cpu_count} CPUs available"
        )
    if asked.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({asked.cpu_shares}): value must be a positive integer")
    if asked.cpu_shares and not can.cpu_shares:
        warnings.append(_discarded("CPU shares", "Shares"))
        asked.cpu_shares = 0
    if (asked.cpu_period or asked.cpu_quota) and not can.cpu_quota:
        warnings.append("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
        asked.cpu_period = asked.cpu_quota = 0
    if asked.cpu_period and not 1000 <= asked.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < asked.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if (asked.cpu_realtime_period or asked.cpu_realtime_runtime) and not can.cpu_realtime:
        raise InvalidArgument("kernel does not support CPU real-time scheduler")
    if asked.cpu_realtime_period and asked.cpu_realtime_runtime > asked.cpu_realtime_period:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    if asked.cpu_percent:
        warnings.append("linux does not support CPU percent. Percent discarded.")
        asked.cpu_percent = 0
    if asked.cpu_count:
        warnings.append("linux does not support CPU count. Count discarded.")
        asked.cpu_count = 0


def _check_cpuset(asked: Resources, host: Host, warnings: list[str]) -> None:
    if (asked.cpuset_cpus or asked.cpuset_mems) and not host.support.cpuset:
        warnings.append(_discarded("cpuset", "Cpuset"))
        asked.cpuset_cpus = asked.cpuset_mems = ""
    for what, name, text, available in (
        ("CPUs", "cpus", asked.cpuset_cpus, host.cpus),
        ("memory nodes", "mems", asked.cpuset_mems, host.memory_nodes),
    ):
        wanted = parse_cpuset(text)
        if wanted is None:
            raise InvalidArgument(f"Invalid value {text} for cpuset {name}: invalid format: {text}")
        if not wanted <= (parse_cpuset(available) or set()):
            raise InvalidArgument(f"Requested {what} are not available - requested {text}, available: {available}")


def parse_cpuset(text: str) -> set[int] | None:
    """Return `0-2,4` as numbers; None if it is no such list. cpuset(7), List format"""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        numbers = _CPUS.match(part.strip())
        if numbers is None:
            return None
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if last < first or last >= 1 << 16:
            return None
        found.update(range(first, last + 1))
    return found


def _check_block_io(asked: Resources, can: Support, warnings: list[str]) -> None:
    for weight in (asked.blkio_weight, *(entry.weight for entry in asked.blkio_weight_device or [])):
        if weight and not 10 <= weight <= 1000:
            raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if asked.io_maximum_bandwidth or asked.io_maximum_iops:
        raise InvalidArgument("Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps")
    for entries in _throttles(asked):
        if any(entry.rate < 0 for entry in entries):
            raise InvalidArgument("invalid block I/O rate: it must not be negative")
    if asked.blkio_weight and not can.io_weight:
        warnings.append(_discarded("Block I/O weight", "Weight"))
        asked.blkio_weight = 0
    if asked.blkio_weight_device and not can.io_weight_device:
        warnings.append(_discarded("Block I/O weight_device", "Weight-device"))
        asked.blkio_weight_device = None
    if not can.io_throttle:
        for attribute, text, name in (
            ("blkio_device_read_bps", "BPS Block I/O read limit", "Block I/O BPS read limit"),
            ("blkio_device_write_bps", "BPS Block I/O write limit", "Block I/O BPS write limit"),
            ("blkio_device_read_iops", "IOPS Block read limit", "Block I/O IOPS read limit"),
            ("blkio_device_write_iops", "IOPS Block write limit", "Block I/O IOPS write limit"),
        ):
            if getattr(asked, attribute):
                warnings.append(_discarded(text, name))
                setattr(asked, attribute, None)


def _throttles(asked: Resources) -> list[Sequence[ThrottleDevice]]:
    return [
        asked.blkio_device_read_bps or [],
        asked.blkio_device_write_bps or [],
        asked.blkio_device_read_iops or [],
        asked.blkio_device_write_iops or [],
    ]


def this_host() -> Host:
    """Return what the machine that runs this has: CPUs come and go, what the kernel can limit does not."""
    return Host(_supported(), os.cpu_count() or 1, _online("cpu"), _online("node"))


_supported = functools.cache(supported)


def _online(kind: str) -> str:
    """Return the kernel's list of CPUs or memory nodes; a kernel without NUMA has the node 0."""
    try:
        with open(f"/sys/devices/system/{kind}/online", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return "0"
