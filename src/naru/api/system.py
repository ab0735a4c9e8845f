"""The engine itself: information, version, disk use, credentials. Engine API, System."""

from __future__ import annotations

from naru.api.wire import LowerWire, Wire, always, made, named


class AuthConfig(LowerWire):
    """Credentials for a registry, as X-Registry-Auth carries them."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class AuthResponse(Wire):
    status: str = always("")
    identity_token: str = always("")


class VersionPlatform(Wire):
    name: str = always("")


class ComponentVersion(Wire):
    name: str = always("")
    version: str = always("")
    details: dict[str, str] | None = None


class SystemVersion(Wire):
    platform: VersionPlatform = made(VersionPlatform)
    components: list[ComponentVersion] = always([])
    version: str = always("")
    api_version: str = always("", name="ApiVersion")
    min_api_version: str = always("", name="MinAPIVersion")
    git_commit: str = always("")
    go_version: str = always("")
    os: str = always("linux")
    arch: str = always("")
    kernel_version: str = ""
    experimental: bool = False
    build_time: str = ""


class PluginsInfo(Wire):
    volume: list[str] | None = always(["local"])
    network: list[str] | None = always(["bridge", "host", "null"])
    authorization: list[str] | None = always(None)
    log: list[str] | None = always(["json-file", "local", "none"])


class IndexInfo(Wire):
    name: str = always("")
    mirrors: list[str] | None = always([])
    secure: bool = always(True)
    official: bool = always(False)


class RegistryServiceConfig(Wire):
    insecure_registry_cidrs: list[str] | None = always([], name="InsecureRegistryCIDRs")
    index_configs: dict[str, IndexInfo] = always({})
    mirrors: list[str] | None = always(None)


class Runtime(LowerWire):
    path: str = always("")
    runtime_args: list[str] | None = named(None, "runtimeArgs")
    status: dict[str, str] | None = None


class Commit(Wire):
    id: str = always("", name="ID")


class SwarmInfo(Wire):
    """We are no swarm; said so in the words clients test for."""

    node_id: str = always("")
    node_addr: str = always("")
    local_node_state: str = always("inactive")
    control_available: bool = always(False)
    error: str = always("")
    remote_managers: list[str] | None = always(None)


class AddressPool(Wire):
    base: str = always("")
    size: int = always(0)


class FirewallInfo(Wire):
    driver: str = always("")
    info: list[tuple[str, str]] | None = None


class SystemInfo(Wire):
    id: str = always("", name="ID")
    containers: int = always(0)
    containers_running: int = always(0)
    containers_paused: int = always(0)
    containers_stopped: int = always(0)
    images: int = always(0)
    driver: str = always("overlay2")
    driver_status: list[tuple[str, str]] | None = always([])
    plugins: PluginsInfo = made(PluginsInfo)
    memory_limit: bool = always(True)
    swap_limit: bool = always(True)
    cpu_cfs_period: bool = always(True)
    cpu_cfs_quota: bool = always(True)
    cpu_shares: bool = always(True, name="CPUShares")
    cpu_set: bool = always(True, name="CPUSet")
    pids_limit: bool = always(True)
    ipv4_forwarding: bool = always(True)
    debug: bool = always(False)
    n_fd: int = always(0)
    oom_kill_disable: bool = always(False)
    n_goroutines: int = always(0)
    """Threads, in our case."""
    system_time: str = always("")
    logging_driver: str = always("json-file")
    cgroup_driver: str = always("cgroupfs")
    cgroup_version: str = ""
    n_events_listener: int = always(0)
    kernel_version: str = always("")
    operating_system: str = always("")
    os_version: str = always("", name="OSVersion")
    os_type: str = always("linux")
    architecture: str = always("")
    index_server_address: str = always("https://index.docker.io/v1/")
    registry_config: RegistryServiceConfig = made(RegistryServiceConfig)
    ncpu: int = always(0, name="NCPU")
    mem_total: int = always(0)
    generic_resources: list[str] | None = always(None)
    docker_root_dir: str = always("")
    http_proxy: str = always("")
    https_proxy: str = always("")
    no_proxy: str = always("")
    name: str = always("")
    labels: list[str] | None = always([])
    experimental_build: bool = always(False)
    server_version: str = always("")
    runtimes: dict[str, Runtime] = always({})
    default_runtime: str = always("naru")
    swarm: SwarmInfo = made(SwarmInfo)
    live_restore_enabled: bool = always(True)
    isolation: str = always("")
    init_binary: str = always("")
    containerd_commit: Commit = made(Commit)
    runc_commit: Commit = made(Commit)
    init_commit: Commit = made(Commit)
    security_options: list[str] = always([])
    product_license: str = ""
    default_address_pools: list[AddressPool] | None = None
    firewall_backend: FirewallInfo | None = None
    cdi_spec_dirs: list[str] | None = always([])
    warnings: list[str] | None = always([])
