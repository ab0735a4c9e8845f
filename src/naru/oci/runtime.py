"""The OCI runtime specification's config.json and state, as types.

Names are the specification's in snake_case; the JSON keeps its camelCase. Unknown fields are ignored, as the
specification asks of a runtime. `decode` refuses wrong types. OCI runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from naru.errors import InvalidArgument

OCI_VERSION = "1.2.0"


class _Part(Struct, rename="camel", omit_defaults=True):
    """One object of config.json."""


class User(_Part):
    """`username` and `additional_groups` are our extensions on Linux, looked up inside the container's root.

    They are Docker's `--user` (`user[:group]`) and `--group-add` (names or numbers).
    """

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: list[int] = []
    username: str = ""
    additional_groups: list[str] = []


class Box(_Part):
    """A console's size in characters."""

    height: int = 0
    width: int = 0


class Capabilities(_Part):
    bounding: list[str] = []
    effective: list[str] = []
    inheritable: list[str] = []
    permitted: list[str] = []
    ambient: list[str] = []


class Rlimit(_Part):
    type: str
    hard: int
    soft: int


class Scheduler(_Part):
    policy: str
    nice: int = 0
    priority: int = 0
    flags: list[str] = []
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IOPriority(Struct, omit_defaults=True, kw_only=True):
    class_: str = msgspec.field(name="class")
    priority: int = 0


class Process(_Part):
    terminal: bool = False
    console_size: Box | None = None
    user: User = msgspec.field(default_factory=User)
    args: list[str] = []
    env: list[str] = []
    cwd: str = "/"
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] = []
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    selinux_label: str = ""
    scheduler: Scheduler | None = None
    io_priority: IOPriority | None = msgspec.field(default=None, name="ioPriority")


class Root(_Part):
    path: str
    readonly: bool = False


class IDMapping(Struct, omit_defaults=True, kw_only=True):
    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Mount(_Part):
    """`subpath` and `layers` are our extensions for binds, Docker's `volume-subpath` and `type=image`.

    `subpath` is what to bind of the source, found without leaving it; `layers` are directories, topmost first, whose
    read-only overlay is the source.
    """

    destination: str
    type: str = ""
    source: str = ""
    options: list[str] = []
    uid_mappings: list[IDMapping] = []
    gid_mappings: list[IDMapping] = []
    subpath: str = ""
    layers: list[str] = []


class Hook(_Part):
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class Hooks(_Part):
    prestart: list[Hook] = []
    create_runtime: list[Hook] = []
    create_container: list[Hook] = []
    start_container: list[Hook] = []
    poststart: list[Hook] = []
    poststop: list[Hook] = []


class Namespace(_Part):
    type: str
    path: str = ""


class TimeOffset(_Part):
    secs: int = 0
    nanosecs: int = 0


class Device(_Part):
    type: str
    path: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceRule(_Part):
    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class Memory(_Part):
    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = msgspec.field(default=None, name="kernelTCP")
    swappiness: int | None = None
    disable_oom_killer: bool | None = msgspec.field(default=None, name="disableOOMKiller")
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class CPU(_Part):
    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(_Part):
    limit: int = 0


class WeightDevice(_Part):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(_Part):
    major: int
    minor: int
    rate: int


class BlockIO(_Part):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: list[WeightDevice] = []
    throttle_read_bps_device: list[ThrottleDevice] = []
    throttle_write_bps_device: list[ThrottleDevice] = []
    throttle_read_iops_device: list[ThrottleDevice] = msgspec.field(default=[], name="throttleReadIOPSDevice")
    throttle_write_iops_device: list[ThrottleDevice] = msgspec.field(default=[], name="throttleWriteIOPSDevice")


class HugepageLimit(_Part):
    page_size: str
    limit: int


class InterfacePriority(_Part):
    name: str
    priority: int


class NetworkClass(Struct, omit_defaults=True, kw_only=True):
    class_id: int | None = msgspec.field(default=None, name="classID")
    priorities: list[InterfacePriority] = []


class RdmaLimit(_Part):
    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(_Part):
    devices: list[DeviceRule] = []
    memory: Memory | None = None
    cpu: CPU | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = msgspec.field(default=None, name="blockIO")
    hugepage_limits: list[HugepageLimit] = []
    network: NetworkClass | None = None
    rdma: dict[str, RdmaLimit] = {}
    unified: dict[str, str] = {}


class SyscallArg(_Part):
    index: int
    value: int
    op: str
    value_two: int = 0


class SyscallRule(_Part):
    names: list[str]
    action: str
    errno_ret: int | None = None
    args: list[SyscallArg] = []


class Seccomp(_Part):
    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] = []
    flags: list[str] = []
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[SyscallRule] = []


class IntelRdt(Struct, omit_defaults=True, kw_only=True):
    clos_id: str = msgspec.field(default="", name="closID")
    l3_cache_schema: str = msgspec.field(default="", name="l3CacheSchema")
    mem_bw_schema: str = msgspec.field(default="", name="memBwSchema")


class Personality(_Part):
    domain: str
    flags: list[str] = []


class Linux(_Part):
    uid_mappings: list[IDMapping] = []
    gid_mappings: list[IDMapping] = []
    sysctl: dict[str, str] = {}
    resources: Resources | None = None
    cgroups_path: str = ""
    namespaces: list[Namespace] = []
    devices: list[Device] = []
    seccomp: Seccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: list[str] = []
    readonly_paths: list[str] = []
    mount_label: str = ""
    intel_rdt: IntelRdt | None = None
    personality: Personality | None = None
    time_offsets: dict[str, TimeOffset] = {}


class Spec(_Part):
    oci_version: str = msgspec.field(default_factory=lambda: OCI_VERSION)
    hostname: str = ""
    domainname: str = ""
    process: Process | None = None
    root: Root | None = None
    mounts: list[Mount] = []
    hooks: Hooks | None = None
    linux: Linux | None = None
    annotations: dict[str, str] = {}


class State(_Part, kw_only=True):
    """What `state` prints and hooks read. OCI runtime-spec, runtime.md, State."""

    oci_version: str = msgspec.field(default_factory=lambda: OCI_VERSION)
    id: str
    status: str
    pid: int = 0
    bundle: str
    annotations: dict[str, str] = {}


_spec_decoder = msgspec.json.Decoder(Spec)
_process_decoder = msgspec.json.Decoder(Process)


def decode_spec(data: bytes) -> Spec:
    """Return the Spec in config.json's bytes. InvalidArgument: not JSON, or a field of the wrong type."""
    try:
        return _spec_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"config.json: {error}") from error


def decode_process(data: bytes) -> Process:
    """Return the Process in the bytes of an exec's process.json. InvalidArgument as for `decode_spec`."""
    try:
        return _process_decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"process.json: {error}") from error


def encode(value: Struct) -> bytes:
    """Return the specification's JSON for any of this module's objects."""
    return msgspec.json.encode(value)
