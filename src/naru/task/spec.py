"""The runtime spec that every container of this engine starts from: Docker's mounts, devices and hidden paths.

Pure: values in, a `Spec` out. What a request asks for on top (volumes, limits, privileges) comes in as arguments;
the engine and the builder decide it, this module only knows what a Docker container looks like by default.
OCI runtime-spec, config-linux.md; moby's default spec (observed with `docker run … cat /proc/mounts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from naru.oci.runtime import (
    Capabilities,
    Device,
    DeviceRule,
    Linux,
    Mount,
    Namespace,
    Process,
    Resources,
    Root,
    Seccomp,
    Spec,
)

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_BYTES = 64 << 20

MASKED_PATHS = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

# (major, minor): null, zero, full, random, urandom, tty, console, ptmx, and every pts.
_DEFAULT_DEVICE_NUMBERS: list[tuple[int, int | None]] = [
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 1),
    (5, 2),
    (136, None),
]
_NAMESPACES = ("mount", "pid", "ipc", "uts", "network", "cgroup")


def base_spec(
    *,
    process: Process,
    hostname: str,
    cgroups_path: str,
    capabilities: Sequence[str],
    seccomp: Seccomp | None,
    domainname: str = "",
    privileged: bool = False,
    resources: Resources | None = None,
    shm_size_bytes: int | None = DEFAULT_SHM_BYTES,
    read_only: bool = False,
    share: Mapping[str, str] | None = None,
    mounts: Sequence[Mount] = (),
    devices: Sequence[Device] = (),
    sysctls: Mapping[str, str] | None = None,
    masked_paths: Sequence[str] | None = None,
    readonly_paths: Sequence[str] | None = None,
    rootfs_propagation: str = "",
    writable_cgroups: bool = False,
) -> Spec:
    """Return the spec of a container that runs `process` the way Docker runs it.

    `share` maps a namespace type to "host" (do not make one) or to a `/proc/N/ns/…` path to join; the network
    namespace is listed without a path when the caller hands the runtime an open one. `capabilities` is the whole
    set the process gets (bounding, effective and permitted). A mount in `mounts` replaces a default one with the
    same destination. `shm_size_bytes` None: no /dev/shm; with another's IPC namespace it is the other's.
    """
    share = share or {}
    names = list(capabilities)
    process.capabilities = Capabilities(bounding=names, effective=names, permitted=names)
    limits = resources or Resources()
    limits.devices = _device_rules(privileged) + limits.devices
    host_uts = share.get("uts") == "host"
    return Spec(
        hostname="" if host_uts else hostname,
        domainname="" if host_uts else domainname,
        process=process,
        root=Root(path="rootfs", readonly=read_only),
        mounts=_merge_mounts(
            _default_mounts(privileged, shm_size_bytes, share, privileged or writable_cgroups), mounts
        ),
        linux=Linux(
            namespaces=_namespaces(share),
            cgroups_path=cgroups_path,
            resources=limits,
            devices=list(devices),
            seccomp=seccomp,
            sysctl=dict(sysctls or {}),
            masked_paths=_hidden(masked_paths, MASKED_PATHS, privileged),
            readonly_paths=_hidden(readonly_paths, READONLY_PATHS, privileged),
            rootfs_propagation=rootfs_propagation,
        ),
    )


def _hidden(asked: Sequence[str] | None, default: list[str], privileged: bool) -> list[str]:
    if asked is not None:
        return list(asked)
    return [] if privileged else list(default)


def _namespaces(share: Mapping[str, str]) -> list[Namespace]:
    kinds = [(kind, share.get(kind, "")) for kind in _NAMESPACES]
    return [Namespace(type=kind, path=path) for kind, path in kinds if path != "host"]


def _device_rules(privileged: bool) -> list[DeviceRule]:
    if privileged:
        return [DeviceRule(allow=True, type="a", access="rwm")]
    return [
        DeviceRule(allow=False, type="a", access="rwm"),
        DeviceRule(allow=True, type="c", access="m"),
        DeviceRule(allow=True, type="b", access="m"),
        *(DeviceRule(allow=True, type="c", major=major, minor=minor) for major, minor in _DEFAULT_DEVICE_NUMBERS),
    ]


def _default_mounts(
    privileged: bool, shm_size_bytes: int | None, share: Mapping[str, str], writable_cgroups: bool
) -> list[Mount]:
    plain = ["nosuid", "noexec", "nodev"]
    mqueue = Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=plain)
    proc = Mount(destination="/proc", type="proc", source="proc", options=plain)
    return [
        proc,
        Mount(
            destination="/dev",
            type="tmpfs",
            source="tmpfs",
            options=["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        Mount(
            destination="/dev/pts",
            type="devpts",
            source="devpts",
            options=["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        Mount(destination="/sys", type="sysfs", source="sysfs", options=[*plain, _access(privileged)]),
        Mount(
            destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=[*plain, _access(writable_cgroups)]
        ),
        mqueue,
        *_shm(shm_size_bytes, share.get("ipc", ""), plain),
    ]


def _access(writable: bool) -> str:
    return "rw" if writable else "ro"


def _shm(size_bytes: int | None, ipc: str, plain: list[str]) -> list[Mount]:
    """/dev/shm goes with the IPC namespace: the host's, another container's, one's own, or none at all."""
    if ipc == "host":
        return [Mount(destination="/dev/shm", type="bind", source="/dev/shm", options=["rbind", *plain])]
    if ipc:
        source = f"{ipc.removesuffix('/ns/ipc')}/root/dev/shm"
        return [Mount(destination="/dev/shm", type="bind", source=source, options=["bind", *plain])]
    if size_bytes is None:
        return []
    options = [*plain, "mode=1777", f"size={size_bytes}"]
    return [Mount(destination="/dev/shm", type="tmpfs", source="shm", options=options)]


def _merge_mounts(defaults: list[Mount], asked: Sequence[Mount]) -> list[Mount]:
    """Defaults first, asked ones after, shallower destinations before deeper so that none hides another."""
    replaced = {mount.destination.rstrip("/") or "/" for mount in asked}
    kept = [mount for mount in defaults if mount.destination not in replaced]
    return kept + sorted(asked, key=lambda mount: mount.destination.rstrip("/").count("/"))
