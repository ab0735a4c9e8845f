"""From a container's record to its runtime spec. Pure: nothing is looked up on the host but what is handed in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from naru.api.container import MountPoint
from naru.api.host import HostConfig, ThrottleDevice
from naru.engine.container import Container
from naru.errors import InvalidArgument
from naru.oci import runtime as oci
from naru.runtime.capability import resolve as resolve_capabilities
from naru.runtime.seccomp_default import default_profile
from naru.runtime.seccomp_profile import load_profile
from naru.task.spec import DEFAULT_PATH, DEFAULT_SHM_BYTES, base_spec

_ULIMITS = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
_DEVICE_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})\Z")


class SecurityOptions:
    """`--security-opt` taken apart. InvalidArgument: an option or value Docker does not know."""

    def __init__(self, options: Sequence[str]) -> None:
        self.no_new_privileges = False
        self.seccomp = ""
        self.apparmor = ""
        self.unmasked = False
        for option in options:
            name, separator, value = option.partition("=")
            if not separator:
                name, separator, value = option.partition(":")
            match name:
                case "no-new-privileges":
                    self.no_new_privileges = value in ("", "true")
                case "seccomp":
                    self.seccomp = value
                case "apparmor":
                    self.apparmor = value
                case "systempaths":
                    if value != "unconfined":
                        raise InvalidArgument(f'invalid --security-opt: "{option}"')
                    self.unmasked = True
                case "label":
                    pass  # SELinux labels have no meaning on a kernel without SELinux, as in Docker
                case _:
                    raise InvalidArgument(f'invalid --security-opt 2: "{option}"')


def runtime_spec(
    container: Container,
    *,
    hostname: str,
    files: Sequence[oci.Mount],
    share: Mapping[str, str],
    device: Callable[[str], oci.Device],
    host_devices: Sequence[oci.Device] = (),
) -> oci.Spec:
    """Return the spec that runs `container`.

    `files` are the engine's own binds (hosts, hostname, resolv.conf); `share` the namespaces it does not make of its
    own; `device` looks up a host device node by path; `host_devices` are
    what a privileged container gets. InvalidArgument: the request cannot be expressed.
    """
    host, config = container.host_config, container.config
    security = SecurityOptions(host.security_opt or [])
    capabilities = resolve_capabilities(host.cap_add or [], host.cap_drop or [], privileged=host.privileged)
    masked = [] if security.unmasked else host.masked_paths
    readonly = [] if security.unmasked else host.readonly_paths
    devices = [_renamed(device(entry.path_on_host), entry.path_in_container) for entry in host.devices or []]
    resources = limits(host, device)
    resources.devices += [
        oci.DeviceRule(
            allow=True, type=node.type, major=node.major, minor=node.minor, access=entry.cgroup_permissions or "rwm"
        )
        for node, entry in zip(devices, host.devices or [], strict=True)
    ]
    resources.devices += [_device_rule(rule) for rule in host.device_cgroup_rules or []]
    spec = base_spec(
        process=process(container, hostname=hostname, security=security),
        hostname=hostname,
        domainname=config.domainname,
        cgroups_path=f"{host.cgroup_parent or '/naru'}/{container.id}",
        capabilities=capabilities,
        seccomp=_seccomp(security, host.privileged, capabilities),
        privileged=host.privileged,
        resources=resources,
        shm_size_bytes=host.shm_size or DEFAULT_SHM_BYTES,
        read_only=host.readonly_rootfs,
        share=share,
        mounts=[*files, *(_mount(point) for point in container.mounts), *_tmpfs(host)],
        devices=[*host_devices, *devices],
        sysctls=_sysctls(host, share),
        masked_paths=masked,
        readonly_paths=readonly,
    )
    spec.annotations = dict(host.annotations or {})
    return spec


def process(container: Container, *, hostname: str, security: SecurityOptions) -> oci.Process:
    """Return the container's main process: entrypoint and command, environment, user, limits."""
    host, config = container.host_config, container.config
    args = [*(config.entrypoint or []), *(config.cmd or [])]
    height, width = host.console_size
    return oci.Process(
        terminal=config.tty,
        console_size=oci.Box(height=height, width=width) if height and width else None,
        user=oci.User(username=config.user or "0", additional_groups=list(host.group_add or [])),
        args=args,
        env=environment(config.env or [], hostname=hostname, has_tty=config.tty),
        cwd=config.working_dir or "/",
        rlimits=rlimits(host),
        no_new_privileges=security.no_new_privileges,
        apparmor_profile=security.apparmor if security.apparmor != "unconfined" else "",
        oom_score_adj=host.oom_score_adj or None,
    )


def environment(asked: Sequence[str], *, hostname: str, has_tty: bool) -> list[str]:
    """Return a container's environment as Docker orders it: defaults first, asked values replace them.

    A name without `=` is a variable that the client asked to be absent.
    """
    defaults = [DEFAULT_PATH, f"HOSTNAME={hostname}"] + (["TERM=xterm"] if has_tty else [])
    values: dict[str, str] = {}
    for entry in [*defaults, *asked]:
        name, separator, value = entry.partition("=")
        if separator:
            values[name] = value
        else:
            values.pop(name, None)
    return [f"{name}={value}" for name, value in values.items()]


def rlimits(host: HostConfig) -> list[oci.Rlimit]:
    """Return `--ulimit` as POSIX limits. InvalidArgument: an unknown name, or soft above hard."""
    found = []
    for limit in host.ulimits or []:
        if limit.name not in _ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {limit.name}")
        hard, soft = (value if value >= 0 else (1 << 64) - 1 for value in (limit.hard, limit.soft))
        found.append(oci.Rlimit(type=f"RLIMIT_{limit.name.upper()}", hard=hard, soft=soft))
    return found


def limits(host: HostConfig, device: Callable[[str], oci.Device]) -> oci.Resources:
    """Return the cgroup limits that `host` asks for; what it does not mention stays unset."""
    quota, period = host.cpu_quota or None, host.cpu_period or None
    if host.nano_cpus:
        period = 100_000
        quota = host.nano_cpus * period // 1_000_000_000
    swap = host.memory_swap or (2 * host.memory if host.memory else 0)
    memory = oci.Memory(
        limit=host.memory or None,
        reservation=host.memory_reservation or None,
        swap=swap or None,
        swappiness=host.memory_swappiness if host.memory_swappiness != -1 else None,
        disable_oom_killer=host.oom_kill_disable or None,
    )
    cpu = oci.CPU(
        shares=host.cpu_shares or None,
        quota=quota,
        period=period,
        realtime_runtime=host.cpu_realtime_runtime or None,
        realtime_period=host.cpu_realtime_period or None,
        cpus=host.cpuset_cpus,
        mems=host.cpuset_mems,
    )

    def throttles(asked: Sequence[ThrottleDevice] | None) -> list[oci.ThrottleDevice]:
        nodes = [(device(entry.path), entry.rate) for entry in asked or []]
        return [oci.ThrottleDevice(major=node.major, minor=node.minor, rate=rate) for node, rate in nodes]

    weights = [(device(entry.path), entry.weight) for entry in host.blkio_weight_device or []]
    block = oci.BlockIO(
        weight=host.blkio_weight or None,
        weight_device=[oci.WeightDevice(major=node.major, minor=node.minor, weight=value) for node, value in weights],
        throttle_read_bps_device=throttles(host.blkio_device_read_bps),
        throttle_write_bps_device=throttles(host.blkio_device_write_bps),
        throttle_read_iops_device=throttles(host.blkio_device_read_iops),
        throttle_write_iops_device=throttles(host.blkio_device_write_iops),
    )
    pids = oci.Pids(limit=host.pids_limit) if host.pids_limit else None
    return oci.Resources(
        memory=memory if memory != oci.Memory() else None,
        cpu=cpu if cpu != oci.CPU() else None,
        block_io=block if block != oci.BlockIO() else None,
        pids=pids,
    )


def _seccomp(security: SecurityOptions, privileged: bool, capabilities: Sequence[str]) -> oci.Seccomp | None:
    if security.seccomp == "unconfined" or (privileged and not security.seccomp):
        return None
    if security.seccomp and security.seccomp not in ("builtin", "default"):
        return load_profile(security.seccomp.encode(), capabilities)  # clients send the file's content
    return default_profile(capabilities)


def _mount(point: MountPoint) -> oci.Mount:
    if point.type == "tmpfs":
        return oci.Mount(destination=point.destination, type="tmpfs", source="tmpfs", options=point.mode.split(","))
    options = ["rbind", point.propagation or "rprivate", "rw" if point.rw else "ro"]
    return oci.Mount(destination=point.destination, type="bind", source=point.source, options=options)


def _tmpfs(host: HostConfig) -> list[oci.Mount]:
    """`--tmpfs /run:size=1m`: noexec, nosuid and nodev unless the options say otherwise, as Docker has it."""
    mounts = []
    for destination, text in (host.tmpfs or {}).items():
        options = ["noexec", "nosuid", "nodev"]
        for option in filter(None, text.split(",")):
            opposite = option.removeprefix("no") if option.startswith("no") else "no" + option
            options = [kept for kept in options if kept not in (option, opposite)]
            if option not in ("exec", "suid", "dev"):
                options.append(option)
        mounts.append(oci.Mount(destination=destination, type="tmpfs", source="tmpfs", options=options))
    return mounts


def _sysctls(host: HostConfig, share: Mapping[str, str]) -> dict[str, str]:
    """What was asked, and Docker's two: unprivileged ports and ping work in a network namespace of one's own."""
    defaults = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    if "network" in share or host.userns_mode == "host" or host.privileged:
        defaults = {}
    return {**defaults, **(host.sysctls or {})}


def _renamed(node: oci.Device, path: str) -> oci.Device:
    return oci.Device(
        type=node.type,
        path=path or node.path,
        major=node.major,
        minor=node.minor,
        file_mode=node.file_mode,
        uid=node.uid,
        gid=node.gid,
    )


def _device_rule(rule: str) -> oci.DeviceRule:
    parts = _DEVICE_RULE.match(rule)
    if parts is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{rule}'")
    kind, major, minor, access = parts.groups()
    numbers = [None if number == "*" else int(number) for number in (major, minor)]
    return oci.DeviceRule(allow=True, type=kind, major=numbers[0], minor=numbers[1], access=access)
