"""A container's limits as the runtime takes them: cgroup settings, POSIX limits, device rules. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from naru.api.host import HostConfig, ThrottleDevice
from naru.errors import InvalidArgument
from naru.oci import runtime as oci

_ULIMITS = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
_DEVICE_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})\Z")


def rlimits(host: HostConfig) -> list[oci.Rlimit]:
    """Return `--ulimit` as POSIX limits. InvalidArgument: an unknown name, or soft above hard."""
    found = []
    for limit in host.ulimits or []:
        if limit.name not in _ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {limit.name}")
        hard, soft = (value if value >= 0 else (1 << 64) - 1 for value in (limit.hard, limit.soft))
        found.append(oci.Rlimit(type=f"RLIMIT_{limit.name.upper()}", hard=hard, soft=soft))
    return found


def limits(host: HostConfig, device: Callable[[str], oci.Device]) -> oci.Resources:
    """Return the cgroup limits that `host` asks for; what it does not mention stays unset."""
    quota, period = host.cpu_quota or None, host.cpu_period or None
    if host.nano_cpus:
        period = 100_000
        quota = host.nano_cpus * period // 1_000_000_000
    swap = host.memory_swap or (2 * host.memory if host.memory else 0)
    memory = oci.Memory(
        limit=host.memory or None,
        reservation=host.memory_reservation or None,
        swap=swap or None,
        kernel_tcp=host.kernel_memory_tcp or None,
        swappiness=host.memory_swappiness,
        disable_oom_killer=host.oom_kill_disable or None,
    )
    cpu = oci.CPU(
        shares=host.cpu_shares or None,
        quota=quota,
        period=period,
        realtime_runtime=host.cpu_realtime_runtime or None,
        realtime_period=host.cpu_realtime_period or None,
        cpus=host.cpuset_cpus,
        mems=host.cpuset_mems,
    )

    def throttles(asked: Sequence[ThrottleDevice] | None) -> list[oci.ThrottleDevice]:
        nodes = [(device(entry.path), entry.rate) for entry in asked or []]
        return [oci.ThrottleDevice(major=node.major, minor=node.minor, rate=rate) for node, rate in nodes]

    weights = [(device(entry.path), entry.weight) for entry in host.blkio_weight_device or []]
    block = oci.BlockIO(
        weight=host.blkio_weight or None,
        weight_device=[oci.WeightDevice(major=node.major, minor=node.minor, weight=value) for node, value in weights],
        throttle_read_bps_device=throttles(host.blkio_device_read_bps),
        throttle_write_bps_device=throttles(host.blkio_device_write_bps),
        throttle_read_iops_device=throttles(host.blkio_device_read_iops),
        throttle_write_iops_device=throttles(host.blkio_device_write_iops),
    )
    pids = oci.Pids(limit=host.pids_limit) if host.pids_limit is not None else None
    return oci.Resources(
        memory=memory if memory != oci.Memory() else None,
        cpu=cpu if cpu != oci.CPU() else None,
        block_io=block if block != oci.BlockIO() else None,
        pids=pids,
    )


def device_rule(rule: str) -> oci.DeviceRule:
    """Return `c 13:* rwm` as a rule. InvalidArgument: not one."""
    parts = _DEVICE_RULE.match(rule)
    if parts is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{rule}'")
    kind, major, minor, access = parts.groups()
    numbers = [None if number == "*" else int(number) for number in (major, minor)]
    return oci.DeviceRule(allow=True, type=kind, major=numbers[0], minor=numbers[1], access=access)
