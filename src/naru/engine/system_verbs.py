"""The Engine API's system operations: info, version, events."""

from __future__ import annotations

import os
import platform
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import naru
from naru.api.event import EventMessage
from naru.api.system import (
    ComponentVersion,
    FirewallInfo,
    PluginsInfo,
    Runtime,
    SystemInfo,
    SystemVersion,
    VersionPlatform,
)
from naru.engine.cdi import SPEC_DIRS
from naru.engine.clock import nanoseconds, now, rfc3339
from naru.engine.container import Status
from naru.engine.events import Subscription
from naru.engine.log_config import LOG_DRIVERS
from naru.engine.parts import Parts
from naru.engine.registry_verbs import registry_config
from naru.runtime.cgroup import supported

API_VERSION = "1.55"
MIN_API_VERSION = "1.24"
_GO_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


class SystemVerbs:
    """System operations over the engine's parts."""

    parts: Parts
    engine_id: str

    def system_info(self) -> SystemInfo:
        """Engine API, SystemInfo."""
        statuses = [container.status for container in self.parts.containers.all()]
        running = statuses.count(Status.RUNNING)
        paused = statuses.count(Status.PAUSED)
        can = supported()
        release = _os_release()
        kernel = os.uname()
        return SystemInfo(
            id=self.engine_id,
            containers=len(statuses),
            containers_running=running,
            containers_paused=paused,
            containers_stopped=len(statuses) - running - paused,
            images=len(self.parts.images.list()),
            driver="overlay2",
            driver_status=[("Backing Filesystem", _file_system(self.parts.paths.data)), ("Detached mounts", "true")],
            memory_limit=can.memory_limit,
            swap_limit=can.swap_limit,
            cpu_cfs_period=can.cpu_quota,
            cpu_cfs_quota=can.cpu_quota,
            cpu_shares=can.cpu_shares,
            cpu_set=can.cpuset,
            pids_limit=can.pids_limit,
            oom_kill_disable=can.oom_kill_disable,
            n_fd=len(os.listdir("/proc/self/fd")),
            n_goroutines=threading.active_count(),
            system_time=rfc3339(now()),
            cgroup_version=str(can.version),
            kernel_version=kernel.release,
            operating_system=release.get("PRETTY_NAME", "Linux"),
            os_version=release.get("VERSION_ID", ""),
            architecture=kernel.machine,
            ncpu=os.cpu_count() or 1,
            mem_total=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            docker_root_dir=str(self.parts.paths.data),
            http_proxy=os.environ.get("HTTP_PROXY", ""),
            https_proxy=os.environ.get("HTTPS_PROXY", ""),
            no_proxy=os.environ.get("NO_PROXY", ""),
            name=socket.gethostname(),
            server_version=naru.__version__,
            registry_config=registry_config(self.parts.insecure_registries),
            logging_driver=self.parts.log_config.type,
            plugins=PluginsInfo(log=list(LOG_DRIVERS)),
            runtimes={"naru": Runtime(path="naru-runtime")},
            cdi_spec_dirs=list(SPEC_DIRS),
            firewall_backend=FirewallInfo(driver="nftables"),
            security_options=["name=seccomp,profile=builtin", "name=cgroupns"],
        )

    def system_version(self) -> SystemVersion:
        """Engine API, SystemVersion."""
        kernel = os.uname()
        architecture = _GO_ARCHITECTURE.get(kernel.machine, kernel.machine)
        return SystemVersion(
            platform=VersionPlatform(name="naru"),
            components=[
                ComponentVersion(
                    name="Engine",
                    version=naru.__version__,
                    details={
                        "ApiVersion": API_VERSION,
                        "Arch": architecture,
                        "MinAPIVersion": MIN_API_VERSION,
                        "Os": "linux",
                        "KernelVersion": kernel.release,
                        "Experimental": "false",
                    },
                ),
                ComponentVersion(name="python", version=platform.python_version()),
            ],
            version=naru.__version__,
            api_version=API_VERSION,
            min_api_version=MIN_API_VERSION,
            arch=architecture,
            kernel_version=kernel.release,
        )

    def system_events(
        self,
        filters: Mapping[str, Sequence[str]],
        since: str,
        until: str,
        callback: Callable[[EventMessage], None],
    ) -> Subscription:
        """Engine API, SystemEvents."""
        return self.parts.events.subscribe(
            callback, filters=filters, since_ns=nanoseconds(since), until_ns=nanoseconds(until)
        )


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds `path`. proc(5), /proc/self/mountinfo"""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return "unknown"
