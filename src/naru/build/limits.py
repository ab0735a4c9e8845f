"""What POST /build's limits mean to the runtime. Pure. Engine API, ImageBuild."""

from __future__ import annotations

from naru.api.build import BuildOptions
from naru.oci.runtime import CPU, Memory, Resources, Rlimit


def step_resources(options: BuildOptions) -> Resources | None:
    """Return the cgroup limits of every RUN, or None for none."""
    memory = Memory(limit=options.memory or None, swap=options.memory_swap or None)
    cpu = CPU(
        shares=options.cpu_shares or None,
        quota=options.cpu_quota or None,
        period=options.cpu_period or None,
        cpus=options.cpuset_cpus,
        mems=options.cpuset_mems,
    )
    if memory == Memory() and cpu == CPU():
        return None
    return Resources(memory=memory if memory != Memory() else None, cpu=cpu if cpu != CPU() else None)


def step_rlimits(options: BuildOptions) -> list[Rlimit]:
    """Return the rlimits of every RUN."""
    return [Rlimit(f"RLIMIT_{limit.name.upper()}", hard=limit.hard, soft=limit.soft) for limit in options.ulimits]
