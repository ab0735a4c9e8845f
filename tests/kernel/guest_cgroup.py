"""What only cgroup version 2 has. Run inside the guest of test_cgroup_v2_guest, after the common suite."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from test_cgroup import exit_code, path, pause, spawn, until

from naru.kernel import bpf
from naru.kernel.cgroup import tree
from naru.oci.runtime import DeviceRule, Resources
from naru.runtime.cgroup import create_cgroup
from naru.runtime.cgroup_v2 import CgroupV2

__all__ = ["path"]


def test_a_newcomer_goes_where_init_is_if_the_container_made_cgroups_itself(path: str) -> None:
    cgroup = create_cgroup(path, Resources())
    assert isinstance(cgroup, CgroupV2)
    inner = create_cgroup(f"{path}/init.scope", Resources())
    init = spawn(inner, pause)
    until(lambda: inner.processes() == [init])
    # What systemd does in a container: after this the container's own cgroup takes no processes.
    Path(cgroup.directory, "cgroup.subtree_control").write_text("+memory")
    newcomer = os.fork()
    if newcomer == 0:
        pause()

    with pytest.raises(OSError, match="busy"):
        cgroup.join(newcomer)
    cgroup.join(newcomer, beside=init)

    assert sorted(inner.processes()) == sorted([init, newcomer])
    cgroup.kill_all()
    assert [exit_code(pid) for pid in (init, newcomer)] == [-signal.SIGKILL] * 2


def test_settings_are_passed_on_as_they_are_written(path: str) -> None:
    cgroup = create_cgroup(path, Resources(unified={"memory.high": "33554432", "cpu.weight": "7"}))
    assert isinstance(cgroup, CgroupV2)

    assert Path(cgroup.directory, "memory.high").read_text() == "33554432\n"
    assert Path(cgroup.directory, "cpu.weight").read_text() == "7\n"


def test_device_programs_do_not_pile_up(path: str) -> None:
    cgroup = create_cgroup(path, Resources())
    for _time in range(3):
        cgroup.update(Resources(devices=[DeviceRule(allow=True, type="a")]))

    descriptor = cgroup.directory_fd()
    assert descriptor is not None
    assert len(bpf.prog_query(descriptor, bpf.BPF_CGROUP_DEVICE)) == 1
    os.close(descriptor)


def test_descendants_come_before_their_ancestors(path: str) -> None:
    cgroup = create_cgroup(path, Resources())
    create_cgroup(f"{path}/a/b", Resources())
    assert isinstance(cgroup, CgroupV2)

    names = [directory.removeprefix(cgroup.directory) for directory in tree(cgroup.directory)]

    assert names == ["/a/b", "/a", ""]
