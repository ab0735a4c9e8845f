"""The OCI runtime tools' validation programs judge `naru-runtime` beside runc, on the same host in the same run.

The programs are from 2019: some contradict today's specification or have faults of their own, and some want what
this host's kernel lacks. So the measure is runc: what it passes here, `naru-runtime` has to pass.

NARU_CONFORMANCE=full adds the programs that take long, most of them waiting. `python tests/conformance/table.py`
prints the three-way table with crun that is in README.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tap_programs
from peers import in_full_run, naru_program, peer_program, require

pytestmark = [pytest.mark.peer, pytest.mark.root]

QUICK = (
    "config_updates_without_affect create default hooks_stdin kill_no_effect linux_cgroups_relative_cpus "
    "linux_cgroups_relative_devices linux_cgroups_relative_pids linux_devices linux_ns_itype "
    "linux_ns_nopath linux_seccomp linux_sysctl linux_uid_mappings misc_props mounts poststart "
    "poststop prestart prestart_fail process process_capabilities_fail process_rlimits process_user "
    "root_readonly_true start state"
).split()
LONG = (
    "delete delete_only_create_resources delete_resources hooks hostname kill killsig linux_cgroups_blkio "
    "linux_cgroups_cpus linux_cgroups_devices linux_cgroups_hugetlb linux_cgroups_memory linux_cgroups_network "
    "linux_cgroups_pids linux_cgroups_relative_blkio linux_cgroups_relative_hugetlb linux_cgroups_relative_memory "
    "linux_cgroups_relative_network linux_masked_paths linux_mount_label linux_ns_path linux_ns_path_type "
    "linux_process_apparmor_profile linux_readonly_paths linux_rootfs_propagation pidfile poststart_fail poststop_fail "
    "process_capabilities process_oom_score_adj process_rlimits_fail"
).split()


@pytest.fixture(scope="module")
def programs() -> Path:
    require("runc", "unshare")
    return tap_programs.build()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory that users of a user namespace can reach too, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="naru-conformance-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.mark.parametrize("program", [*QUICK, *(pytest.param(name, marks=in_full_run) for name in LONG)])
def test_what_runc_passes_is_passed(program: str, programs: Path, scratch: Path) -> None:
    ours = naru_program(scratch, root=scratch / "naru-state")
    theirs = peer_program(scratch, "runc", root=scratch / "runc-state")

    expected = tap_programs.judge(program, theirs, programs, scratch)
    if not expected.passed:
        pytest.skip("runc passes nothing of it on this host")
    found = tap_programs.judge(program, ours, programs, scratch)

    assert found.lacks(expected) == {}, found.output
