"""The seccomp compiler against libseccomp: both programs are interpreted over call numbers and arguments."""

from __future__ import annotations

import errno

import cbpf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naru.errors import InvalidArgument, Unsupported
from naru.kernel import seccomp as kernel
from naru.oci.runtime import Seccomp, SyscallArg, SyscallRule
from naru.runtime.capability import DEFAULT_CAPABILITIES
from naru.runtime.seccomp import compile_profile
from naru.runtime.seccomp_default import default_profile
from naru.runtime.seccomp_profile import load_profile
from naru.runtime.syscall_table import X32_SYSCALL_BIT, syscall_numbers

ALL_X86 = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
EPERM = cbpf.ERRNO | errno.EPERM
ENOSYS = cbpf.ERRNO | errno.ENOSYS
# The newest call that the oldest libseccomp we test against has a number for.
LAST_COMMON = 450
INTERESTING = [0, 1, 8, 39, 40, 41, 0x10000, 0x20000, 0x20008, 0x7E020000, 0xFFFFFFFF]
WORDS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1])
OPERATORS = [f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")]


def profile_of(*rules: SyscallRule, default: str = "SCMP_ACT_ERRNO", architectures: list[str] | None = None) -> Seccomp:
    return Seccomp(default_action=default, architectures=architectures or ALL_X86, syscalls=list(rules))


def allow(*names: str, args: list[SyscallArg] | None = None) -> SyscallRule:
    return SyscallRule(names=list(names), action="SCMP_ACT_ALLOW", args=args or [])


def outcome(profile: Seccomp, name: str, *arguments: int, architecture: str = "SCMP_ARCH_X86_64") -> int:
    audit = kernel.AUDIT_ARCH_I386 if architecture == "SCMP_ARCH_X86" else kernel.AUDIT_ARCH_X86_64
    return cbpf.run(compile_profile(profile), audit, syscall_numbers(architecture)[name], arguments)


@pytest.mark.parametrize("architecture", list(cbpf._ARCHITECTURES))
def test_call_numbers_are_libseccomps_where_it_has_one(architecture: str) -> None:
    numbers = {n: v for n, v in syscall_numbers(architecture).items() if v & ~X32_SYSCALL_BIT <= LAST_COMMON}

    # Negative ones are libseccomp's own names for calls inside socketcall and ipc.
    theirs = {name: number for name in numbers if (number := cbpf.resolve(architecture, name)) >= 0}

    assert theirs.items() <= numbers.items()
    assert len(theirs) > 300


@pytest.mark.parametrize(
    ("audit", "base"),
    [(kernel.AUDIT_ARCH_X86_64, 0), (kernel.AUDIT_ARCH_I386, 0), (kernel.AUDIT_ARCH_X86_64, X32_SYSCALL_BIT)],
    ids=["x86-64", "i386", "x32"],
)
@pytest.mark.parametrize("capabilities", [DEFAULT_CAPABILITIES, ("CAP_SYS_ADMIN",)], ids=["default", "admin"])
def test_the_default_profile_decides_every_call_as_libseccomp_would(
    audit: int, base: int, capabilities: tuple[str, ...]
) -> None:
    profile = default_profile(capabilities)
    ours = compile_profile(profile)
    theirs = cbpf.libseccomp_program(_in_libseccomps_words(profile))

    different = [
        (number, value)
        for number in range(LAST_COMMON + 1)
        for value in INTERESTING
        if cbpf.run(ours, audit, base + number, [value]) != cbpf.run(theirs, audit, base + number, [value])
    ]

    # uretprobe (335, x86-64 and x32) is newer than libseccomp 2.5.
    assert {number for number, _ in different} <= {335}


def _in_libseccomps_words(profile: Seccomp) -> Seccomp:
    """libseccomp cannot say "not this value in the low word", our socket rule, but only "not this value"."""
    usual = allow("socket", args=[SyscallArg(index=0, op="SCMP_CMP_NE", value=40)])
    rules = [rule for rule in profile.syscalls if rule.names != ["socket"]]
    return Seccomp(default_action=profile.default_action, architectures=profile.architectures, syscalls=[*rules, usual])


@settings(max_examples=150, deadline=None)
@given(
    tests=st.dictionaries(st.integers(0, 5), st.tuples(st.sampled_from(OPERATORS), WORDS, WORDS), max_size=3),
    calls=st.lists(st.lists(WORDS, min_size=6, max_size=6), min_size=4, max_size=4),
)
def test_argument_tests_hold_exactly_where_libseccomps_do(
    tests: dict[int, tuple[str, int, int]], calls: list[list[int]]
) -> None:
    arguments = [
        SyscallArg(index=index, op=op, value=value, value_two=two & value if op.endswith("MASKED_EQ") else two)
        for index, (op, value, two) in tests.items()
    ]
    profile = profile_of(allow("ioctl", args=arguments), allow("write"), architectures=["SCMP_ARCH_X86_64"])
    theirs = cbpf.libseccomp_program(profile)
    boundary = [[tests.get(index, ("", 7, 0))[1] for index in range(6)]]
    near = [[(value + step) % 2**64 for value in boundary[0]] for step in (-1, 1)]

    results = [outcome(profile, "ioctl", *call) for call in [*calls, *boundary, *near]]

    expected = [cbpf.run(theirs, kernel.AUDIT_ARCH_X86_64, 16, call) for call in [*calls, *boundary, *near]]
    assert results == expected


@settings(max_examples=25, deadline=None)
@given(names=st.sets(st.sampled_from(sorted(syscall_numbers("SCMP_ARCH_X86_64"))), min_size=1, max_size=200))
def test_any_set_of_calls_is_searched_correctly(names: set[str]) -> None:
    numbers = syscall_numbers("SCMP_ARCH_X86_64")
    program = compile_profile(profile_of(allow(*names), architectures=["SCMP_ARCH_X86_64"]))
    last = max(numbers[name] for name in names)

    allowed = {n for n in range(last + 1) if cbpf.run(program, kernel.AUDIT_ARCH_X86_64, n) == cbpf.ALLOW}

    assert allowed == {numbers[name] for name in names}
    assert cbpf.run(program, kernel.AUDIT_ARCH_X86_64, last + 1) == ENOSYS


def test_arm64_programs_answer_for_arm64_and_arm() -> None:
    profile = profile_of(allow("openat"), architectures=["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    program = compile_profile(profile)

    assert cbpf.run(program, kernel.AUDIT_ARCH_AARCH64, 56) == cbpf.ALLOW
    assert cbpf.run(program, kernel.AUDIT_ARCH_AARCH64, 55) == EPERM
    assert cbpf.run(program, kernel.AUDIT_ARCH_ARM, 322) == cbpf.ALLOW


def test_vsock_is_refused_whatever_the_upper_half_of_the_register_holds() -> None:
    profile = default_profile(DEFAULT_CAPABILITIES)

    assert outcome(profile, "socket", 2) == cbpf.ALLOW
    assert outcome(profile, "socket", 40) == EPERM
    assert outcome(profile, "socket", 0x1_0000_0028) == EPERM


def test_clone_may_make_threads_but_namespaces_only_with_the_capability() -> None:
    plain, admin = default_profile(DEFAULT_CAPABILITIES), default_profile(["CAP_SYS_ADMIN"])

    assert outcome(plain, "clone", 0x003D0F00) == cbpf.ALLOW
    assert outcome(plain, "clone", 0x10000000) == EPERM
    assert outcome(plain, "clone3") == ENOSYS
    assert outcome(admin, "clone", 0x10000000) == cbpf.ALLOW
    assert outcome(admin, "clone3") == cbpf.ALLOW


def test_calls_newer_than_the_profile_fail_with_enosys_unless_the_default_lets_calls_through() -> None:
    denying = profile_of(allow("read", "mseal"))
    allowing = profile_of(SyscallRule(names=["mount"], action="SCMP_ACT_ERRNO"), default="SCMP_ACT_ALLOW")

    assert cbpf.run(compile_profile(denying), kernel.AUDIT_ARCH_X86_64, 461) == EPERM
    assert cbpf.run(compile_profile(denying), kernel.AUDIT_ARCH_X86_64, 463) == ENOSYS
    assert cbpf.run(compile_profile(allowing), kernel.AUDIT_ARCH_X86_64, 463) == cbpf.ALLOW


def test_an_unlisted_architecture_is_killed_and_unlisted_x32_does_not_exist() -> None:
    program = compile_profile(profile_of(default="SCMP_ACT_ALLOW", architectures=["SCMP_ARCH_X86_64"]))

    assert cbpf.run(program, kernel.AUDIT_ARCH_I386, 1) == kernel.SECCOMP_RET_KILL_PROCESS
    assert cbpf.run(program, kernel.AUDIT_ARCH_X86_64, X32_SYSCALL_BIT | 1) == ENOSYS


def test_the_first_rule_that_matches_decides() -> None:
    busy = SyscallRule(
        names=["mount"],
        action="SCMP_ACT_ERRNO",
        errno_ret=errno.EBUSY,
        args=[SyscallArg(index=3, op="SCMP_CMP_EQ", value=1)],
    )

    assert outcome(profile_of(busy, allow("mount")), "mount", 0, 0, 0, 1) == cbpf.ERRNO | errno.EBUSY
    assert outcome(profile_of(busy, allow("mount")), "mount", 0, 0, 0, 2) == cbpf.ALLOW
    assert outcome(profile_of(allow("mount"), busy), "mount", 0, 0, 0, 1) == cbpf.ALLOW


def test_two_tests_of_one_argument_are_alternatives() -> None:
    either = [SyscallArg(index=0, op="SCMP_CMP_EQ", value=value) for value in (3, 5)]
    profile = profile_of(allow("close", args=either))

    assert [outcome(profile, "close", fd) for fd in (3, 4, 5)] == [cbpf.ALLOW, EPERM, cbpf.ALLOW]


def test_a_refused_socket_call_is_refused_through_socketcall_too() -> None:
    profile = profile_of(SyscallRule(names=["socket"], action="SCMP_ACT_ERRNO"), default="SCMP_ACT_ALLOW")

    assert outcome(profile, "socketcall", 1, architecture="SCMP_ARCH_X86") == EPERM
    assert outcome(profile, "socketcall", 3, architecture="SCMP_ARCH_X86") == cbpf.ALLOW


def test_actions_become_the_kernels_with_their_data() -> None:
    def default(action: str, errno_ret: int | None = None) -> int:
        profile = Seccomp(default_action=action, default_errno_ret=errno_ret, architectures=["SCMP_ARCH_X86_64"])
        return outcome(profile, "read")

    assert default("SCMP_ACT_KILL") == 0
    assert default("SCMP_ACT_KILL_PROCESS") == 0x80000000
    assert default("SCMP_ACT_TRAP") == 0x00030000
    assert default("SCMP_ACT_TRACE", 7) == 0x7FF00007
    assert default("SCMP_ACT_LOG") == 0x7FFC0000
    assert default("SCMP_ACT_ERRNO", 13) == cbpf.ERRNO | 13


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(Unsupported, match="SCMP_ACT_NOTIFY is not supported"):
        compile_profile(profile_of(default="SCMP_ACT_NOTIFY"))
    with pytest.raises(Unsupported, match="flag SECCOMP_FILTER_FLAG_NEW_LISTENER is not supported"):
        compile_profile(Seccomp(default_action="SCMP_ACT_ALLOW", flags=["SECCOMP_FILTER_FLAG_NEW_LISTENER"]))
    with pytest.raises(InvalidArgument, match="unknown action 'SCMP_ACT_NONSENSE'"):
        compile_profile(profile_of(default="SCMP_ACT_NONSENSE"))


DOCKER_FORMAT = b"""{
  "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
  "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
              {"architecture": "SCMP_ARCH_S390X", "subArchitectures": null}],
  "syscalls": [
    {"names": ["read"], "action": "SCMP_ACT_ALLOW", "comment": "always"},
    {"name": "write", "action": "SCMP_ACT_ALLOW", "args": null},
    {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390x"]},
     "args": [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}]},
    {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
    {"names": ["kcmp"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.1"}},
    {"names": ["s390_pci_mmio_read"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}
  ]
}"""


def test_a_profile_in_dockers_format_keeps_the_rules_whose_conditions_hold() -> None:
    plain = load_profile(DOCKER_FORMAT, [])
    admin = load_profile(DOCKER_FORMAT, ["CAP_SYS_ADMIN"])

    assert plain is not None and admin is not None
    assert [rule.names for rule in plain.syscalls] == [["read"], ["write"], ["clone"], ["ptrace"]]
    assert [rule.names for rule in admin.syscalls] == [["read"], ["write"], ["mount"], ["ptrace"]]
    assert plain.architectures == ALL_X86


def test_a_profile_that_says_one_thing_twice_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="use either 'name' or 'names'"):
        load_profile(b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name":"a","names":["b"],"action":"x"}]}', [])
    with pytest.raises(InvalidArgument, match="Decoding seccomp profile failed"):
        load_profile(b"{", [])


def test_a_profile_is_compiled_once() -> None:
    profile = profile_of(allow("getpid"))

    assert compile_profile(profile) is compile_profile(profile_of(allow("getpid")))
