"""Cgroup version 1: one directory per hierarchy, and beside them version 2 where the host mounts both (hybrid).

A container has a cgroup of the same path in every hierarchy, the named ones included: systemd kills what is in a
service's cgroup of `name=systemd`, and containers must outlive the service that started them. On a hybrid host the
version 2 cgroup adds killing at once, waiting for emptiness, and the controllers that live there.
kernel documentation, cgroup-v1
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress

from msgspec import Struct

from naru.errors import InvalidArgument, NaruError, Unavailable, Unsupported
from naru.kernel import cgroup as kernel
from naru.oci.runtime import CPU, BlockIO, DeviceRule, Memory, Resources
from naru.runtime import cgroup_stats_v1, device_filter
from naru.runtime.cgroup_directory import REMOVE_TIMEOUT_S, remove_tree, resolve, signal_all
from naru.runtime.cgroup_stats import CgroupMount, CgroupStats, CgroupView
from naru.runtime.cgroup_v2 import CgroupV2
from naru.runtime.cgroup_values import put, rdma_line

_FREEZE_TIMEOUT_S = 10.0
_KILL_TIMEOUT_S = 10.0
_EVERY_DEVICE = "a"


class CgroupV1(Struct, frozen=True):
    """A container's cgroups. `directories` is by controller; controllers mounted together share a directory."""

    path: str
    hierarchies: tuple[kernel.Hierarchy, ...]
    directories: Mapping[str, str]
    unified: CgroupV2 | None

    @classmethod
    def at(cls, path: str, hierarchies: tuple[kernel.Hierarchy, ...], own: Mapping[str, str]) -> CgroupV1:
        """Return the cgroups at `path`, which need not exist; a relative path is below this process's own cgroup."""
        first = tuple(hierarchy for hierarchy in hierarchies if hierarchy.version == 1)
        directories = {
            controller: resolve(path, hierarchy, own.get(controller, "/"))
            for hierarchy in first
            for controller in hierarchy.controllers
        }
        second = [hierarchy for hierarchy in hierarchies if hierarchy.version == 2]
        unified = CgroupV2.at(path, second[0], own) if second else None
        return cls(path, first, directories, unified)

    # Lifecycle

    def create(self, resources: Resources) -> None:
        """Make the directories and set the limits; nothing is left if that fails."""
        try:
            for controller, directory in self.directories.items():
                os.makedirs(directory, exist_ok=True)
                if controller == "cpuset":
                    self._inherit_cpuset(directory)
            if self.unified is not None:
                self.unified.make_directories()
            self._limit(resources)
            self._allow_devices([*resources.devices, *device_filter.DEFAULT_RULES])
        except BaseException as error:
            try:
                self.remove(timeout_s=0)
            except (OSError, NaruError) as undo:
                error.add_note(f"undo: {undo}")
            raise

    def _inherit_cpuset(self, directory: str) -> None:
        """A new cpuset has no CPUs and no memory nodes, and nothing can join it: copy them down from the top."""
        missing = []
        while not _cpuset_is_set(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for child in reversed(missing):
            for name in ("cpuset.cpus", "cpuset.mems"):
                if not kernel.read(child, name).strip():
                    kernel.write(child, name, kernel.read(os.path.dirname(child), name).strip())

    @property
    def exists(self) -> bool:
        return any(os.path.isdir(directory) for directory in self._unique())

    def join(self, pid: int, *, beside: int | None = None) -> None:
        """Move the process `pid` (0: the caller) in, with all its threads. `beside` matters in version 2 only.

        Slow where nobody has done it for a while: 13 ms measured, in which the kernel waits for an RCU grace period.
        OSError: ESRCH if it is gone.
        """
        for directory in self._unique():
            kernel.write(directory, "cgroup.procs", str(pid))
        if self.unified is not None:
            self.unified.join(pid, beside=beside)

    def directory_fd(self, *, beside: int | None = None) -> int | None:
        """Return what version 2 has for CLONE_INTO_CGROUP, if anything; version 1 is entered by `entrances`."""
        return None if self.unified is None else self.unified.directory_fd(beside=beside)

    def entrances(self) -> tuple[str, ...]:
        """Return the directories to whose `tasks` a process of one thread writes "0" to move itself in.

        The kernel then takes no lock against other threads, and 0.1 ms is enough where `join` takes 13.
        """
        return tuple(self._unique())

    def update(self, resources: Resources) -> None:
        """Change the limits that `resources` gives; device rules replace all earlier ones if there are any."""
        self._limit(resources)
        if resources.devices:
            self._allow_devices([*resources.devices, *device_filter.DEFAULT_RULES])

    def remove(self, *, kill: bool = False, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Remove the cgroups and all below them; nothing if they are gone. `kill`: kill what is inside first.

        Conflict: processes are still inside after `timeout_s`.
        """
        if kill:
            self.kill_all(signal.SIGKILL)
        deadline = time.monotonic() + timeout_s
        if self.unified is not None:
            self.unified.remove(timeout_s=timeout_s)
        for directory in self._unique():
            remove_tree(directory, deadline)

    # Processes

    def processes(self) -> list[int]:
        """Return every process in the container, those in cgroups it made itself included."""
        for directory in self._unique():
            return kernel.processes(directory)
        return []

    def kill_all(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to every process inside; after SIGKILL, wait until none is left but zombies and the kernel.

        Unavailable: processes survive SIGKILL for 10 s (uninterruptible sleep).
        """
        if signal_number != signal.SIGKILL:
            signal_all(self.processes(), signal_number)
            return
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        if self.unified is not None and self.unified.kill_at_once():
            with suppress(OSError, Unsupported):
                self.thaw()  # a task frozen by version 1 does not die
            self.unified.await_empty(deadline)
        while pids := self.processes():
            # Frozen, so that none of them forks away while the list is worked through.
            with suppress(Unavailable, Unsupported):
                self.freeze(timeout_s=0.1)
            signal_all(pids, signal.SIGKILL)
            with suppress(OSError, Unsupported):
                self.thaw()
            if time.monotonic() > deadline:
                raise Unavailable(f"cgroup {self.path}: processes {pids} do not die")
            time.sleep(0.001)  # version 1 has no event for an empty cgroup

    # Freezing

    def freeze(self, *, timeout_s: float = _FREEZE_TIMEOUT_S) -> None:
        """Stop every process until `thaw`. Unavailable: some could not be stopped in time; they run again."""
        freezer = self._directory("freezer", "pausing")
        deadline = time.monotonic() + timeout_s
        put(freezer, "freezer.state", "FROZEN", what="pausing")
        while (state := kernel.read(freezer, "freezer.state").strip()) != "FROZEN":
            if time.monotonic() > deadline:
                self.thaw()
                raise Unavailable(f"cgroup {self.path}: still {state.lower()} after {timeout_s:g} s")
            # A fork during freezing leaves a task running and the state at FREEZING until it is written again.
            time.sleep(0.001)
            kernel.write(freezer, "freezer.state", "FROZEN")

    def thaw(self) -> None:
        """Let the processes run again."""
        put(self._directory("freezer", "pausing"), "freezer.state", "THAWED", what="pausing")

    def is_frozen(self) -> bool:
        freezer = self.directories.get("freezer")
        if freezer is None:
            return False
        try:
            return kernel.read(freezer, "freezer.state").strip() == "FROZEN"
        except FileNotFoundError:
            return False

    # Observation

    def stats(self) -> CgroupStats:
        """Return what was used so far. NotFound: the cgroup is gone."""
        other = self.unified.stats() if self.unified is not None else CgroupStats()
        return cgroup_stats_v1.collect(self.path, self.directories, beside=other)

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed here for want of memory."""
        memory = self.directories.get("memory")
        if memory is None:
            return 0
        total = 0
        for directory in kernel.tree(memory):
            with suppress(FileNotFoundError):
                total += kernel.flat_keyed(kernel.read(directory, "memory.oom_control")).get("oom_kill", 0)
        return total

    def oom_fd(self) -> int:
        """Return a non-blocking descriptor that becomes readable when `oom_kills` may have grown.

        The caller reads it empty, asks `oom_kills`, and closes it. It also becomes readable when the cgroup goes.
        """
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        memory = self.directories.get("memory")
        if memory is None:
            return event
        try:
            control = os.open(f"{memory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                kernel.write(memory, "cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
        except BaseException:
            os.close(event)
            raise
        return event

    def view(self, *, private: bool) -> CgroupView:
        """Return what the container's /sys/fs/cgroup consists of; `private`: it has a cgroup namespace."""
        mounts = []
        links = []
        for hierarchy in self.hierarchies:
            name = os.path.basename(hierarchy.mount_point)
            data = ",".join(hierarchy.controllers)
            source = "" if private else self.directories[hierarchy.controllers[0]]
            mounts.append(CgroupMount(name, "cgroup", source, data))
            # Hosts mount some together, "cpu,cpuacct", and programs look for each by itself.
            links += [(one, name) for one in hierarchy.controllers if one != name and "=" not in one]
        return CgroupView(True, tuple(mounts), tuple(links))

    # Limits

    def _unique(self) -> list[str]:
        return list(dict.fromkeys(self.directories.values()))

    def _directory(self, controller: str, what: str) -> str:
        directory = self.directories.get(controller)
        if directory is None:
            raise Unsupported(f"cgroup: {what} is not supported on this host (no {controller} controller)")
        return directory

    def _limit(self, resources: Resources) -> None:
        if resources.unified:
            if self.unified is None:
                raise Unsupported("cgroup: unified settings need cgroup version 2")
            self.unified.limit(Resources(unified=resources.unified))
        if resources.memory is not None:
            self._limit_memory(resources.memory)
        if resources.cpu is not None:
            self._limit_cpu(resources.cpu)
        if resources.pids is not None:
            limit = str(resources.pids.limit) if resources.pids.limit > 0 else "max"
            put(self._directory("pids", "pids limit"), "pids.max", limit, what="pids limit")
        if resources.block_io is not None:
            self._limit_io(resources.block_io)
        if resources.hugepage_limits:
            self._limit_hugetlb(resources)
        if resources.network is not None:
            self._mark_network(resources)
        if resources.rdma:
            self._limit_rdma(resources)

    def _limit_memory(self, memory: Memory) -> None:
        directory = self._directory("memory", "memory limit")
        if memory.use_hierarchy is not None:
            put(directory, "memory.use_hierarchy", int(memory.use_hierarchy), what="memory hierarchy")
        self._limit_memory_and_swap(directory, memory)
        if memory.reservation is not None:
            put(directory, "memory.soft_limit_in_bytes", memory.reservation, what="memory reservation")
        if memory.kernel_tcp is not None:
            put(directory, "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp, what="kernel TCP memory limit")
        if memory.swappiness is not None:
            if not 0 <= memory.swappiness <= 100:
                raise InvalidArgument(f"cgroup: memory swappiness {memory.swappiness}: not in 0 to 100")
            put(directory, "memory.swappiness", memory.swappiness, what="memory swappiness")
        if memory.disable_oom_killer is not None:
            put(directory, "memory.oom_control", int(memory.disable_oom_killer), what="disabling the OOM killer")

    def _limit_memory_and_swap(self, directory: str, memory: Memory) -> None:
        """The kernel insists that memory <= memory and swap at every moment: what grows past the other goes last."""
        writes = []
        if memory.limit is not None:
            writes.append(("memory.limit_in_bytes", memory.limit, "memory limit"))
        swap = memory.swap
        if swap is None and memory.limit is not None and memory.limit < 0:
            # A memory limit taken away takes the old limit on both away too, else it would be refused.
            swap = -1 if kernel.has(directory, "memory.memsw.limit_in_bytes") else None
        if swap is not None and (swap >= 0 or _has_swap(directory)):  # unlimited is what a host without it has
            writes.append(("memory.memsw.limit_in_bytes", swap, "swap limit"))
        if len(writes) == 2:
            both_now = int(kernel.read(directory, "memory.memsw.limit_in_bytes")) if _has_swap(directory) else 0
            grows = memory.limit is not None and (memory.limit < 0 or memory.limit > both_now)
            if grows and _has_swap(directory):
                writes.reverse()
        for name, value, what in writes:
            put(directory, name, value, what=what)

    def _limit_cpu(self, cpu: CPU) -> None:
        if cpu.shares:
            put(self._directory("cpu", "CPU shares"), "cpu.shares", cpu.shares, what="CPU shares")
        if cpu.idle is not None:
            put(self._directory("cpu", "idle CPU"), "cpu.idle", cpu.idle, what="idle CPU")
        period = ("cpu.cfs_period_us", cpu.period, "CPU period")
        quota = ("cpu.cfs_quota_us", cpu.quota, "CPU quota")
        burst = ("cpu.cfs_burst_us", cpu.burst, "CPU burst")
        self._put_related([period, quota, burst])
        realtime_period = ("cpu.rt_period_us", cpu.realtime_period, "CPU real-time period")
        realtime_runtime = ("cpu.rt_runtime_us", cpu.realtime_runtime, "CPU real-time runtime")
        self._put_related([realtime_period, realtime_runtime])
        if cpu.cpus:
            put(self._directory("cpuset", "CPU set"), "cpuset.cpus", cpu.cpus, what="CPU set")
        if cpu.mems:
            put(self._directory("cpuset", "memory nodes"), "cpuset.mems", cpu.mems, what="memory nodes")

    def _put_related(self, values: list[tuple[str, int | None, str]]) -> None:
        """Write values that the kernel judges together: one it refuses beside the old others is tried again last."""
        left = [(name, value, what) for name, value, what in values if value]
        refused = None
        for _attempt in range(len(left)):
            later = []
            for name, value, what in left:
                try:
                    put(self._directory("cpu", what), name, value or 0, what=what)
                except InvalidArgument as error:
                    later.append((name, value, what))
                    refused = error
            if not later:
                return
            left = later
        if refused is not None:
            raise refused

    def _limit_io(self, io: BlockIO) -> None:
        def directory() -> str:
            return self._directory("blkio", "block I/O limit")

        if io.weight:
            name = "blkio.weight" if kernel.has(directory(), "blkio.weight") else "blkio.bfq.weight"
            put(directory(), name, io.weight, what="block I/O weight")
        if io.leaf_weight:
            put(directory(), "blkio.leaf_weight", io.leaf_weight, what="block I/O leaf weight")
        for device in io.weight_device:
            prefix = "blkio" if kernel.has(directory(), "blkio.weight_device") else "blkio.bfq"
            number = f"{device.major}:{device.minor}"
            if device.weight:
                put(directory(), f"{prefix}.weight_device", f"{number} {device.weight}", what="device weight")
            if device.leaf_weight:
                put(directory(), "blkio.leaf_weight_device", f"{number} {device.leaf_weight}", what="device weight")
        for name, throttles in (
            ("read_bps", io.throttle_read_bps_device),
            ("write_bps", io.throttle_write_bps_device),
            ("read_iops", io.throttle_read_iops_device),
            ("write_iops", io.throttle_write_iops_device),
        ):
            for throttle in throttles:
                value = f"{throttle.major}:{throttle.minor} {throttle.rate}"
                put(directory(), f"blkio.throttle.{name}_device", value, what="block I/O throttle")

    def _limit_hugetlb(self, resources: Resources) -> None:
        directory = self.directories.get("hugetlb")
        if directory is None and self.unified is not None:
            return self.unified.limit(Resources(hugepage_limits=resources.hugepage_limits))
        for huge in resources.hugepage_limits:
            name = f"hugetlb.{huge.page_size}"
            place = self._directory("hugetlb", "huge page limit")
            put(place, f"{name}.limit_in_bytes", huge.limit, what="huge page limit")
            if kernel.has(place, f"{name}.rsvd.limit_in_bytes"):
                put(place, f"{name}.rsvd.limit_in_bytes", huge.limit, what="huge page limit")
        return None

    def _mark_network(self, resources: Resources) -> None:
        network = resources.network
        if network is not None and network.class_id:
            put(self._directory("net_cls", "network class"), "net_cls.classid", network.class_id, what="network class")
        for priority in network.priorities if network is not None else []:
            value = f"{priority.name} {priority.priority}"
            put(self._directory("net_prio", "network priority"), "net_prio.ifpriomap", value, what="network priority")

    def _limit_rdma(self, resources: Resources) -> None:
        if "rdma" not in self.directories and self.unified is not None:
            return self.unified.limit(Resources(rdma=resources.rdma))
        for device, limit in resources.rdma.items():
            put(self._directory("rdma", "RDMA limit"), "rdma.max", rdma_line(device, limit), what="RDMA limit")
        return None

    def _allow_devices(self, rules: list[DeviceRule]) -> None:
        """Bring the device lists to what `rules` say by the fewest writes, so that no running access is interrupted."""
        directory = self.directories.get("devices")
        if directory is None:
            return
        wanted = device_filter.policy(rules)
        now = kernel.read(directory, "devices.list").split("\n")
        grant, revoke = (
            ("devices.deny", "devices.allow") if wanted.allow_by_default else ("devices.allow", "devices.deny")
        )
        lines = wanted.lines()
        allows_all_now = now[0].startswith(_EVERY_DEVICE)
        if allows_all_now or wanted.allow_by_default:
            # The list of a cgroup that allows by default does not show its exceptions: start afresh.
            put(directory, revoke, _EVERY_DEVICE, what="device rule")
        else:
            for line in now:
                if line and line not in lines:
                    put(directory, revoke, line, what="device rule")
        for line in lines:
            put(directory, grant, line, what="device rule")


def _cpuset_is_set(directory: str) -> bool:
    return all(kernel.read(directory, name).strip() for name in ("cpuset.cpus", "cpuset.mems"))


def _has_swap(directory: str) -> bool:
    return kernel.has(directory, "memory.memsw.limit_in_bytes")
