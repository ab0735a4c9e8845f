"""Per-device limits of block I/O as an update changes them. Pure. Engine API, ContainerUpdate, since 1.55."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from naru.api.host import HostConfig, Resources, ThrottleDevice, WeightDevice

# What a device without a weight has; the kernel's own default on cgroup v1.
DEFAULT_WEIGHT = 500

THROTTLES = ("blkio_device_read_bps", "blkio_device_write_bps", "blkio_device_read_iops", "blkio_device_write_iops")


def take_device_limits(host: HostConfig, asked: Resources) -> None:
    """Give `host` the per-device limits that are asked for: None leaves a kind as it is, [] clears it."""
    for kind in (*THROTTLES, "blkio_weight_device"):
        if getattr(asked, kind) is not None:
            setattr(host, kind, getattr(asked, kind) or None)


def with_lifted_limits(before: HostConfig, after: HostConfig) -> HostConfig:
    """Return `after` with a line for each device that only `before` limits: the kernel forgets a limit when told to."""
    lifted = msgspec.structs.replace(after)
    for kind in THROTTLES:
        gone = _only_in(getattr(before, kind), getattr(after, kind))
        setattr(lifted, kind, [*(getattr(after, kind) or []), *(ThrottleDevice(path=path) for path in gone)] or None)
    gone = _only_in(before.blkio_weight_device, after.blkio_weight_device)
    weight = after.blkio_weight or DEFAULT_WEIGHT
    lifted.blkio_weight_device = [
        *(after.blkio_weight_device or []),
        *(WeightDevice(path=path, weight=weight) for path in gone),
    ] or None
    return lifted


def _only_in(
    before: Sequence[ThrottleDevice | WeightDevice] | None, after: Sequence[ThrottleDevice | WeightDevice] | None
) -> list[str]:
    kept = {device.path for device in after or []}
    return [device.path for device in before or [] if device.path not in kept]
