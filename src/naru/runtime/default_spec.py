"""The config.json that `naru-runtime spec` writes: a shell with few privileges, to be edited."""

from __future__ import annotations

from naru.oci.runtime import Capabilities, DeviceRule, Linux, Mount, Namespace, Process, Resources, Rlimit, Root, Spec

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_PLAIN = ["nosuid", "noexec", "nodev"]
_MASKED = [
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"),
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def default_spec() -> Spec:
    """Return a spec that starts `sh` in the bundle's `rootfs`."""
    return Spec(
        hostname="naru",
        root=Root(path="rootfs", readonly=True),
        process=Process(
            terminal=True,
            args=["sh"],
            env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            capabilities=Capabilities(
                bounding=list(_CAPABILITIES), effective=list(_CAPABILITIES), permitted=list(_CAPABILITIES)
            ),
            rlimits=[Rlimit(type="RLIMIT_NOFILE", hard=1024, soft=1024)],
            no_new_privileges=True,
        ),
        mounts=[
            Mount("/proc", "proc", "proc"),
            Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            Mount(
                "/dev/pts",
                "devpts",
                "devpts",
                ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            Mount("/dev/shm", "tmpfs", "shm", [*_PLAIN, "mode=1777", "size=65536k"]),
            Mount("/dev/mqueue", "mqueue", "mqueue", list(_PLAIN)),
            Mount("/sys", "sysfs", "sysfs", [*_PLAIN, "ro"]),
            Mount("/sys/fs/cgroup", "cgroup", "cgroup", [*_PLAIN, "relatime", "ro"]),
        ],
        linux=Linux(
            resources=Resources(devices=[DeviceRule(allow=False)]),
            namespaces=[Namespace(type=kind) for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            masked_paths=list(_MASKED),
            readonly_paths=list(_READ_ONLY),
        ),
    )
