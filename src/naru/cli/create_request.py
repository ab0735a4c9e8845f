"""The flags of `run` and `create` to the request of ContainerCreate. Pure but for the files that flags name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from naru.cli import environment, mount_flags, ports, units
from naru.cli.flags import UsageError, Values
from naru.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_STREAMS = ("stdin", "stdout", "stderr")
_BUILT_IN_NETWORKS = ("", "default", "bridge", "host", "none")
_NAMESPACES = {
    "pid": ("PID", ("host",)),
    "uts": ("UTS", ("host",)),
    "userns": ("USER", ("host",)),
    "cgroupns": ("CGROUP", ("host", "private")),
}
_KERNEL_SETTINGS = {
    f"kernel.{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced domainname".split()
}
# API field: flag
_LIMITS = {
    "CpuPeriod": "cpu-period",
    "CpuQuota": "cpu-quota",
    "CpuRealtimePeriod": "cpu-rt-period",
    "CpuRealtimeRuntime": "cpu-rt-runtime",
    "CpuShares": "cpu-shares",
    "NanoCpus": "cpus",
    "BlkioWeight": "blkio-weight",
    "Memory": "memory",
    "MemoryReservation": "memory-reservation",
    "MemorySwap": "memory-swap",
    "KernelMemory": "kernel-memory",
    "PidsLimit": "pids-limit",
}
_TEXTS = {
    "CgroupParent": "cgroup-parent",
    "CgroupnsMode": "cgroupns",
    "CpusetCpus": "cpuset-cpus",
    "CpusetMems": "cpuset-mems",
    "IpcMode": "ipc",
    "PidMode": "pid",
    "Runtime": "runtime",
    "UTSMode": "uts",
    "UsernsMode": "userns",
    "VolumeDriver": "volume-driver",
    "ContainerIDFile": "cidfile",
    "Isolation": "isolation",
}
_LISTS = {
    "CapAdd": "cap-add",
    "CapDrop": "cap-drop",
    "Dns": "dns",
    "DnsSearch": "dns-search",
    "GroupAdd": "group-add",
    "VolumesFrom": "volumes-from",
    "Links": "link",
    "DeviceCgroupRules": "device-cgroup-rule",
}


def create_request(
    flags: Values,
    image: str,
    command: Sequence[str],
    mine: Mapping[str, str],
    proxies: Mapping[str, str] | None = None,
) -> Json:
    """Return the body of ContainerCreate. `mine`: our environment; `proxies`: variables that are set unless given.

    InvalidArgument: flags contradict each other.
    """
    detached = flags.given("detach") and flags.on("detach")
    attached = attached_streams(flags)
    is_open = flags.on("interactive")
    bindings = ports.publish(flags.many("publish"))
    binds, anonymous = mount_flags.volumes(flags.many("volume"))
    request: Json = {
        "Image": image,
        "Cmd": list(command) or None,
        "Hostname": flags.text("hostname"),
        "Domainname": flags.text("domainname"),
        "User": flags.text("user"),
        "Tty": flags.on("tty"),
        "OpenStdin": is_open,
        "StdinOnce": is_open and "stdin" in attached and not detached,
        "AttachStdin": "stdin" in attached and not detached,
        "AttachStdout": "stdout" in attached and not detached,
        "AttachStderr": "stderr" in attached and not detached,
        "Env": environment.variables(
            flags.many("env-file"), environment.with_proxies(flags.many("env"), proxies or {}), mine
        ),
        "Labels": environment.labels(flags.many("label-file"), flags.many("label")),
        "WorkingDir": flags.text("workdir"),
        "Volumes": {target: {} for target in anonymous},
        "ExposedPorts": {port: {} for port in [*bindings, *ports.expose(flags.many("expose"))]},
        "StopSignal": flags.text("stop-signal"),
    }
    if flags.given("entrypoint"):
        request["Entrypoint"] = [flags.text("entrypoint")]
    if flags.given("stop-timeout"):
        request["StopTimeout"] = flags.number("stop-timeout")
    if health := _health(flags):
        request["Healthcheck"] = health
    request["HostConfig"] = _host_config(flags, bindings, binds)
    mode, endpoints = _networks(flags)
    request["HostConfig"]["NetworkMode"] = mode or "default"
    request["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return request


def attached_streams(flags: Values) -> set[str]:
    """Return which of stdin, stdout and stderr the container is created attached to."""
    asked = {stream.lower() for stream in flags.many("attach")}
    if wrong := asked - set(_STREAMS):
        raise UsageError(
            f'invalid argument "{wrong.pop()}" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR'
        )
    if asked:
        return asked
    return {"stdin", "stdout", "stderr"} if flags.on("interactive") else {"stdout", "stderr"}


def limits(flags: Values) -> Json:
    """Return the resource limits that are given, for create and update."""
    found: Json = {field: flags.number(name) for field, name in _LIMITS.items() if flags.given(name)}
    for field in ("CpusetCpus", "CpusetMems"):
        if flags.given(_TEXTS[field]):
            found[field] = flags.text(_TEXTS[field])
    return found


def restart_policy(text: str) -> Json:
    """Return the API's policy for `on-failure:3`."""
    name, colon, count = text.partition(":")
    if count and not count.isdigit():
        raise InvalidArgument("invalid restart policy format: maximum retry count must be an integer")
    if colon and not name:
        raise InvalidArgument("invalid restart policy format: no policy provided before colon")
    return {"Name": name or "no", "MaximumRetryCount": int(count or 0)}


def _host_config(flags: Values, bindings: ports.Bindings, binds: list[str]) -> Json:
    _check_namespaces(flags)
    config: Json = limits(flags)
    config |= {field: flags.text(name) for field, name in _TEXTS.items() if flags.given(name)}
    config |= {field: flags.many(name) for field, name in _LISTS.items() if flags.given(name)}
    config |= {
        "AutoRemove": flags.on("rm"),
        "Binds": binds,
        "PortBindings": bindings,
        "PublishAllPorts": flags.on("publish-all"),
        "Privileged": flags.on("privileged"),
        "ReadonlyRootfs": flags.on("read-only"),
        "RestartPolicy": restart_policy(flags.text("restart")),
        "LogConfig": {"Type": flags.text("log-driver"), "Config": environment.pairs(flags.many("log-opt"))},
        "DnsOptions": [*flags.many("dns-option"), *flags.many("dns-opt")],
        "ExtraHosts": [_extra_host(one) for one in flags.many("add-host")],
        "OomScoreAdj": flags.number("oom-score-adj"),
        "ShmSize": flags.number("shm-size"),
    }
    if flags.on("rm") and config["RestartPolicy"]["Name"] not in ("", "no"):
        raise InvalidArgument("conflicting options: cannot specify both --restart and --rm")
    for field, name in (("Init", "init"), ("OomKillDisable", "oom-kill-disable")):
        if flags.given(name):
            config[field] = flags.on(name)
    if not -1 <= flags.number("memory-swappiness") <= 100:
        raise InvalidArgument(
            f"invalid value: {flags.number('memory-swappiness')}. Valid memory swappiness range is 0-100"
        )
    if flags.number("memory-swappiness") != -1:
        config["MemorySwappiness"] = flags.number("memory-swappiness")
    config |= _security(flags.many("security-opt"))
    optional: Json = {
        "Mounts": mount_flags.mounts(flags.many("mount")),
        "Tmpfs": mount_flags.tmpfs(flags.many("tmpfs")),
        "Sysctls": _sysctls(flags),
        "Annotations": flags.map("annotation"),
        "StorageOpt": environment.pairs(flags.many("storage-opt")),
        "Ulimits": [ulimit(one) for one in flags.many("ulimit")],
        "Devices": mount_flags.devices([one for one in flags.many("device") if not _is_cdi(one)]),
        "DeviceRequests": _device_requests(flags),
        "BlkioWeightDevice": [_device_rate(one, "Weight", int) for one in flags.many("blkio-weight-device")],
    }
    for field, name, read in (
        ("BlkioDeviceReadBps", "device-read-bps", units.parse_bytes),
        ("BlkioDeviceWriteBps", "device-write-bps", units.parse_bytes),
        ("BlkioDeviceReadIOps", "device-read-iops", int),
        ("BlkioDeviceWriteIOps", "device-write-iops", int),
    ):
        optional[field] = [_device_rate(one, "Rate", read) for one in flags.many(name)]
    return config | {field: value for field, value in optional.items() if value}


def _check_namespaces(flags: Values) -> None:
    """Raise InvalidArgument for a namespace's mode that no daemon knows."""
    for name, (kind, modes) in _NAMESPACES.items():
        mode = flags.text(name)
        if mode not in ("", *modes) and not (name == "pid" and mode.startswith("container:")):
            raise InvalidArgument(f"--{name}: invalid {kind} mode")


def _sysctls(flags: Values) -> dict[str, str]:
    for one in flags.many("sysctl"):
        name, equals, _ = one.partition("=")
        if not equals or not (name.startswith(("net.", "fs.mqueue.")) or name in _KERNEL_SETTINGS):
            raise UsageError(f'invalid argument "{one}" for "--sysctl" flag: sysctl \'{one}\' is not allowed')
    return flags.map("sysctl")


def _health(flags: Values) -> Json | None:
    names = ("health-cmd", "health-interval", "health-retries", "health-start-interval", "health-start-period",
             "health-timeout")  # fmt: skip
    given = [name for name in names if flags.given(name)]
    if flags.on("no-healthcheck"):
        if given:
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not given:
        return None
    for name in given:
        if name != "health-cmd" and flags.number(name) < 0:
            raise InvalidArgument(f"--{name} cannot be negative")
    return {
        "Test": ["CMD-SHELL", flags.text("health-cmd")] if flags.text("health-cmd") else None,
        "Interval": flags.number("health-interval"),
        "Timeout": flags.number("health-timeout"),
        "StartPeriod": flags.number("health-start-period"),
        "StartInterval": flags.number("health-start-interval"),
        "Retries": flags.number("health-retries"),
    }


def _networks(flags: Values) -> tuple[str, dict[str, Json]]:
    asked = [*flags.many("network"), *flags.many("net")] or ["default"]
    endpoints: dict[str, Json] = {}
    targets = []
    for index, text in enumerate(asked):
        target, endpoint = _network(text)
        if target in targets:
            raise InvalidArgument(f'network "{target}" is specified multiple times')
        targets.append(target)
        if index == 0:
            _apply_network_flags(flags, target, endpoint)
        if endpoint or len(asked) > 1:
            endpoints[target] = endpoint
    kinds = {target in _BUILT_IN_NETWORKS or target.startswith("container:") for target in targets}
    if len(kinds) > 1:
        raise InvalidArgument("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return targets[0], endpoints


def _network(text: str) -> tuple[str, Json]:
    """Read `NAME` or `name=NAME,alias=…,ip=…`."""
    if "=" not in text:
        return text, {}
    target = ""
    endpoint: Json = {}
    for field in text.split(","):
        key, _, value = field.partition("=")
        match key.strip().lower():
            case "name":
                target = value
            case "alias":
                endpoint.setdefault("Aliases", []).append(value)
            case "ip":
                endpoint.setdefault("IPAMConfig", {})["IPv4Address"] = value
            case "ip6":
                endpoint.setdefault("IPAMConfig", {})["IPv6Address"] = value
            case "link-local-ip":
                endpoint.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
            case "mac-address":
                endpoint["MacAddress"] = value
            case "gw-priority":
                endpoint["GwPriority"] = int(value)
            case "driver-opt":
                name, _, setting = value.partition("=")
                endpoint.setdefault("DriverOpts", {})[name] = setting
            case _:
                raise UsageError(f'invalid argument "{text}" for "--network" flag: invalid field key {key}')
    if not target:
        raise UsageError(f'invalid argument "{text}" for "--network" flag: network name/id is not specified')
    return target, endpoint


def _apply_network_flags(flags: Values, target: str, endpoint: Json) -> None:
    """Add --ip, --network-alias and the like to the first network's endpoint."""
    addresses: Json = {}
    if flags.given("ip"):
        addresses["IPv4Address"] = flags.text("ip")
    if flags.given("ip6"):
        addresses["IPv6Address"] = flags.text("ip6")
    if flags.given("link-local-ip"):
        addresses["LinkLocalIPs"] = flags.many("link-local-ip")
    if addresses:
        endpoint["IPAMConfig"] = {**endpoint.get("IPAMConfig", {}), **addresses}
    if aliases := [*flags.many("network-alias"), *flags.many("net-alias")]:
        endpoint["Aliases"] = [*endpoint.get("Aliases", []), *aliases]
    if flags.given("mac-address"):
        endpoint["MacAddress"] = flags.text("mac-address")
    if flags.given("link") and target not in _BUILT_IN_NETWORKS:
        endpoint["Links"] = flags.many("link")


def _security(options: Sequence[str]) -> Json:
    kept: list[str] = []
    config: Json = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            key, equals, value = option.partition(":")
        if key != "no-new-privileges" and not equals:
            raise InvalidArgument(f'Invalid --security-opt: "{option}"')
        if key == "systempaths":
            if value != "unconfined":
                raise InvalidArgument(f'invalid "systempaths" option: {value}')
            config |= {"MaskedPaths": [], "ReadonlyPaths": []}
        elif key == "seccomp" and value not in ("unconfined", "builtin"):
            kept.append(f"seccomp={_seccomp_profile(value)}")
        else:
            kept.append(option)
    return config | ({"SecurityOpt": kept} if kept else {})


def _seccomp_profile(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return json.dumps(json.load(file), separators=(",", ":"))
    except OSError as error:
        reason = f"open {path}: {(error.strerror or '').lower()}"
        raise InvalidArgument(f"opening seccomp profile ({path}) failed: {reason}") from error
    except ValueError as error:
        raise InvalidArgument(f"compacting json for seccomp profile ({path}) failed: {error}") from error


def ulimit(text: str) -> Json:
    name, equals, values = text.partition("=")
    soft, colon, hard = values.partition(":")
    try:
        low = int(soft)
        high = int(hard) if colon else low
    except ValueError:
        low = high = 0
        equals = ""
    if not equals:
        raise UsageError(f'invalid argument "{text}" for "--ulimit" flag: invalid ulimit argument: {text}')
    if high != -1 and low > high:
        raise UsageError(
            f'invalid argument "{text}" for "--ulimit" flag: '
            f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}"
        )
    return {"Name": name, "Soft": low, "Hard": high}


def _extra_host(text: str) -> str:
    host, separator, address = text.partition("=")
    if not separator:
        host, separator, address = text.partition(":")
    if not separator or not host or not address:
        raise UsageError(f'invalid argument "{text}" for "--add-host" flag: bad format for add-host: "{text}"')
    return f"{host}:{address}"


def _device_rate(text: str, field: str, read: Any) -> Json:
    path, colon, value = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise InvalidArgument(f"bad format for device path: {text}")
    try:
        return {"Path": path, field: read(value)}
    except ValueError:
        raise InvalidArgument(f"invalid rate for device: {text}") from None


def _is_cdi(device: str) -> bool:
    """True for a name of the Container Device Interface: `vendor.com/class=name`."""
    kind, equals, name = device.partition("=")
    return bool(equals and name) and "/" in kind.strip("/") and not device.startswith("/")


def _device_requests(flags: Values) -> list[Json]:
    requests: list[Json] = []
    cdi = [one for one in flags.many("device") if _is_cdi(one)]
    if cdi:
        requests.append({"Driver": "cdi", "DeviceIDs": cdi})
    if flags.given("gpus"):
        requests.append(_gpus(flags.text("gpus")))
    return requests


def _gpus(text: str) -> Json:
    request: Json = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", field
        match key:
            case "count":
                if value != "all" and not value.isdigit():
                    raise UsageError(f'invalid argument "{text}" for "--gpus" flag: count must be an integer')
                request["Count"] = -1 if value == "all" else int(value)
            case "device":
                request["DeviceIDs"] = value.split(",")
            case "driver":
                request["Driver"] = value
            case "capabilities":
                request["Capabilities"] = [[*value.split(","), "gpu"]]
            case _:
                raise UsageError(
                    f"invalid argument \"{text}\" for \"--gpus\" flag: unexpected key '{key}' in '{field}'"
                )
    return request
