"""Turning the runtime specification's numbers into what cgroup files take, and writing them with useful errors.

The specification speaks cgroup version 1; version 2 has other ranges and meanings. OCI runtime-spec,
config-linux.md, Control groups; kernel documentation, cgroup-v2.
"""

from __future__ import annotations

import errno
import math
import os

from naru.errors import Conflict, InvalidArgument, Unsupported
from naru.kernel import cgroup as kernel
from naru.oci.runtime import RdmaLimit

MAX = "max"

_BAD_VALUE = {errno.EINVAL, errno.ERANGE, errno.EOVERFLOW, errno.ENOSPC, errno.EDOM, errno.ENODEV, errno.EOPNOTSUPP}


def put(directory: str, name: str, value: str | int, *, what: str) -> None:
    """Write one limit. `what` names it for people.

    Unsupported: this host has no such file. InvalidArgument: the kernel refuses the value. Conflict: it cannot be
    set now, such as a memory limit below what is in use.
    """
    try:
        kernel.write(directory, name, str(value))
    except FileNotFoundError:
        raise Unsupported(f"cgroup: {what} is not supported on this host (no {name})") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        if error.errno in _BAD_VALUE:
            raise InvalidArgument(f"cgroup: {what} {value}: {reason}") from error
        if error.errno == errno.EBUSY:
            raise Conflict(f"cgroup: {what} {value}: {reason}") from error
        raise


def limit_or_max(value: int) -> str:
    """Version 2 spells unlimited "max", the specification -1."""
    return MAX if value < 0 else str(value)


def unlimited_as_none(text: str) -> int | None:
    """Read a limit of either version. Version 1 says unlimited by the largest page count in bytes (about 2**63)."""
    text = text.strip()
    if text == MAX:
        return None
    value = int(text)
    return None if value >= 1 << 62 else value


def cpu_weight(shares: int) -> int:
    """Return version 2's cpu.weight (1 to 10000, default 100) for version 1's cpu.shares (2 to 262144, default 1024).

    The parabola in log2(shares) through both ends and both defaults, (2, 1), (1024, 100), (262144, 10000), which
    other runtimes use too since 2025; the straight line they used before made 39 of the default 1024.
    """
    shares = min(max(shares, 2), 262144)
    exponent = math.log2(shares)
    power = (exponent * exponent + 125 * exponent) / 612.0 - 7.0 / 34.0
    return min(math.ceil(10**power), 10000)


def io_weight(weight: int) -> int:
    """Return version 2's io.weight (1 to 10000, default 100) for version 1's blkio.weight (10 to 1000)."""
    if not 10 <= weight <= 1000:
        raise InvalidArgument(f"cgroup: block I/O weight {weight}: not in 10 to 1000")
    return 1 + (weight - 10) * 9999 // 990


def swap_max(memory_and_swap: int, memory: int | None) -> str:
    """Return version 2's limit of swap alone, given version 1's limit of memory and swap together."""
    if memory_and_swap < 0:
        return MAX
    if memory is None or memory < 0:
        raise InvalidArgument("cgroup: a swap limit needs a memory limit")
    if memory_and_swap < memory:
        raise InvalidArgument("cgroup: memory and swap together are limited to less than memory alone")
    return str(memory_and_swap - memory)


def rdma_line(device: str, limit: RdmaLimit) -> str:
    """Return a line of rdma.max."""
    handles = "" if limit.hca_handles is None else f" hca_handle={limit.hca_handles}"
    objects = "" if limit.hca_objects is None else f" hca_object={limit.hca_objects}"
    return f"{device}{handles}{objects}"
