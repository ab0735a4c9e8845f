"""Which devices a container may open or make: rules reduced to a policy, and the policy as an eBPF program.

A policy is what both cgroup versions can do: a default, and exceptions from it. Version 1 takes it as writes to
devices.allow and devices.deny, version 2 as a program of type BPF_PROG_TYPE_CGROUP_DEVICE, made and attached here.
OCI runtime-spec, config-linux.md, Allowed Device list; kernel documentation, cgroup-v1/devices.
"""

from __future__ import annotations

import errno
import os
import resource
import struct
from collections.abc import Iterable, Sequence

from msgspec import Struct

from naru.errors import InvalidArgument, Unsupported
from naru.kernel import bpf
from naru.oci.runtime import DeviceRule

# BPF_DEVCG_ACC_ of linux/bpf.h
_ACCESS = {"m": 1, "r": 2, "w": 4}
_ALL_ACCESS = 7
_BLOCK, _CHARACTER = "b", "c"
_TYPE_NUMBERS = {_BLOCK: 1, _CHARACTER: 2}  # BPF_DEVCG_DEV_

# What every container gets whatever its rules say: making any node, and using the harmless ones and its terminals.
DEFAULT_RULES = (
    DeviceRule(allow=True, type=_CHARACTER, access="m"),
    DeviceRule(allow=True, type=_BLOCK, access="m"),
    *(DeviceRule(allow=True, type=_CHARACTER, major=1, minor=minor) for minor in (3, 5, 7, 8, 9)),
    DeviceRule(allow=True, type=_CHARACTER, major=5, minor=0),
    DeviceRule(allow=True, type=_CHARACTER, major=5, minor=2),
    DeviceRule(allow=True, type=_CHARACTER, major=136),
)


class DeviceMatch(Struct, frozen=True):
    """Devices of `type` ("b" or "c") and number; None stands for every number. `access` is a mask of BPF_DEVCG_ACC_."""

    type: str
    major: int | None
    minor: int | None

    def covers(self, other: DeviceMatch) -> bool:
        return self.type == other.type and self.major in (None, other.major) and self.minor in (None, other.minor)


class DevicePolicy(Struct, frozen=True):
    """`exceptions` are (devices, access mask) that get the opposite of `allow_by_default`."""

    allow_by_default: bool
    exceptions: tuple[tuple[DeviceMatch, int], ...]

    def lines(self) -> list[str]:
        """Return the exceptions as version 1 writes them, such as `c 1:3 rwm`."""
        return [line(match, access) for match, access in self.exceptions]


def line(match: DeviceMatch, access: int) -> str:
    """Return one entry of devices.list."""
    numbers = ":".join("*" if number is None else str(number) for number in (match.major, match.minor))
    return f"{match.type} {numbers} {''.join(letter for letter in 'rwm' if _ACCESS[letter] & access)}"


def policy(rules: Iterable[DeviceRule]) -> DevicePolicy:
    """Return the policy that `rules` come to when applied in order to a container that may use nothing.

    InvalidArgument: a malformed rule. Unsupported: a rule takes a part out of a wider one, which a default with
    exceptions cannot say.
    """
    allow_by_default = False
    exceptions: dict[DeviceMatch, int] = {}
    for rule in rules:
        match, access = _parse(rule)
        if match is None:
            allow_by_default = rule.allow
            exceptions.clear()
        elif rule.allow != allow_by_default:
            exceptions[match] = exceptions.get(match, 0) | access
        else:
            _take_back(exceptions, match, access)
    return DevicePolicy(allow_by_default, tuple(exceptions.items()))


def _parse(rule: DeviceRule) -> tuple[DeviceMatch | None, int]:
    if not set(rule.access) <= _ACCESS.keys():
        raise InvalidArgument(f"device rule: unknown access {rule.access!r}")
    access = sum(_ACCESS[letter] for letter in set(rule.access)) or _ALL_ACCESS
    major = rule.major if rule.major is not None and rule.major >= 0 else None
    minor = rule.minor if rule.minor is not None and rule.minor >= 0 else None
    match rule.type:
        case "a" | "":
            if major is not None or minor is not None:
                raise InvalidArgument("device rule: type a covers all devices and takes no numbers")
            return None, access
        case "b":
            return DeviceMatch(_BLOCK, major, minor), access
        case "c" | "u":
            return DeviceMatch(_CHARACTER, major, minor), access
        case _:
            raise InvalidArgument(f"device rule: unknown type {rule.type!r}")


def _take_back(exceptions: dict[DeviceMatch, int], match: DeviceMatch, access: int) -> None:
    for held, mask in list(exceptions.items()):
        if match.covers(held):
            exceptions[held] = mask & ~access
            if not exceptions[held]:
                del exceptions[held]
        elif held.covers(match) and mask & access:
            raise Unsupported(f"device rule: cannot take {line(match, access)} out of {line(held, mask)}")


# Registers of the program: the fields of struct bpf_cgroup_dev_ctx, taken apart.
_RESULT, _CONTEXT, _TYPE, _ASKED, _MAJOR, _MINOR = range(6)


def _instruction(code: int, destination: int, source: int, offset: int, immediate: int) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | destination, offset, immediate)


def _load_field(register: int, offset: int) -> bytes:
    return _instruction(0x61, register, _CONTEXT, offset, 0)


def _and(register: int, mask: int) -> bytes:
    return _instruction(0x57, register, 0, 0, mask)


def _copy(register: int, source: int) -> bytes:
    return _instruction(0xBF, register, source, 0, 0)


def _finish(result: bool) -> bytes:
    return _instruction(0xB7, _RESULT, 0, 0, int(result)) + _instruction(0x95, 0, 0, 0, 0)


def compile_policy(devices: DevicePolicy) -> bytes:
    """Return the eBPF program of `devices`: 1 lets an access through, 0 fails it with EPERM."""
    code = _load_field(_ASKED, 0) + _load_field(_MAJOR, 4) + _load_field(_MINOR, 8)
    code += _copy(_TYPE, _ASKED) + _and(_TYPE, 0xFFFF) + _instruction(0x77, _ASKED, 0, 0, 16)
    for match, access in devices.exceptions:
        code += _exception(match, access, allow=not devices.allow_by_default)
    return code + _finish(devices.allow_by_default)


def _exception(match: DeviceMatch, access: int, *, allow: bool) -> bytes:
    """An allowing exception must cover all that is asked, a denying one any part of it: as in version 1."""
    tests: list[tuple[bytes, int, int, int]] = [(b"", 0x55, _TYPE, _TYPE_NUMBERS[match.type])]
    if allow and access != _ALL_ACCESS:
        tests.append((_copy(_RESULT, _ASKED) + _and(_RESULT, _ALL_ACCESS & ~access), 0x55, _RESULT, 0))
    if not allow and access != _ALL_ACCESS:
        tests.append((_copy(_RESULT, _ASKED) + _and(_RESULT, access), 0x15, _RESULT, 0))
    if match.major is not None:
        tests.append((b"", 0x55, _MAJOR, match.major))
    if match.minor is not None:
        tests.append((b"", 0x55, _MINOR, match.minor))
    code = _finish(allow)
    for before, jump, register, value in reversed(tests):
        code = before + _instruction(jump, register, 0, len(code) // 8, value) + code
    return code


def attach(cgroup_fd: int, program: bytes) -> None:
    """Make `program` the only device program of the cgroup; the kernel drops it when the cgroup is removed.

    A program that is there already is replaced in one step where the kernel can (5.6), so that a running container
    is never without one. OSError as for `naru.kernel.bpf`.
    """
    program_fd = _load(program)
    try:
        old = [bpf.prog_fd_by_id(number) for number in bpf.prog_query(cgroup_fd, bpf.BPF_CGROUP_DEVICE)]
        try:
            _replace(cgroup_fd, program_fd, old)
        finally:
            for descriptor in old:
                os.close(descriptor)
    finally:
        os.close(program_fd)


def _replace(cgroup_fd: int, program_fd: int, old: Sequence[int]) -> None:
    if len(old) == 1:
        try:
            flags = bpf.BPF_F_ALLOW_MULTI | bpf.BPF_F_REPLACE
            return bpf.prog_attach(cgroup_fd, program_fd, bpf.BPF_CGROUP_DEVICE, flags, old[0])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    bpf.prog_attach(cgroup_fd, program_fd, bpf.BPF_CGROUP_DEVICE, bpf.BPF_F_ALLOW_MULTI)
    for descriptor in old:
        bpf.prog_detach(cgroup_fd, descriptor, bpf.BPF_CGROUP_DEVICE)
    return None


def _load(program: bytes) -> int:
    """Before Linux 5.11 programs count against RLIMIT_MEMLOCK, often 64 KiB: raised for this call only."""
    try:
        return bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, program, "naru_devices")
    except PermissionError:
        limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if limits[0] == resource.RLIM_INFINITY:
            raise
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        return bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, program, "naru_devices")
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)
