"""Containers as the Engine API knows them. Engine API, Container."""

from __future__ import annotations

import msgspec

from naru.api.host import (
    BindOptions,
    DeviceMapping,
    DeviceRequest,
    HostConfig,
    ImageOptions,
    LogConfig,
    Mount,
    PortBinding,
    PortMap,
    Resources,
    RestartPolicy,
    ThrottleDevice,
    TmpfsOptions,
    Ulimit,
    VolumeDriverConfig,
    VolumeOptions,
    WeightDevice,
)
from naru.api.image import Descriptor, DriverData, HealthConfig
from naru.api.network import (
    EndpointIPAMConfig,
    EndpointSettings,
    NetworkingConfig,
    NetworkSettings,
)
from naru.api.wire import Wire, always, made

__all__ = [
    "AttachOptions",
    "BindOptions",
    "ContainerConfig",
    "ContainerCreateRequest",
    "ContainerCreateResponse",
    "ContainerInspect",
    "ContainerState",
    "ContainerSummary",
    "ContainerTop",
    "ContainerUpdateRequest",
    "ContainerUpdateResponse",
    "ContainerWaitError",
    "ContainerWaitResponse",
    "ContainersPruneReport",
    "DeviceMapping",
    "DeviceRequest",
    "EndpointIPAMConfig",
    "EndpointSettings",
    "FilesystemChange",
    "Health",
    "HealthConfig",
    "HealthcheckResult",
    "HostConfig",
    "ImageOptions",
    "LogConfig",
    "LogsOptions",
    "Mount",
    "MountPoint",
    "NetworkSettings",
    "NetworkingConfig",
    "PathStat",
    "PortBinding",
    "PortMap",
    "PortSummary",
    "Resources",
    "RestartPolicy",
    "SummaryHealth",
    "SummaryHostConfig",
    "SummaryNetworkSettings",
    "ThrottleDevice",
    "TmpfsOptions",
    "Ulimit",
    "VolumeDriverConfig",
    "VolumeOptions",
    "WeightDevice",
]


class ContainerConfig(Wire):
    """What runs in the container, host aside. None in a list or map: not given, the image's counts."""

    hostname: str = always("")
    domainname: str = always("")
    user: str = always("")
    attach_stdin: bool = always(False)
    attach_stdout: bool = always(False)
    attach_stderr: bool = always(False)
    exposed_ports: dict[str, dict[str, str]] | None = None
    tty: bool = always(False)
    open_stdin: bool = always(False)
    stdin_once: bool = always(False)
    env: list[str] | None = always(None)
    cmd: list[str] | None = always(None)
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = always("")
    volumes: dict[str, dict[str, str]] | None = always(None)
    working_dir: str = always("")
    entrypoint: list[str] | None = always(None)
    network_disabled: bool = False
    mac_address: str = ""
    """Deprecated since API 1.44; `server` moves it to the endpoint for older clients."""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = always({})
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class ContainerCreateRequest(ContainerConfig):
    host_config: HostConfig = made(HostConfig)
    networking_config: NetworkingConfig = made(NetworkingConfig)


class ContainerCreateResponse(Wire):
    id: str = always("")
    warnings: list[str] = always([])


class HealthcheckResult(Wire):
    start: str = always("")
    end: str = always("")
    exit_code: int = always(0)
    output: str = always("")


class Health(Wire):
    """`status` is none, starting, healthy or unhealthy; `log` holds the last five results, oldest first."""

    status: str = always("none")
    failing_streak: int = always(0)
    log: list[HealthcheckResult] | None = always([])


class ContainerState(Wire):
    status: str = always("created")
    running: bool = always(False)
    paused: bool = always(False)
    restarting: bool = always(False)
    oom_killed: bool = always(False)
    dead: bool = always(False)
    pid: int = always(0)
    exit_code: int = always(0)
    error: str = always("")
    started_at: str = always("0001-01-01T00:00:00Z")
    finished_at: str = always("0001-01-01T00:00:00Z")
    health: Health | None = None


class MountPoint(Wire):
    """A mount as it is in the container."""

    type: str = ""
    name: str = ""
    source: str = always("")
    destination: str = always("")
    driver: str = ""
    mode: str = always("")
    rw: bool = always(False)
    propagation: str = always("")


class ContainerInspect(Wire):
    id: str = always("")
    created: str = always("")
    path: str = always("")
    args: list[str] = always([])
    state: ContainerState = made(ContainerState)
    image: str = always("")
    resolv_conf_path: str = always("")
    hostname_path: str = always("")
    hosts_path: str = always("")
    log_path: str = always("")
    name: str = always("")
    """With its leading slash."""
    restart_count: int = always(0)
    driver: str = always("overlay2")
    platform: str = always("linux")
    mount_label: str = always("")
    process_label: str = always("")
    app_armor_profile: str = always("")
    exec_ids: list[str] | None = always(None)
    host_config: HostConfig = made(HostConfig)
    graph_driver: DriverData = made(DriverData)
    size_rw: int | None = None
    size_root_fs: int | None = None
    mounts: list[MountPoint] = always([])
    config: ContainerConfig = made(ContainerConfig)
    network_settings: NetworkSettings = made(NetworkSettings)
    image_manifest_descriptor: Descriptor | None = None


class PortSummary(Wire):
    ip: str = ""
    private_port: int = always(0)
    public_port: int = 0
    type: str = always("tcp")


class SummaryHostConfig(Wire):
    network_mode: str = ""
    annotations: dict[str, str] | None = None


class SummaryNetworkSettings(Wire):
    networks: dict[str, EndpointSettings] | None = always({})


class SummaryHealth(Wire):
    status: str = always("none")
    failing_streak: int = always(0)


class ContainerSummary(Wire):
    """A line of `docker ps`; `created` in seconds, `names` with their leading slash."""

    id: str = always("")
    names: list[str] = always([])
    image: str = always("")
    image_id: str = always("")
    command: str = always("")
    created: int = always(0)
    ports: list[PortSummary] = always([])
    size_rw: int | None = None
    size_root_fs: int | None = None
    labels: dict[str, str] | None = always({})
    state: str = always("")
    status: str = always("")
    host_config: SummaryHostConfig = made(SummaryHostConfig)
    network_settings: SummaryNetworkSettings | None = made(SummaryNetworkSettings)
    mounts: list[MountPoint] = always([])
    health: SummaryHealth | None = None
    image_manifest_descriptor: Descriptor | None = None


class ContainerUpdateRequest(Resources):
    """New limits; a zero or null leaves that one as it is."""

    restart_policy: RestartPolicy = made(RestartPolicy)


class ContainerUpdateResponse(Wire):
    warnings: list[str] | None = always(None)


class ContainerWaitError(Wire):
    message: str = always("")


class ContainerWaitResponse(Wire):
    status_code: int = always(0)
    error: ContainerWaitError | None = None


class ContainerTop(Wire):
    titles: list[str] = always([])
    processes: list[list[str]] = always([])


class FilesystemChange(Wire):
    """`kind` 0 modified, 1 added, 2 deleted."""

    kind: int = always(0)
    path: str = always("")


class PathStat(Wire):
    """The X-Docker-Container-Path-Stat header; `mode` in Go's os.FileMode bits, `mtime` RFC 3339."""

    name: str = always("", name="name")
    size: int = always(0, name="size")
    mode: int = always(0, name="mode")
    mtime: str = always("", name="mtime")
    link_target: str = always("", name="linkTarget")


class ContainersPruneReport(Wire):
    containers_deleted: list[str] | None = always(None)
    space_reclaimed: int = always(0)


class LogsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`since_ns` and `until_ns` since 1970; `tail` None for all lines."""

    follow: bool = False
    stdout: bool = False
    stderr: bool = False
    since_ns: int | None = None
    until_ns: int | None = None
    timestamps: bool = False
    tail: int | None = None
    details: bool = False


class AttachOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a client attaches. `detach_keys` None for the default (ctrl-p,ctrl-q); `logs` replays the log first.

    `prefix` is standard input the server already read from the connection it hands over.
    """

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = False
    logs: bool = False
    detach_keys: str | None = None
    multiplexed: bool = False
    prefix: bytes = b""
