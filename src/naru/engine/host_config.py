"""What may be asked of a container before anything is looked up: each field by itself, and those that contradict.

Everything that cannot work is refused here, when the container is created, not when it starts. Texts are Docker's
where it has one. Engine API, ContainerConfig and HostConfig.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from naru.api.container import ContainerConfig, HealthConfig
from naru.api.host import HostConfig, RestartPolicy
from naru.engine.limits import device_rule, rlimits
from naru.engine.log_config import check_log_config
from naru.engine.namespaces import parse_port
from naru.engine.security import SecurityOptions, apparmor_profile, seccomp_of
from naru.engine.signals import parse_signal
from naru.engine.tmpfs import check_tmpfs
from naru.errors import InvalidArgument
from naru.logs.option_values import size_bytes
from naru.network.hosts import parse_extra_hosts
from naru.network.ipam import parse_address
from naru.runtime.capability import resolve as resolve_capabilities
from naru.runtime.rootfs import check_sysctl

_RESTART_POLICIES = ("no", "always", "on-failure", "unless-stopped")
_LEAST_HEALTH_NS = 1_000_000
_NAME_MOST = 64  # __NEW_UTS_LEN
_MODES = {
    "PID": ("pid_mode", ("", "host"), True),
    "IPC": ("ipc_mode", ("", "none", "private", "shareable", "host"), True),
    "UTS": ("uts_mode", ("", "host"), False),
    "cgroup namespace": ("cgroupns_mode", ("", "private", "host"), False),
    "user namespace": ("userns_mode", ("", "host"), False),
}
_MAC = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}\Z", re.IGNORECASE)
_ACCESS = re.compile(r"[rwm]{1,3}\Z")


def check_config(config: ContainerConfig) -> None:
    """Refuse what no container can have. InvalidArgument: what, and why."""
    cwd = config.working_dir
    if cwd and not cwd.startswith("/"):
        raise InvalidArgument(f"the working directory '{cwd}' is invalid, it needs to be an absolute path")
    if config.stop_signal:
        parse_signal(config.stop_signal)
    for text in [*(config.env or []), *(config.cmd or []), *(config.entrypoint or []), cwd]:
        if "\0" in text:
            raise InvalidArgument("invalid argument: NUL in the command, the environment or the working directory")
    for entry in config.env or []:
        if not entry or entry.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {entry}")
    for name in (config.hostname, config.domainname):
        if any(character.isspace() or not character.isprintable() for character in name):
            raise InvalidArgument(f"invalid hostname: {name!r}")
        if len(name.encode()) > _NAME_MOST:
            raise InvalidArgument(f"invalid hostname: {name}: Linux takes at most {_NAME_MOST} bytes")
    for port in config.exposed_ports or {}:
        parse_port(port)
    if config.healthcheck is not None:
        _check_health(config.healthcheck)


def _check_health(check: HealthConfig) -> None:
    for name in ("interval", "timeout", "start_period", "start_interval"):
        value: int = getattr(check, name)
        if value and value < _LEAST_HEALTH_NS:
            words = name.replace("_", " ").capitalize()
            raise InvalidArgument(f"{words} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    if check.test and check.test[0] not in ("", "NONE", "CMD", "CMD-SHELL"):
        raise InvalidArgument(f'unknown type "{check.test[0]}" in Healthcheck: it is NONE, CMD or CMD-SHELL')


def check_host_config(host: HostConfig) -> list[str]:
    """Return warnings about what means nothing in `host`. InvalidArgument: what cannot be right.

    Resources are not looked at here; `resources.check_resources` does.
    """
    check_restart_policy(host.restart_policy, auto_remove=host.auto_remove)
    _check_modes(host)
    _check_names(host)
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for key in host.annotations or {}:
        if not key:
            raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    for path in [*(host.masked_paths or []), *(host.readonly_paths or [])]:
        if not path.startswith("/"):
            raise InvalidArgument(f"invalid masked or read-only path: '{path}' is not absolute")
    for destination, options in (host.tmpfs or {}).items():
        check_tmpfs(destination, options)
    _check_network_files(host)
    _check_security(host)
    _check_devices(host)
    storage_size(host)
    check_log_config(host.log_config)
    rlimits(host)
    warnings = []
    if host.network_mode == "host" and host.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    return warnings


def check_restart_policy(policy: RestartPolicy, *, auto_remove: bool) -> None:
    """Refuse a policy that is none, or one beside `--rm`. InvalidArgument in Docker's words."""
    if policy.name and policy.name not in _RESTART_POLICIES:
        known = ", ".join(f"'{name}'" for name in _RESTART_POLICIES[:-1])
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of {known}, or '{_RESTART_POLICIES[-1]}'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        negative = " and cannot be negative" if policy.maximum_retry_count < 0 else ""
        raise InvalidArgument(
            f"invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_modes(host: HostConfig) -> None:
    for kind, (attribute, plain, joins) in _MODES.items():
        mode: str = getattr(host, attribute)
        if mode not in plain and not (joins and mode.startswith("container:") and mode != "container:"):
            raise InvalidArgument(f"invalid {kind} mode: {mode}")
    if host.network_mode == "container:":
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    if host.cgroup:
        raise InvalidArgument(f"invalid cgroup mode: {host.cgroup}")


def _check_names(host: HostConfig) -> None:
    if host.runtime not in ("", "naru"):
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation: \"{host.isolation}\" - linux only supports 'default'")
    if host.volume_driver not in ("", "local"):
        raise InvalidArgument(
            f'error looking up volume plugin {host.volume_driver}: plugin "{host.volume_driver}" not found'
        )


def _check_network_files(host: HostConfig) -> None:
    parse_extra_hosts(host.extra_hosts or [], host_gateway="192.0.2.1")  # which it is, is known at the start
    for server in host.dns or []:
        try:
            parse_address(server)
        except InvalidArgument:
            raise InvalidArgument(f"invalid IP address in dns: {server}") from None


def _check_security(host: HostConfig) -> None:
    security = SecurityOptions(host.security_opt or [])
    capabilities = resolve_capabilities(host.cap_add or [], host.cap_drop or [], privileged=host.privileged)
    seccomp_of(security, host.privileged, capabilities)
    apparmor_profile(security)
    own = {"network"} if host.network_mode != "host" else set()
    own |= {"ipc"} if host.ipc_mode != "host" else set()
    own |= {"uts"} if host.uts_mode != "host" else set()
    for name in host.sysctls or {}:
        check_sysctl(name, frozenset(own))


def storage_size(host: HostConfig) -> int:
    """Return the bytes that `--storage-opt size=` lets a container's layer hold, 0: any. InvalidArgument: no size."""
    size = 0
    for name, value in (host.storage_opt or {}).items():
        if name.lower() != "size":
            raise InvalidArgument(f"Unknown option {name}")
        size = size_bytes(value)
        if size <= 0:
            raise InvalidArgument(f"invalid size: '{value}'")
    return size


def _check_devices(host: HostConfig) -> None:
    for entry in host.devices or []:
        if entry.cgroup_permissions and not _ACCESS.match(entry.cgroup_permissions):
            raise InvalidArgument(f"bad mode specified: {entry.cgroup_permissions}")
        if entry.path_in_container and not entry.path_in_container.startswith("/"):
            raise InvalidArgument(f"invalid device path in the container: '{entry.path_in_container}' is not absolute")
    for rule in host.device_cgroup_rules or []:
        device_rule(rule)


def check_conflicts(config: ContainerConfig, host: HostConfig, mac_addresses: Sequence[str]) -> None:
    """Refuse what contradicts the network or the UTS namespace that is shared. InvalidArgument in Docker's words."""
    for address in filter(None, mac_addresses):
        if not _MAC.match(address):
            raise InvalidArgument(f"invalid MAC address: {address}")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    mode = host.network_mode
    if mode == "host" and host.links:
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )
    if (mode == "host" or mode.startswith("container:")) and any(mac_addresses):
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    if not mode.startswith("container:"):
        return
    for has, what in (
        (config.hostname, "hostname and the network mode"),
        (host.links, "container type network can't be used with links. This would result in undefined behavior"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            host.publish_all_ports or any((host.port_bindings or {}).values()),
            "port publishing and the container type network mode",
        ),
        (config.exposed_ports, "port exposing and the container type network mode"),
    ):
        if has:
            raise InvalidArgument(f"conflicting options: {what}")
