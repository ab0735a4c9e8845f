"""The specification's limits in each cgroup version's words, and device rules reduced to a policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from naru.errors import InvalidArgument, Unsupported
from naru.kernel.cgroup import Hierarchy, hierarchies
from naru.oci.runtime import DeviceRule
from naru.runtime.cgroup import systemd_path
from naru.runtime.cgroup_values import cpu_weight, io_weight, swap_max, unlimited_as_none
from naru.runtime.device_filter import DEFAULT_RULES, policy

NOTHING = DeviceRule(allow=False)
EVERYTHING = DeviceRule(allow=True)


def character(allow: bool, major: int | None, minor: int | None, access: str = "rwm") -> DeviceRule:
    return DeviceRule(allow=allow, type="c", major=major, minor=minor, access=access)


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 1), (2, 1), (512, 59), (1024, 100), (2048, 174), (262144, 10000), (999999, 10000)]
)
def test_cpu_shares_become_a_weight_with_ends_and_default_kept(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


@pytest.mark.parametrize(("weight", "expected"), [(10, 1), (500, 4950), (1000, 10000)])
def test_block_io_weights_span_the_new_range(weight: int, expected: int) -> None:
    assert io_weight(weight) == expected


@pytest.mark.parametrize(
    ("both", "memory", "swap"), [(300, 100, "200"), (100, 100, "0"), (-1, 100, "max"), (-1, None, "max")]
)
def test_swap_alone_is_what_both_leave_over(both: int, memory: int | None, swap: str) -> None:
    assert swap_max(both, memory) == swap


@pytest.mark.parametrize(("both", "memory"), [(50, 100), (50, None), (50, -1)])
def test_a_swap_limit_without_room_for_memory_is_refused(both: int, memory: int | None) -> None:
    with pytest.raises(InvalidArgument):
        swap_max(both, memory)


def test_unlimited_reads_as_none_in_both_versions() -> None:
    assert [unlimited_as_none(text) for text in ("max\n", "9223372036854771712\n", "4096\n")] == [None, None, 4096]


def test_rules_come_down_to_a_default_and_exceptions() -> None:
    reduced = policy([NOTHING, character(True, 1, 3), character(True, 10, None, "r"), character(True, 1, 3, "w")])

    assert not reduced.allow_by_default
    assert reduced.lines() == ["c 1:3 rwm", "c 10:* r"]


def test_a_rule_for_every_device_forgets_earlier_ones() -> None:
    assert policy([character(True, 1, 3), EVERYTHING]).lines() == []
    assert policy([EVERYTHING, NOTHING, *DEFAULT_RULES]).lines()[:2] == ["c *:* m", "b *:* m"]


def test_a_denial_takes_back_what_it_covers() -> None:
    assert policy([character(True, 1, 3), character(False, 1, 3, "w")]).lines() == ["c 1:3 rm"]
    assert policy([character(True, 1, 3), character(False, 1, None)]).lines() == []


def test_a_denial_within_a_wider_permission_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"cannot take c 1:3 w out of c 1:\* rwm"):
        policy([character(True, 1, None), character(False, 1, 3, "w")])


@pytest.mark.parametrize(
    "rule", [DeviceRule(allow=True, type="p"), DeviceRule(allow=True, access="x"), DeviceRule(allow=True, major=1)]
)
def test_a_malformed_device_rule_is_refused(rule: DeviceRule) -> None:
    with pytest.raises(InvalidArgument, match="device rule"):
        policy([rule])


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("system.slice:docker:abc", "/system.slice/docker-abc.scope"),
        ("user-1000.slice:libpod:abc", "/user.slice/user-1000.slice/libpod-abc.scope"),
        (":crio:abc", "/system.slice/crio-abc.scope"),
        ("-.slice:x:abc", "/x-abc.scope"),
    ],
)
def test_systemds_notation_names_a_path(written: str, path: str) -> None:
    assert systemd_path(written) == path


def test_mounted_hierarchies_are_read_from_mountinfo(tmp_path: Path) -> None:
    lines = (
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "32 31 0:29 /docker/1 /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n"
        "34 31 0:31 / /mnt/with\\040space rw - cgroup2 cgroup2 rw,nsdelegate\n"
        "35 31 0:31 / /again rw - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(lines)

    assert hierarchies(str(mountinfo)) == [
        Hierarchy(1, ("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct", "/docker/1"),
        Hierarchy(1, ("name=systemd",), "/sys/fs/cgroup/systemd", "/"),
        Hierarchy(2, (), "/mnt/with space", "/"),
    ]
