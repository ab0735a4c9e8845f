"""Changing the limits and the restart policy of a container that exists. Engine API, ContainerUpdate.

What is zero or null in the request stays as it is. Texts are Docker's.
"""

from __future__ import annotations

import msgspec

from naru.api.container import ContainerUpdateRequest
from naru.api.host import HostConfig, Resources
from naru.engine.block_io import take_device_limits
from naru.engine.container import Container, Status
from naru.engine.host_config import check_restart_policy
from naru.engine.resources import Host, check_resources
from naru.errors import Conflict, InvalidArgument

# What a container keeps as it was created with: its namespaces, devices and processes are made.
_FIXED = (
    "cgroup_parent",
    "cpu_count",
    "cpu_percent",
    "device_cgroup_rules",
    "device_requests",
    "devices",
    "io_maximum_bandwidth",
    "io_maximum_iops",
    "ulimits",
)


def check_update(request: ContainerUpdateRequest, host: Host) -> list[str]:
    """Return warnings about limits that `host` cannot set, taken out of `request`. InvalidArgument: what cannot be."""
    check_restart_policy(request.restart_policy, auto_remove=False)
    return check_resources(request, host, is_update=True)


def updated(container: Container, request: ContainerUpdateRequest) -> HostConfig:
    """Return the container's host config after a `request` that was checked.

    InvalidArgument: a limit that a container keeps, or that contradicts another. Conflict: with one set before.
    """
    if container.status in (Status.REMOVING, Status.DEAD):
        raise Conflict('container is marked for removal and cannot be "update"')
    now = container.host_config
    _check_fixed(now, request)
    _check_conflicts(now, request)
    changed = msgspec.structs.replace(now)
    for name in Resources.__struct_fields__:
        value = getattr(request, name)
        if name not in _FIXED and (value or (name in ("pids_limit", "memory_swappiness") and value is not None)):
            setattr(changed, name, value)
    take_device_limits(changed, request)
    if changed.memory_reservation > changed.memory > 0:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if 0 < changed.memory_swap < changed.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if request.restart_policy.name:
        policy = request.restart_policy
        if now.auto_remove and policy.name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changed.restart_policy = policy
    return changed


def _check_fixed(now: HostConfig, request: ContainerUpdateRequest) -> None:
    for name in _FIXED:
        value = getattr(request, name)
        if value and value != getattr(now, name):
            raise InvalidArgument(f"{name.replace('_', ' ')} of a container cannot be updated: create another one")


def _check_conflicts(now: HostConfig, request: ContainerUpdateRequest) -> None:
    for name, asked, has in (
        ("Period", request.cpu_period, now.cpu_period),
        ("Quota", request.cpu_quota, now.cpu_quota),
    ):
        if request.nano_cpus and has:
            raise Conflict(f"Conflicting options: Nano CPUs cannot be updated as CPU {name} has already been set")
        if asked and now.nano_cpus:
            raise Conflict(f"Conflicting options: CPU {name} cannot be updated as NanoCPUs has already been set")
    if request.memory > now.memory_swap > 0 and not request.memory_swap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
