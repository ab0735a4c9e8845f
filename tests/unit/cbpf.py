"""Running a seccomp cBPF program in Python, and having libseccomp write one: the oracle for our own compiler."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Sequence

import pyseccomp

from naru.oci.runtime import Seccomp, SyscallArg

MASK = 0xFFFFFFFF
ERRNO = 0x00050000
ALLOW = 0x7FFF0000


def run(program: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """Return the SECCOMP_RET_ value of one call. Knows the instructions that libseccomp and we use."""
    six = [*arguments, *[0] * 6][:6]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *six)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, on_true, on_false, value = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x15:
                at += on_true if accumulator == value else on_false
            case 0x25:
                at += on_true if accumulator > value else on_false
            case 0x35:
                at += on_true if accumulator >= value else on_false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")


_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": pyseccomp.Arch.X86_64,
    "SCMP_ARCH_X86": pyseccomp.Arch.X86,
    "SCMP_ARCH_X32": pyseccomp.Arch.X32,
    "SCMP_ARCH_AARCH64": pyseccomp.Arch.AARCH64,
    "SCMP_ARCH_ARM": pyseccomp.Arch.ARM,
}
_OPERATORS = {
    "SCMP_CMP_NE": pyseccomp.NE,
    "SCMP_CMP_LT": pyseccomp.LT,
    "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_GE": pyseccomp.GE,
    "SCMP_CMP_GT": pyseccomp.GT,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}


def resolve(architecture: str, name: str) -> int:
    """Return libseccomp's number of a call; negative if it has none."""
    try:
        return int(pyseccomp.resolve_syscall(_ARCHITECTURES[architecture], name))
    except ValueError:
        return -1


def libseccomp_program(profile: Seccomp) -> bytes:
    """Return the program that libseccomp makes of `profile`, leaving out calls it does not know."""
    made = pyseccomp.SyscallFilter(_action(profile.default_action, profile.default_errno_ret))
    native = pyseccomp.system_arch()
    for architecture in profile.architectures:
        if _ARCHITECTURES[architecture] != native:
            made.add_arch(_ARCHITECTURES[architecture])
    for rule in profile.syscalls:
        action = _action(rule.action, rule.errno_ret)
        known = [name for name in rule.names if resolve(profile.architectures[0], name) != -1]
        for name in known:
            made.add_rule(action, name, *[_argument(argument) for argument in rule.args])
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def _action(action: str, errno_ret: int | None) -> int:
    match action:
        case "SCMP_ACT_ERRNO":
            return int(pyseccomp.ERRNO(1 if errno_ret is None else errno_ret))
        case "SCMP_ACT_ALLOW":
            return int(pyseccomp.ALLOW)
        case "SCMP_ACT_LOG":
            return int(pyseccomp.LOG)
        case _:
            raise AssertionError(action)


def _argument(argument: SyscallArg) -> object:
    return pyseccomp.Arg(argument.index, _OPERATORS[argument.op], argument.value, argument.value_two)
