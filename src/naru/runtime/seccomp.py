"""Seccomp profiles of the runtime specification, compiled to the cBPF program that the kernel runs.

A program looks at the architecture, then finds the call's number by binary search over intervals that share an
outcome, then, for the few calls whose arguments matter, tests those. Rules are tried in the profile's order and the
first match decides; without one the default action does. Differences from a profile read literally, all on purpose:

- Calls newer than anything the profile names fail with ENOSYS where the default action denies, because a libc falls
  back from ENOSYS but takes EPERM for an answer.
- Programs of an architecture that the profile does not list are killed; x32 calls, which arrive under x86-64's
  name, fail with ENOSYS instead.
- On i386 a rule about a socket or System V IPC call also holds for the same call made through socketcall or ipc.

OCI runtime-spec, config-linux.md, Seccomp; seccomp(2); docs/adr/0003-seccomp-own-emitter.md
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from naru.errors import InvalidArgument, Unsupported
from naru.kernel import seccomp as kernel
from naru.oci.runtime import Seccomp, SyscallArg, SyscallRule
from naru.runtime import seccomp_program as bpf
from naru.runtime.syscall_table import X32_SYSCALL_BIT, syscall_numbers

_AUDIT = {
    "SCMP_ARCH_X86_64": kernel.AUDIT_ARCH_X86_64,
    "SCMP_ARCH_X86": kernel.AUDIT_ARCH_I386,
    "SCMP_ARCH_X32": kernel.AUDIT_ARCH_X86_64,
    "SCMP_ARCH_AARCH64": kernel.AUDIT_ARCH_AARCH64,
    "SCMP_ARCH_ARM": kernel.AUDIT_ARCH_ARM,
}
ARCHITECTURES = tuple(_AUDIT)
# What a kernel of this machine type can run, its own architecture first.
_MACHINE = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
ACTIONS = {
    "SCMP_ACT_KILL": kernel.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": kernel.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": kernel.SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": kernel.SECCOMP_RET_TRAP,
    "SCMP_ACT_ERRNO": kernel.SECCOMP_RET_ERRNO,
    "SCMP_ACT_TRACE": kernel.SECCOMP_RET_TRACE,
    "SCMP_ACT_ALLOW": kernel.SECCOMP_RET_ALLOW,
    "SCMP_ACT_LOG": kernel.SECCOMP_RET_LOG,
}
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": kernel.SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": kernel.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": kernel.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
}
_CARRIES_DATA = {kernel.SECCOMP_RET_ERRNO, kernel.SECCOMP_RET_TRACE}
_LETS_THROUGH = {kernel.SECCOMP_RET_ALLOW, kernel.SECCOMP_RET_LOG, kernel.SECCOMP_RET_TRACE}
_NO_SUCH_CALL = kernel.SECCOMP_RET_ERRNO | errno.ENOSYS

# Call numbers inside socketcall (linux/net.h) and ipc (linux/ipc.h), from 1, as i386 programs make them.
_SOCKETCALL = (
    *("socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv"),
    *("sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg"),
    "sendmmsg",
)
_IPC = {
    "semop": 1,
    "semget": 2,
    "semctl": 3,
    "semtimedop": 4,
    "msgsnd": 11,
    "msgrcv": 12,
    "msgget": 13,
    "msgctl": 14,
    "shmat": 21,
    "shmdt": 22,
    "shmget": 23,
    "shmctl": 24,
}
_MULTIPLEXED = {name: ("socketcall", number) for number, name in enumerate(_SOCKETCALL, 1)} | {
    name: ("ipc", number) for name, number in _IPC.items()
}
# ipc keeps an interface version in the upper half of its first argument.
_MULTIPLEX_MASK = 0xFFFF


def native_architectures() -> tuple[str, ...]:
    """Return the profile names of what this machine's kernel can run, its own architecture first."""
    return _MACHINE.get(os.uname().machine, ())


def compile_profile(seccomp: Seccomp) -> bytes:
    """Return the cBPF program of `seccomp`, from memory if the same profile was compiled before.

    The machine's own architecture is always covered, as the specification's default. About 1 ms the first time and
    0.03 ms after; a process that forks container inits compiles common profiles first, so that they inherit them.
    InvalidArgument: an unknown action or operator. Unsupported: SCMP_ACT_NOTIFY, a listener or an unknown flag.
    """
    return _compile(msgspec.json.encode(seccomp))


def load(program: bytes, flags: Iterable[str] = ()) -> None:
    """Put the calling thread under `program`; `flags` are the profile's. Holds across execve.

    OSError as for `naru.kernel.seccomp.set_mode_filter`. Unsupported: an unknown flag.
    """
    kernel.set_mode_filter(program, _flag_bits(flags))


def _flag_bits(flags: Iterable[str]) -> int:
    bits = 0
    for flag in flags:
        if flag not in FLAGS:
            raise Unsupported(f"seccomp: flag {flag} is not supported")
        bits |= FLAGS[flag]
    return bits


@functools.lru_cache(maxsize=64)
def _compile(encoded: bytes) -> bytes:
    seccomp = msgspec.json.decode(encoded, type=Seccomp)
    if seccomp.listener_path:
        raise Unsupported("seccomp: a notification listener is not supported")
    _flag_bits(seccomp.flags)
    default = _outcome(seccomp.default_action, seccomp.default_errno_ret)
    rules = [(rule, _outcome(rule.action, rule.errno_ret), _alternatives(rule)) for rule in seccomp.syscalls]
    listed = dict.fromkeys([*native_architectures()[:1], *seccomp.architectures])
    tables: dict[int, list[bpf.Interval]] = {}
    for architecture in listed:
        if architecture in _AUDIT:
            intervals = _intervals(architecture, rules, default)
            tables.setdefault(_AUDIT[architecture], []).extend(intervals)
    if kernel.AUDIT_ARCH_X86_64 in tables and "SCMP_ARCH_X32" not in listed:
        tables[kernel.AUDIT_ARCH_X86_64].append(bpf.Interval(X32_SYSCALL_BIT, bpf.ret(_NO_SUCH_CALL)))
    program = bpf.program(tables, unlisted=kernel.SECCOMP_RET_KILL_PROCESS)
    if len(program) > kernel.MAX_INSTRUCTIONS * kernel.INSTRUCTION_BYTES:
        raise InvalidArgument("seccomp: the profile needs more than the kernel's 4096 instructions")
    return program


def _outcome(action: str, errno_ret: int | None) -> int:
    if action == "SCMP_ACT_NOTIFY":
        raise Unsupported("seccomp: SCMP_ACT_NOTIFY is not supported")
    if action not in ACTIONS:
        raise InvalidArgument(f"seccomp: unknown action {action!r}")
    value = ACTIONS[action]
    if value not in _CARRIES_DATA:
        return value
    data = errno.EPERM if errno_ret is None else errno_ret
    if not 0 <= data <= 0xFFFF:
        raise InvalidArgument(f"seccomp: errnoRet {data} is out of range")
    return value | data


def _alternatives(rule: SyscallRule) -> list[list[SyscallArg]]:
    """Return the rule's tests as an OR of ANDs. Two tests of one argument make all of the rule's tests an OR.

    The latter is what profiles in the field were written for, since libseccomp takes an argument once per rule.
    """
    for argument in rule.args:
        if argument.op not in bpf.OPERATORS:
            raise InvalidArgument(f"seccomp: unknown operator {argument.op!r}")
        if not 0 <= argument.index <= 5:
            raise InvalidArgument(f"seccomp: argument index {argument.index} is out of range")
        if not (0 <= argument.value < 1 << 64 and 0 <= argument.value_two < 1 << 64):
            raise InvalidArgument("seccomp: an argument's value does not fit in 64 bits")
    if len({argument.index for argument in rule.args}) < len(rule.args):
        return [[argument] for argument in rule.args]
    return [list(rule.args)]


_Rules = Sequence[tuple[SyscallRule, int, list[list[SyscallArg]]]]


def _intervals(architecture: str, rules: _Rules, default: int) -> list[bpf.Interval]:
    """Return what happens to each call number of `architecture`, as intervals from its lowest possible number up."""
    numbers = syscall_numbers(architecture)
    cases: dict[int, list[bpf.Case]] = {}

    def add(number: int | None, tests: Sequence[SyscallArg], outcome: int) -> None:
        if number is not None:
            cases.setdefault(number, []).append(bpf.Case(tuple(tests), outcome))

    for rule, outcome, alternatives in rules:
        for name in rule.names:
            number = numbers.get(name)
            for tests in alternatives:
                add(number, tests, outcome)
            if architecture == "SCMP_ARCH_X86" and not rule.args and name in _MULTIPLEXED:
                carrier, call = _MULTIPLEXED[name]
                inside = SyscallArg(index=0, op="SCMP_CMP_MASKED_EQ", value=_MULTIPLEX_MASK, value_two=call)
                add(numbers[carrier], [inside], outcome)
    first = X32_SYSCALL_BIT if architecture == "SCMP_ARCH_X32" else 0
    after = _after_last(cases, default)
    return list(_merge(first, cases, bpf.ret(default), after))


def _after_last(cases: dict[int, list[bpf.Case]], default: int) -> bpf.Code:
    """What calls above the highest one named get."""
    denies = default & 0xFFFF0000 not in _LETS_THROUGH
    return bpf.ret(_NO_SUCH_CALL if denies and cases else default)


def _merge(first: int, cases: dict[int, list[bpf.Case]], default: bpf.Code, after: bpf.Code) -> Iterable[bpf.Interval]:
    spans: list[bpf.Interval] = []
    number = first
    for named in sorted(cases):
        if named > number:
            spans.append(bpf.Interval(number, default))
        spans.append(bpf.Interval(named, bpf.chain(cases[named], default)))
        number = named + 1
    spans.append(bpf.Interval(number, after))
    yield spans[0]
    yield from (span for before, span in pairwise(spans) if span.code != before.code)
