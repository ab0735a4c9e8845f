"""What may be asked of a container, field by field: Docker's words for what may not, and what is discarded."""

from __future__ import annotations

import pytest

from naru.api.container import ContainerConfig, ContainerUpdateRequest, HealthConfig
from naru.api.host import (
    BindOptions,
    DeviceMapping,
    HostConfig,
    ImageOptions,
    Mount,
    Resources,
    RestartPolicy,
    ThrottleDevice,
    TmpfsOptions,
    VolumeDriverConfig,
    VolumeOptions,
    WeightDevice,
)
from naru.api.network import NetworkingConfig
from naru.engine.clock import now
from naru.engine.container import Container
from naru.engine.host_config import check_config, check_conflicts, check_host_config
from naru.engine.limits import limits
from naru.engine.mount_config import from_mount, parse_bind
from naru.engine.mounts import plan_mounts, spec_mounts
from naru.engine.resources import Host, check_resources, parse_cpuset
from naru.engine.tmpfs import merge_options
from naru.engine.update import check_update, updated
from naru.errors import Conflict, InvalidArgument
from naru.oci import runtime as oci
from naru.runtime.cgroup_stats import Support
from naru.volume.local_options import check_options

MIB = 1 << 20
_ALL = {name: True for name in Support.__struct_fields__ if name not in ("version", "controllers")}
EVERYTHING = Host(Support(1, (), **_ALL), 2, "0-1", "0")
NOTHING = Host(Support(2, ()), 2, "0-1", "0")


def _record(host: HostConfig) -> Container:
    return Container(
        id="c" * 64,
        name="box",
        created_at=now(),
        image_id="sha256:1",
        image="busybox",
        platform="linux",
        config=ContainerConfig(),
        host_config=host,
        networking=NetworkingConfig(),
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Resources(memory=4 * MIB), "Minimum memory limit allowed is 6MB"),
        (Resources(memory=64 * MIB, memory_swap=32 * MIB), "Minimum memoryswap limit should be larger than memory"),
        (Resources(memory_swap=64 * MIB), "You should always set the Memory limit when using Memoryswap limit"),
        (Resources(memory_swappiness=101), "Invalid value: 101, valid memory swappiness range is 0-100"),
        (Resources(memory_reservation=MIB), "Minimum memory reservation allowed is 6MB"),
        (Resources(memory=32 * MIB, memory_reservation=64 * MIB), "can not be less than memory reservation limit"),
        (Resources(kernel_memory=MIB), "Minimum kernel memory limit allowed is 6MB"),
        (Resources(nano_cpus=3_000_000_000), "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        (Resources(nano_cpus=1_000_000), "Range of CPUs is from 0.01 to 2.00"),
        (Resources(nano_cpus=10**9, cpu_period=5000), "Nano CPUs and CPU Period cannot both be set"),
        (Resources(nano_cpus=10**9, cpu_quota=5000), "Nano CPUs and CPU Quota cannot both be set"),
        (Resources(cpu_period=999), "CPU cfs period can not be less than 1ms"),
        (Resources(cpu_quota=999), "CPU cfs quota can not be less than 1ms"),
        (Resources(cpu_shares=-1), r"invalid CPU shares \(-1\)"),
        (
            Resources(cpu_realtime_period=10, cpu_realtime_runtime=20),
            "runtime cannot be higher than cpu real-time period",
        ),
        (Resources(cpuset_cpus="0-7"), "Requested CPUs are not available - requested 0-7, available: 0-1"),
        (Resources(cpuset_cpus="a"), "Invalid value a for cpuset cpus"),
        (Resources(cpuset_mems="3"), "Requested memory nodes are not available - requested 3, available: 0"),
        (Resources(blkio_weight=9), "Range of blkio weight is from 10 to 1000"),
        (Resources(blkio_weight_device=[WeightDevice(path="/dev/x", weight=1001)]), "Range of blkio weight"),
        (Resources(blkio_device_read_bps=[ThrottleDevice(path="/dev/x", rate=-1)]), "must not be negative"),
        (Resources(io_maximum_iops=1), "linux does not support Maximum IO Bandwidth"),
    ],
)
def test_a_limit_that_cannot_be_right_is_refused(asked: Resources, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        check_resources(asked, EVERYTHING)


@pytest.mark.parametrize(
    ("asked", "left", "said"),
    [
        (Resources(memory=64 * MIB), Resources(memory_swap=-1), "does not support memory limit capabilities"),
        (Resources(memory_swappiness=50), Resources(), "Memory swappiness discarded"),
        (Resources(memory_reservation=64 * MIB), Resources(), "memory soft limit capabilities"),
        (Resources(kernel_memory=64 * MIB), Resources(), "kernel memory limit capabilities"),
        (Resources(kernel_memory_tcp=MIB), Resources(), "kernel memory TCP limit capabilities"),
        (Resources(oom_kill_disable=True), Resources(), "OomKillDisable discarded"),
        (Resources(pids_limit=5), Resources(), "PIDs limit discarded"),
        (Resources(cpu_shares=5), Resources(), "Shares discarded"),
        (Resources(cpu_quota=5000), Resources(), "CPU period/quota discarded"),
        (Resources(cpu_percent=5), Resources(), "Percent discarded"),
        (Resources(cpuset_cpus="0"), Resources(), "Cpuset discarded"),
        (Resources(blkio_weight=500), Resources(), "Weight discarded"),
        (
            Resources(blkio_weight_device=[WeightDevice(path="/dev/x", weight=10)]),
            Resources(),
            "Weight-device discarded",
        ),
        (
            Resources(blkio_device_write_iops=[ThrottleDevice(path="/dev/x", rate=1)]),
            Resources(),
            "Block I/O IOPS write limit discarded",
        ),
    ],
)
def test_what_this_kernel_cannot_limit_is_discarded_with_a_warning(
    asked: Resources, left: Resources, said: str
) -> None:
    warnings = check_resources(asked, NOTHING)
    assert len(warnings) == 1
    assert said in warnings[0]
    assert asked == left


def test_memory_without_a_swap_limit_is_limited_without_swap() -> None:
    can = Support(1, (), memory_limit=True)
    asked = Resources(memory=64 * MIB)
    assert check_resources(asked, Host(can, 2, "0-1", "0")) == [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap."
    ]
    assert (asked.memory, asked.memory_swap) == (64 * MIB, -1)


def test_a_disabled_oom_killer_without_a_limit_is_warned_of() -> None:
    asked = Resources(oom_kill_disable=True)
    assert "OOM killer is disabled" in check_resources(asked, EVERYTHING)[0]
    assert asked.oom_kill_disable


def test_a_limit_of_zero_or_less_processes_means_none() -> None:
    created, changed = Resources(pids_limit=-1), Resources(pids_limit=-1)
    check_resources(created, EVERYTHING)
    check_resources(changed, EVERYTHING, is_update=True)
    assert (created.pids_limit, changed.pids_limit) == (None, 0)
    assert limits(HostConfig(pids_limit=0), _no_device).pids is not None


def _no_device(path: str) -> oci.Device:
    raise AssertionError(path)


def test_cpu_lists_are_read_as_the_kernel_does() -> None:
    assert parse_cpuset("0-2,4") == {0, 1, 2, 4}
    assert parse_cpuset("2-1") is None
    assert parse_cpuset("") == set()


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (HostConfig(runtime="runc"), "unknown or invalid runtime name: runc"),
        (HostConfig(isolation="hyperv"), "invalid isolation: \"hyperv\" - linux only supports 'default'"),
        (HostConfig(volume_driver="foo"), 'error looking up volume plugin foo: plugin "foo" not found'),
        (HostConfig(userns_mode="private"), "invalid user namespace mode: private"),
        (HostConfig(pid_mode="private"), "invalid PID mode: private"),
        (HostConfig(ipc_mode="container:"), "invalid IPC mode: container:"),
        (HostConfig(uts_mode="container:x"), "invalid UTS mode: container:x"),
        (HostConfig(cgroupns_mode="x"), "invalid cgroup namespace mode: x"),
        (HostConfig(cgroup="container:x"), "invalid cgroup mode: container:x"),
        (HostConfig(network_mode="container:"), "invalid container format container:<name|id>"),
        (HostConfig(oom_score_adj=1001), "Invalid value 1001, range for oom score adj is"),
        (HostConfig(shm_size=-1), "SHM size can not be less than 0"),
        (HostConfig(annotations={"": "x"}), "the empty string is not permitted as an annotation key"),
        (HostConfig(storage_opt={"foo": "1"}), "Unknown option foo"),
        (HostConfig(storage_opt={"size": "much"}), "invalid size: 'much'"),
        (HostConfig(dns=["dns.example.org"]), "invalid IP address in dns: dns.example.org"),
        (HostConfig(extra_hosts=["nothing"]), 'bad format for add-host: "nothing"'),
        (HostConfig(extra_hosts=["name:nothing"]), 'invalid IP address in add-host: "nothing"'),
        (HostConfig(sysctls={"kernel.panic": "1"}), '"kernel.panic" is not in a separate kernel namespace'),
        (
            HostConfig(sysctls={"net.x": "1"}, network_mode="host"),
            '"net.x" is not allowed in the host network namespace',
        ),
        (HostConfig(security_opt=["systempaths=x"]), 'invalid --security-opt 2: "systempaths=x"'),
        (HostConfig(security_opt=["no-new-privileges=x"]), 'invalid --security-opt 2: "no-new-privileges=x"'),
        (HostConfig(security_opt=["seccomp={"]), ""),
        (HostConfig(cap_add=["FOO"]), "CAP_FOO"),
        (HostConfig(devices=[DeviceMapping(path_on_host="/dev/x", cgroup_permissions="q")]), "bad mode specified: q"),
        (HostConfig(device_cgroup_rules=["c 1:3 q"]), "invalid device cgroup rule format: 'c 1:3 q'"),
        (HostConfig(tmpfs={"a": ""}), "invalid mount path: 'a' mount path must be absolute"),
        (HostConfig(tmpfs={"/": ""}), "destination can't be '/'"),
        (HostConfig(masked_paths=["proc"]), "'proc' is not absolute"),
        (
            HostConfig(restart_policy=RestartPolicy(name="x")),
            "unknown policy 'x'; use one of 'no', 'always', 'on-failure'",
        ),
        (
            HostConfig(restart_policy=RestartPolicy(name="always", maximum_retry_count=3)),
            "maximum retry count can only be used with 'on-failure'",
        ),
        (
            HostConfig(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=-1)),
            "maximum retry count cannot be negative",
        ),
        (
            HostConfig(restart_policy=RestartPolicy(name="always"), auto_remove=True),
            "can't create 'AutoRemove' container with restart policy",
        ),
    ],
)
def test_a_wish_that_cannot_be_granted_is_refused(host: HostConfig, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_host_config(host)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_published_ports_mean_nothing_on_the_hosts_network() -> None:
    host = HostConfig(network_mode="host", port_bindings={"80/tcp": []})
    assert check_host_config(host) == ["Published ports are discarded when using host network mode"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ContainerConfig(working_dir="here"), "the working directory 'here' is invalid"),
        (ContainerConfig(stop_signal="FOO"), "invalid signal: FOO"),
        (ContainerConfig(env=["=x"]), "invalid environment variable: =x"),
        (ContainerConfig(hostname="a" * 65), "Linux takes at most 64 bytes"),
        (ContainerConfig(exposed_ports={"foo": {}}), "invalid port specification: foo"),
        (ContainerConfig(healthcheck=HealthConfig(interval=10)), "Interval in Healthcheck cannot be less than 1ms"),
        (ContainerConfig(healthcheck=HealthConfig(start_period=-1)), "Start period in Healthcheck cannot be less than"),
        (ContainerConfig(healthcheck=HealthConfig(retries=-1)), "Retries in Healthcheck cannot be negative"),
        (ContainerConfig(healthcheck=HealthConfig(test=["RUN", "x"])), 'unknown type "RUN" in Healthcheck'),
    ],
)
def test_what_no_container_can_have_is_refused(config: ContainerConfig, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_config(config)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("config", "host", "macs", "said"),
    [
        (ContainerConfig(hostname="x"), HostConfig(uts_mode="host"), [], "hostname and the UTS mode"),
        (
            ContainerConfig(),
            HostConfig(network_mode="host", links=["a"]),
            [],
            "host type networking can't be used with",
        ),
        (ContainerConfig(), HostConfig(network_mode="host"), ["02:00:00:00:00:01"], "mac-address and the network mode"),
        (ContainerConfig(hostname="x"), HostConfig(network_mode="container:a"), [], "hostname and the network mode"),
        (ContainerConfig(), HostConfig(network_mode="container:a", dns=["1.1.1.1"]), [], "dns and the network mode"),
        (ContainerConfig(), HostConfig(network_mode="container:a", extra_hosts=["a:1.1.1.1"]), [], "custom host-to-IP"),
        (ContainerConfig(), HostConfig(network_mode="container:a", publish_all_ports=True), [], "port publishing and"),
        (
            ContainerConfig(exposed_ports={"80/tcp": {}}),
            HostConfig(network_mode="container:a"),
            [],
            "port exposing and",
        ),
    ],
)
def test_what_contradicts_a_shared_namespace_is_refused(
    config: ContainerConfig, host: HostConfig, macs: list[str], said: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_conflicts(config, host, macs)
    assert str(refused.value).startswith("conflicting options: ")
    assert said in str(refused.value)


def test_a_mac_address_has_six_bytes() -> None:
    check_conflicts(ContainerConfig(), HostConfig(), ["02:42:AC:11:00:02", "02-42-ac-11-00-02", ""])
    for wrong in ("02:42:ac:11:00", "02:42:ac:11:00:0g", "02:42-ac:11:00:02"):
        with pytest.raises(InvalidArgument, match=f"invalid MAC address: {wrong}"):
            check_conflicts(ContainerConfig(), HostConfig(), [wrong])


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        (Mount(type="foo", target="/a"), "mount type unknown"),
        (Mount(type="bind", source="/x"), "field Target must not be empty"),
        (Mount(type="bind", source="/x", target="a"), "invalid mount path: 'a' mount path must be absolute"),
        (Mount(type="bind", source="/x", target="/"), "invalid specification: destination can't be '/'"),
        (Mount(type="bind", target="/a"), "field Source must not be empty"),
        (Mount(type="bind", source="x", target="/a"), "invalid mount path: 'x' mount path must be absolute"),
        (
            Mount(type="bind", source="/x", target="/a", bind_options=BindOptions(propagation="x")),
            "invalid propagation mode",
        ),
        (
            Mount(type="bind", source="/x", target="/a", volume_options=VolumeOptions()),
            "field VolumeOptions must not be",
        ),
        (Mount(type="tmpfs", source="x", target="/a"), "field Source must not be specified"),
        (Mount(type="tmpfs", target="/a", tmpfs_options=TmpfsOptions(options=[["x"]])), 'invalid tmpfs option ["x"]'),
        (Mount(type="volume", target="/a", read_only=True), "must not set ReadOnly mode when using anonymous volumes"),
        (
            Mount(type="volume", target="/a", volume_options=VolumeOptions(subpath="x")),
            "must not set Subpath when using",
        ),
        (
            Mount(type="volume", source="v1", target="/a", volume_options=VolumeOptions(subpath="x/../../y")),
            "subpath must be a relative path within the volume",
        ),
        (
            Mount(
                type="volume", target="/a", volume_options=VolumeOptions(driver_config=VolumeDriverConfig(name="foo"))
            ),
            'plugin "foo" not found',
        ),
        (Mount(type="image", target="/a"), "field Source must not be empty"),
        (
            Mount(type="image", source="x", target="/a", image_options=ImageOptions(subpath="/etc")),
            "subpath must be a relative path within the image",
        ),
    ],
)
def test_a_mount_that_cannot_be_is_refused(mount: Mount, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        from_mount(mount)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:rshared,rslave", "invalid mode: rshared,rslave"),
        ("/a:/b:nocopy", "field VolumeOptions must not be specified"),
        ("name:/b:rslave", "field BindOptions must not be specified"),
        ("/a:/", "destination can't be '/'"),
        ("a::b", "invalid volume specification: 'a::b'"),
    ],
)
def test_a_bind_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_bind(text)
    assert said in str(refused.value)


def _options(host: HostConfig) -> list[list[str]]:
    container = _record(host)
    for planned in plan_mounts(host, [], lambda _: []).values():
        container.mounts.append(planned.point)
        if planned.asked is not None:
            container.mount_options[planned.point.destination] = planned.asked
    return [mount.options for mount in spec_mounts(container, {})]


@pytest.mark.parametrize(
    ("bind", "options"),
    [
        (BindOptions(), ["rbind", "rprivate", "ro", "rro"]),
        (BindOptions(non_recursive=True), ["bind", "rprivate", "ro", "rro"]),
        (BindOptions(read_only_non_recursive=True), ["rbind", "rprivate", "ro"]),
        (BindOptions(propagation="rslave"), ["rbind", "rslave", "ro", "rro"]),
    ],
)
def test_a_read_only_bind_is_so_all_the_way_down_unless_asked_otherwise(bind: BindOptions, options: list[str]) -> None:
    mount = Mount(type="bind", source="/x", target="/a", read_only=True, bind_options=bind)
    assert _options(HostConfig(mounts=[mount])) == [options]


def test_tmpfs_options_replace_the_defaults_that_they_contradict() -> None:
    assert merge_options(["exec", "size=10%", "mode=1770"]) == ["nosuid", "nodev", "size=10%", "mode=1770"]
    with pytest.raises(InvalidArgument, match='bad value for "size": "xx"'):
        merge_options(["size=xx"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"foo": "1"}, 'create v: invalid option: "foo"'),
        ({"type": "tmpfs"}, 'create v: missing required option: "device"'),
        ({"device": "/x"}, 'create v: missing required option: "type"'),
        ({"o": "bind"}, 'create v: missing required option: "device"'),
        ({"size": "1x"}, "create v: invalid size: '1x'"),
        ({"size": "10M"}, "create v: quota size requested but no quota support"),
    ],
)
def test_options_of_a_volume_need_each_other(options: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_options("v", options)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("now_has", "asked", "said"),
    [
        (HostConfig(cpu_quota=5000), {"nano_cpus": 10**9}, "Nano CPUs cannot be updated as CPU Quota has already been"),
        (
            HostConfig(nano_cpus=10**9),
            {"cpu_period": 5000},
            "CPU Period cannot be updated as NanoCPUs has already been",
        ),
        (
            HostConfig(memory=64 * MIB, memory_swap=128 * MIB),
            {"memory": 256 * MIB},
            "update the memoryswap at the same",
        ),
        (
            HostConfig(auto_remove=True),
            {"restart_policy": RestartPolicy(name="always")},
            "because AutoRemove is enabled",
        ),
    ],
)
def test_an_update_that_contradicts_what_was_set_is_a_conflict(
    now_has: HostConfig, asked: dict[str, object], said: str
) -> None:
    with pytest.raises(Conflict) as refused:
        updated(_record(now_has), ContainerUpdateRequest(**asked))
    assert said in str(refused.value)


def test_an_update_leaves_alone_what_it_does_not_mention() -> None:
    has = HostConfig(memory=64 * MIB, memory_swap=128 * MIB, cpu_shares=7, pids_limit=5)
    request = ContainerUpdateRequest(pids_limit=-1, blkio_weight=20, memory_swappiness=0)
    assert check_update(request, EVERYTHING) == []
    changed = updated(_record(has), request)
    assert (changed.memory, changed.memory_swap, changed.cpu_shares) == (64 * MIB, 128 * MIB, 7)
    assert (changed.pids_limit, changed.blkio_weight, changed.memory_swappiness) == (0, 20, 0)
    assert has.pids_limit == 5


def test_what_a_container_keeps_cannot_be_updated() -> None:
    request = ContainerUpdateRequest(device_cgroup_rules=["c 1:3 r"])
    with pytest.raises(InvalidArgument, match="device cgroup rules of a container cannot be updated"):
        updated(_record(HostConfig()), request)
