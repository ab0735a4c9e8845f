"""HostConfig: what a container asks of its host. Engine API, HostConfig and Resources."""

from __future__ import annotations

from naru.api.wire import Wire, always, made, named

PORT_PROTOCOLS = ("tcp", "udp", "sctp")


class PortBinding(Wire):
    host_ip: str = always("", name="HostIp")
    host_port: str = always("")


# "80/tcp" to its host bindings; null where the port is exposed but not published.
PortMap = dict[str, list[PortBinding] | None]


class LogConfig(Wire):
    type: str = always("")
    config: dict[str, str] | None = always({})


class RestartPolicy(Wire):
    """`name` is "", no, always, unless-stopped or on-failure."""

    name: str = always("")
    maximum_retry_count: int = always(0)


class WeightDevice(Wire):
    path: str = always("")
    weight: int = always(0)


class ThrottleDevice(Wire):
    path: str = always("")
    rate: int = always(0)


class DeviceMapping(Wire):
    path_on_host: str = always("")
    path_in_container: str = always("")
    cgroup_permissions: str = always("")


class DeviceRequest(Wire):
    driver: str = always("")
    count: int = always(0)
    device_ids: list[str] | None = always(None)
    capabilities: list[list[str]] | None = always(None)
    options: dict[str, str] | None = always(None)


class Ulimit(Wire):
    name: str = always("")
    hard: int = always(0)
    soft: int = always(0)


class BindOptions(Wire):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeDriverConfig(Wire):
    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(Wire):
    no_copy: bool = False
    labels: dict[str, str] | None = None
    subpath: str = ""
    driver_config: VolumeDriverConfig | None = None


class ImageOptions(Wire):
    subpath: str = ""


class TmpfsOptions(Wire):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class Mount(Wire):
    """A mount asked for (`--mount`); `type` is bind, volume, tmpfs, image, npipe or cluster."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class Resources(Wire):
    """Limits of a container; 0, "" and None mean "no limit given". Sizes in bytes, cpu times in microseconds."""

    cpu_shares: int = always(0)
    memory: int = always(0)
    nano_cpus: int = always(0)
    cgroup_parent: str = always("")
    blkio_weight: int = always(0)
    blkio_weight_device: list[WeightDevice] | None = always(None)
    blkio_device_read_bps: list[ThrottleDevice] | None = always(None)
    blkio_device_write_bps: list[ThrottleDevice] | None = always(None)
    blkio_device_read_iops: list[ThrottleDevice] | None = always(None)
    blkio_device_write_iops: list[ThrottleDevice] | None = always(None)
    cpu_period: int = always(0)
    cpu_quota: int = always(0)
    cpu_realtime_period: int = always(0)
    cpu_realtime_runtime: int = always(0)
    cpuset_cpus: str = always("")
    cpuset_mems: str = always("")
    devices: list[DeviceMapping] | None = always(None)
    device_cgroup_rules: list[str] | None = always(None)
    device_requests: list[DeviceRequest] | None = always(None)
    kernel_memory: int = 0
    kernel_memory_tcp: int = named(0, "KernelMemoryTCP")
    memory_reservation: int = always(0)
    memory_swap: int = always(0)
    memory_swappiness: int | None = always(None)
    oom_kill_disable: bool | None = always(None)
    pids_limit: int | None = always(None)
    ulimits: list[Ulimit] | None = always(None)
    cpu_count: int = always(0)
    cpu_percent: int = always(0)
    io_maximum_iops: int = always(0)
    io_maximum_bandwidth: int = always(0)


class HostConfig(Resources):
    binds: list[str] | None = always(None)
    container_id_file: str = always("")
    log_config: LogConfig = made(LogConfig)
    network_mode: str = always("")
    port_bindings: PortMap | None = always({})
    restart_policy: RestartPolicy = made(RestartPolicy)
    auto_remove: bool = always(False)
    volume_driver: str = always("")
    volumes_from: list[str] | None = always(None)
    console_size: tuple[int, int] = always((0, 0))
    """Height, then width."""
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = always(None)
    cap_drop: list[str] | None = always(None)
    cgroupns_mode: str = always("")
    dns: list[str] | None = always([])
    dns_options: list[str] | None = always([])
    dns_search: list[str] | None = always([])
    extra_hosts: list[str] | None = always(None)
    group_add: list[str] | None = always(None)
    ipc_mode: str = always("")
    cgroup: str = always("")
    links: list[str] | None = always(None)
    oom_score_adj: int = always(0)
    pid_mode: str = always("")
    privileged: bool = always(False)
    publish_all_ports: bool = always(False)
    readonly_rootfs: bool = always(False)
    security_opt: list[str] | None = always(None)
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = always("")
    userns_mode: str = always("")
    shm_size: int = always(0)
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = always("")
    mounts: list[Mount] | None = None
    masked_paths: list[str] | None = always(None)
    """None: the engine's default list; []: nothing is masked."""
    readonly_paths: list[str] | None = always(None)
    init: bool | None = None
