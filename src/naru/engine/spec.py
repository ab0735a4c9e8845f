"""From a container's record to its runtime spec. Pure: nothing is looked up on the host but what is handed in."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence

from naru.api.host import HostConfig
from naru.engine.container import Container
from naru.engine.devices import Granted
from naru.engine.limits import device_rule, limits, rlimits
from naru.engine.mounts import spec_mounts
from naru.engine.security import SecurityOptions, apparmor_profile, seccomp_of
from naru.oci import runtime as oci
from naru.runtime.capability import resolve as resolve_capabilities
from naru.task.spec import DEFAULT_PATH, DEFAULT_SHM_BYTES, base_spec


def runtime_spec(
    container: Container,
    *,
    hostname: str,
    files: Sequence[oci.Mount],
    share: Mapping[str, str],
    device: Callable[[str], oci.Device],
    devices: Sequence[Granted] = (),
    host_devices: Sequence[oci.Device] = (),
    layers: Mapping[str, Sequence[str]] | None = None,
) -> oci.Spec:
    """Return the spec that runs `container`.

    `files` are the engine's own binds (hosts, hostname, resolv.conf); `share` the namespaces it does not make of its
    own; `device` looks up a host device node by path; `devices` were asked for, `host_devices` are what a privileged
    container gets; `layers` are the directories of image mounts. InvalidArgument: the request cannot be expressed.
    """
    host, config = container.host_config, container.config
    security = SecurityOptions(host.security_opt or [])
    capabilities = resolve_capabilities(host.cap_add or [], host.cap_drop or [], privileged=host.privileged)
    masked = [] if security.unmasked else host.masked_paths
    readonly = [] if security.unmasked else host.readonly_paths
    resources = limits(host, device)
    resources.devices += [allow(granted.node, granted.access) for granted in devices]
    resources.devices += [device_rule(rule) for rule in host.device_cgroup_rules or []]
    spec = base_spec(
        process=process(container, hostname=hostname, security=security),
        hostname=hostname,
        domainname=config.domainname,
        cgroups_path=cgroup_path(container),
        capabilities=capabilities,
        seccomp=seccomp_of(security, host.privileged, capabilities),
        privileged=host.privileged,
        resources=resources,
        shm_size_bytes=None if host.ipc_mode == "none" else host.shm_size or DEFAULT_SHM_BYTES,
        read_only=host.readonly_rootfs,
        share=share,
        mounts=[*files, *spec_mounts(container, layers or {})],
        devices=_without_repeats([*host_devices, *(granted.node for granted in devices)]),
        sysctls=_sysctls(host, share),
        masked_paths=masked,
        readonly_paths=readonly,
        writable_cgroups=security.writable_cgroups,
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
        apparmor_profile=apparmor_profile(security),
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


def _sysctls(host: HostConfig, share: Mapping[str, str]) -> dict[str, str]:
    """What was asked, and Docker's two: unprivileged ports and ping work in a network namespace of one's own."""
    defaults = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    if "network" in share or host.userns_mode == "host" or host.privileged:
        defaults = {}
    return {**defaults, **(host.sysctls or {})}


def allow(node: oci.Device, access: str) -> oci.DeviceRule:
    """Return the rule that lets a container use a device node."""
    return oci.DeviceRule(allow=True, type=node.type, major=node.major, minor=node.minor, access=access)


def cgroup_path(container: Container) -> str:
    """Return a container's cgroup, below the top of the hierarchies whatever `--cgroup-parent` is written like."""
    parent = posixpath.normpath("/" + (container.host_config.cgroup_parent or "naru").lstrip("/"))
    return posixpath.join(parent, container.id)


def _without_repeats(devices: Sequence[oci.Device]) -> list[oci.Device]:
    """One node at each path, the last asked for: a privileged container may be given again what it has."""
    return list({device.path: device for device in devices}.values())
