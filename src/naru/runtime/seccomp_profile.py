"""Seccomp profiles in Docker's file format, for `--security-opt seccomp=FILE`.

The format is the runtime specification's with conditions on top: rules that hold only with a capability, on an
architecture or from a kernel version on, and an architecture map. Resolving them gives the specification's form.
Docker documentation, Seccomp security profiles; moby's default.json is written in it.
"""

from __future__ import annotations

import os
from collections.abc import Collection

import msgspec

from naru.errors import InvalidArgument
from naru.oci.runtime import Seccomp, SyscallArg, SyscallRule
from naru.runtime.seccomp import native_architectures

# Go's names of architectures, which the conditions use.
_CONDITION_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class _Conditions(msgspec.Struct, rename="camel"):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str = ""


class _Rule(msgspec.Struct, rename="camel"):
    action: str
    name: str = ""
    names: list[str] | None = None
    errno_ret: int | None = None
    args: list[SyscallArg] | None = None
    includes: _Conditions | None = None
    excludes: _Conditions | None = None


class _Architecture(msgspec.Struct, rename="camel"):
    architecture: str
    sub_architectures: list[str] | None = None


class _Profile(msgspec.Struct, rename="camel"):
    default_action: str = ""
    default_errno_ret: int | None = None
    architectures: list[str] | None = None
    arch_map: list[_Architecture] | None = None
    flags: list[str] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[_Rule] | None = None


_decoder = msgspec.json.Decoder(_Profile)


def load_profile(data: bytes, capabilities: Collection[str]) -> Seccomp | None:
    """Return the profile in `data` for a container with `capabilities` on this machine; None if it says nothing.

    InvalidArgument: not JSON, a field of the wrong type, or two spellings of the same thing at once. Actions,
    operators and flags are judged when the profile is compiled.
    """
    try:
        profile = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    if not profile.default_action and not profile.syscalls:
        return None
    return Seccomp(
        default_action=profile.default_action,
        default_errno_ret=profile.default_errno_ret,
        architectures=_architectures(profile),
        flags=profile.flags or [],
        listener_path=profile.listener_path,
        listener_metadata=profile.listener_metadata,
        syscalls=[_resolved(rule) for rule in profile.syscalls or [] if _applies(rule, capabilities)],
    )


def _architectures(profile: _Profile) -> list[str]:
    if profile.architectures and profile.arch_map:
        raise InvalidArgument(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    for entry in profile.arch_map or []:
        if entry.architecture in native_architectures()[:1]:
            return [entry.architecture, *(entry.sub_architectures or [])]
    return profile.architectures or []


def _resolved(rule: _Rule) -> SyscallRule:
    if rule.name and rule.names:
        raise InvalidArgument(
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
        )
    names = rule.names or ([rule.name] if rule.name else [])
    return SyscallRule(names=names, action=rule.action, errno_ret=rule.errno_ret, args=rule.args or [])


def _applies(rule: _Rule, capabilities: Collection[str]) -> bool:
    """A rule is in if all it includes holds and nothing it excludes does."""
    machine = _CONDITION_ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    if (needs := rule.includes) is not None:
        if needs.arches and machine not in needs.arches:
            return False
        if not all(name in capabilities for name in needs.caps or []):
            return False
        if needs.min_kernel and not _kernel_is_at_least(needs.min_kernel):
            return False
    if (bars := rule.excludes) is not None:
        if machine in (bars.arches or []) or any(name in capabilities for name in bars.caps or []):
            return False
        if bars.min_kernel and _kernel_is_at_least(bars.min_kernel):
            return False
    return True


def _kernel_is_at_least(version: str) -> bool:
    return _version(os.uname().release) >= _version(version)


def _version(text: str) -> tuple[int, int]:
    """Return the first two numbers of a version such as `6.1.0-13-amd64`."""
    major, _, rest = text.partition(".")
    minor = "".join(character if character.isdigit() else " " for character in rest).split()
    try:
        return int(major), int(minor[0]) if minor and rest[:1].isdigit() else 0
    except ValueError:
        raise InvalidArgument(f"invalid kernel version {text!r} in the seccomp profile") from None
