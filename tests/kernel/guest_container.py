"""A container under cgroup version 2. Run inside the guest of test_cgroup_v2_guest, where /bin is busybox."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from naru.oci.runtime import CPU, Linux, Memory, Mount, Namespace, Pids, Process, Resources, Root, Spec
from naru.runtime.create import create
from naru.runtime.stdio import Stdio


def test_a_container_is_born_in_its_cgroup_and_sees_only_that(tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    for directory in ("bin", "proc", "sys", "dev", "tmp", "etc"):
        (rootfs / directory).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    script = "cd /sys/fs/cgroup; for f in memory.max pids.max cpu.max; do busybox cat $f; done"
    spec = Spec(
        process=Process(
            args=["/bin/busybox", "sh", "-c", f"busybox cat /proc/self/cgroup; {script}"], env=["PATH=/bin"]
        ),
        root=Root(path=str(rootfs)),
        mounts=[
            Mount(destination="/proc", type="proc", source="proc"),
            Mount(destination="/dev", type="tmpfs", source="tmpfs"),
            Mount(destination="/sys", type="sysfs", source="sysfs", options=["ro"]),
            Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=["ro"]),
        ],
        linux=Linux(
            namespaces=[Namespace(type=kind) for kind in ("mount", "pid", "ipc", "uts", "network", "cgroup")],
            cgroups_path="/naru/guest",
            resources=Resources(
                memory=Memory(limit=64 << 20), pids=Pids(limit=9), cpu=CPU(quota=50_000, period=100_000)
            ),
        ),
    )
    reader, writer = os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)

    created = create(
        spec, container_id="guest", bundle=str(tmp_path), stdio=Stdio(stdin=nothing, stdout=writer, stderr=writer)
    )
    created.start()
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read()
    _, status = os.waitpid(created.pid, 0)

    assert said.splitlines() == ["0::/", str(64 << 20), "9", "50000 100000"]
    assert os.waitstatus_to_exitcode(status) == 0
    created.cgroup.remove()
    assert not created.cgroup.exists
