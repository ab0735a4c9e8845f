"""Assembling a seccomp cBPF program from intervals of call numbers, each with the code that decides them.

Pure: knows instructions and struct seccomp_data, not profiles. cBPF has forward jumps only, 8 bits wide for
conditions and 32 bits for JA; every piece of code here ends in a return, so pieces are joined by jumping over one.
linux/filter.h, linux/seccomp.h
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from msgspec import Struct

from naru.oci.runtime import SyscallArg

_LD_ABS = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JA = 0x05
_JEQ = 0x15
_JGT = 0x25
_JGE = 0x35
_RET = 0x06

# Offsets in struct seccomp_data. All machines we run on are little-endian: an argument's low word comes first.
_NR = 0
_ARCH = 4
_ARGS = 16

_LOW_WORD = 0xFFFFFFFF
_SHORT_JUMP = 255

Instruction = tuple[int, int, int, int]  # code, jt, jf, k
Code = tuple[Instruction, ...]

OPERATORS = (
    *("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT"),
    "SCMP_CMP_MASKED_EQ",
)


class Interval(Struct, frozen=True):
    """Call numbers from `start` up to the next interval's start are decided by `code`."""

    start: int
    code: Code


class Case(Struct, frozen=True):
    """If all of `tests` hold, the call's outcome (a SECCOMP_RET_ value) is `outcome`."""

    tests: tuple[SyscallArg, ...]
    outcome: int


def ret(outcome: int) -> Code:
    """Return code that ends with `outcome`."""
    return ((_RET, 0, 0, outcome),)


def chain(cases: Sequence[Case], default: Code) -> Code:
    """Return code that ends with the outcome of the first case that holds, else with `default`."""
    code: list[Instruction] = []
    for case in cases:
        if not case.tests:
            return (*code, *ret(case.outcome))
        code += _if_all(case.tests, ret(case.outcome))
    return (*code, *default)


def program(tables: Mapping[int, Sequence[Interval]], *, unlisted: int) -> bytes:
    """Return the whole program: `tables` by AUDIT_ARCH_ value; other architectures end with `unlisted`.

    A table's intervals must begin at call number 0 and stay valid up to the highest.
    """
    code: list[Instruction] = [(_LD_ABS, 0, 0, _ARCH)]
    for architecture, intervals in tables.items():
        ordered = sorted(intervals, key=lambda interval: interval.start)
        body = [(_LD_ABS, 0, 0, _NR), *_search(ordered)]
        code += _unless((_JEQ, architecture), body)
    code += ret(unlisted)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _unless(condition: tuple[int, int], body: Sequence[Instruction]) -> list[Instruction]:
    """Return code that runs `body` if the condition holds and jumps over it if not."""
    code, value = condition
    if len(body) <= _SHORT_JUMP:
        return [(code, 0, len(body), value), *body]
    return [(code, 1, 0, value), (_JA, 0, 0, len(body)), *body]


def _search(intervals: Sequence[Interval]) -> list[Instruction]:
    """Return a binary search for the interval that the loaded call number lies in."""
    if len(intervals) == 1:
        return list(intervals[0].code)
    middle = len(intervals) // 2
    below, above = _search(intervals[:middle]), _search(intervals[middle:])
    start = intervals[middle].start
    if len(below) <= _SHORT_JUMP:
        return [(_JGE, len(below), 0, start), *below, *above]
    return [(_JGE, 0, 1, start), (_JA, 0, 0, len(below)), *below, *above]


def _if_all(tests: Sequence[SyscallArg], then: Code) -> list[Instruction]:
    """Return code that runs `then` if every test holds, and falls out of its end as soon as one does not.

    Built from the last test to the first, so that the distance to the end is known; six tests of at most six
    instructions are far from the 255 that a short jump reaches.
    """
    code = list(then)
    for test in reversed(tests):
        code = [*_test(test, to_end=len(code)), *code]
    return code


def _test(test: SyscallArg, *, to_end: int) -> list[Instruction]:
    """Return code that falls through if `test` holds, else jumps over the following `to_end` instructions.

    64-bit comparison in two words, the high one first.
    """
    low_offset = _ARGS + 8 * test.index
    load_low, load_high = (_LD_ABS, 0, 0, low_offset), (_LD_ABS, 0, 0, low_offset + 4)
    low, high = test.value & _LOW_WORD, test.value >> 32
    match test.op:
        case "SCMP_CMP_EQ":
            return [load_high, (_JEQ, 0, to_end + 2, high), load_low, (_JEQ, 0, to_end, low)]
        case "SCMP_CMP_NE":
            return [load_high, (_JEQ, 0, 2, high), load_low, (_JEQ, to_end, 0, low)]
        case "SCMP_CMP_GT" | "SCMP_CMP_GE":
            last = _JGT if test.op == "SCMP_CMP_GT" else _JGE
            return [load_high, (_JGT, 3, 0, high), (_JEQ, 0, to_end + 2, high), load_low, (last, 0, to_end, low)]
        case "SCMP_CMP_LT" | "SCMP_CMP_LE":
            last = _JGE if test.op == "SCMP_CMP_LT" else _JGT
            return [load_high, (_JGT, to_end + 3, 0, high), (_JEQ, 0, 2, high), load_low, (last, to_end, 0, low)]
        case _:  # SCMP_CMP_MASKED_EQ: value is the mask, value_two what must be left
            want_low, want_high = test.value_two & _LOW_WORD, test.value_two >> 32
            rest = [load_low, (_AND, 0, 0, low), (_JEQ, 0, to_end, want_low)]
            return [load_high, (_AND, 0, 0, high), (_JEQ, 0, to_end + len(rest), want_high), *rest]
