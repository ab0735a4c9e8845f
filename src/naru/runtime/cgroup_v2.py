"""Cgroup version 2: one directory, with controllers switched on from the top down.

A controller's files exist in a cgroup only if all its ancestors list it in cgroup.subtree_control, which the kernel
refuses for an ancestor (but the real root) that has processes of its own. kernel documentation, cgroup-v2
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress

from msgspec import Struct

from naru.errors import Conflict, NaruError, Unavailable, Unsupported
from naru.kernel import cgroup as kernel
from naru.kernel import inotify
from naru.oci.runtime import CPU, BlockIO, DeviceRule, Memory, Resources
from naru.runtime import cgroup_stats_v2, device_filter
from naru.runtime.cgroup_directory import REMOVE_TIMEOUT_S, remove_tree, resolve, signal_all
from naru.runtime.cgroup_stats import CgroupMount, CgroupStats, CgroupView
from naru.runtime.cgroup_values import MAX, cpu_weight, io_weight, limit_or_max, put, rdma_line, swap_max

_FREEZE_TIMEOUT_S = 10.0
_KILL_TIMEOUT_S = 10.0


class CgroupV2(Struct, frozen=True):
    """A container's cgroup, or the version 2 half of one on a hybrid host."""

    path: str
    directory: str
    mount_point: str

    @classmethod
    def at(cls, path: str, hierarchy: kernel.Hierarchy, own: Mapping[str, str]) -> CgroupV2:
        """Return the cgroup at `path`, which need not exist; a relative path is below this process's own cgroup."""
        return cls(path, resolve(path, hierarchy, own.get("", "/")), hierarchy.mount_point)

    # Lifecycle

    def create(self, resources: Resources) -> None:
        """Make the directory and set the limits; nothing is left if that fails."""
        try:
            self.make_directories()
            self.limit(resources)
            self._allow_devices([*resources.devices, *device_filter.DEFAULT_RULES])
        except BaseException as error:
            try:
                self.remove(timeout_s=0)
            except (OSError, NaruError) as undo:
                error.add_note(f"undo: {undo}")
            raise

    def make_directories(self) -> None:
        """Make the cgroup and its missing ancestors, and switch on in them every controller there is."""
        os.makedirs(self.directory, exist_ok=True)
        below = os.path.relpath(self.directory, self.mount_point).split("/")
        ancestors = ["/".join([self.mount_point, *below[:depth]]) for depth in range(len(below))]
        for ancestor in ancestors:
            _switch_on(ancestor)

    @property
    def exists(self) -> bool:
        return os.path.isdir(self.directory)

    def join(self, pid: int, *, beside: int | None = None) -> None:
        """Move the process `pid` (0: the caller) in, with all its threads.

        A container that manages cgroups itself has moved its processes into children of this one, and the kernel
        then refuses this one (EBUSY): the newcomer goes where the process `beside`, the container's init, is.
        OSError: ESRCH if it is gone.
        """
        try:
            kernel.write(self.directory, "cgroup.procs", str(pid))
        except OSError as error:
            if error.errno != errno.EBUSY or beside is None:
                raise
            kernel.write(self._of_process(beside), "cgroup.procs", str(pid))

    def directory_fd(self, *, beside: int | None = None) -> int | None:
        """Return an open directory for CLONE_INTO_CGROUP, owned by the caller; `beside` as for `join`."""
        directory = self.directory if beside is None else self._of_process(beside)
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def entrances(self) -> tuple[str, ...]:
        """None: version 2 is entered by birth, through `directory_fd`."""
        return ()

    def _of_process(self, pid: int) -> str:
        path = kernel.membership(pid)[""]
        directory = f"{self.mount_point}{path}"
        return directory if directory.startswith(f"{self.directory}/") else self.directory

    def update(self, resources: Resources) -> None:
        """Change the limits that `resources` gives; device rules replace all earlier ones if there are any."""
        self.limit(resources)
        if resources.devices:
            self._allow_devices([*resources.devices, *device_filter.DEFAULT_RULES])

    def remove(self, *, kill: bool = False, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Remove the cgroup and all below it; nothing if it is gone. `kill`: kill what is inside first.

        Conflict: processes are still inside after `timeout_s`.
        """
        if kill:
            self.kill_all(signal.SIGKILL)
        remove_tree(self.directory, time.monotonic() + timeout_s)

    # Processes

    def processes(self) -> list[int]:
        """Return every process in the container, those in cgroups it made itself included."""
        return kernel.processes(self.directory)

    def kill_at_once(self) -> bool:
        """Kill everything inside in one step, forks in flight included; False before Linux 5.14, or if it is gone."""
        try:
            kernel.write(self.directory, "cgroup.kill", "1")
        except FileNotFoundError:
            return False
        return True

    def kill_all(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to every process inside; after SIGKILL, wait until none is left but zombies.

        Unavailable: processes survive SIGKILL for 10 s (uninterruptible sleep).
        """
        if signal_number != signal.SIGKILL:
            signal_all(self.processes(), signal_number)
            return
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        at_once = self.kill_at_once()
        while pids := self.processes():
            if not at_once:
                # Frozen, so that none of them forks away while the list is worked through; SIGKILL wakes them.
                with suppress(OSError):
                    kernel.write(self.directory, "cgroup.freeze", "1")
                signal_all(pids, signal.SIGKILL)
                with suppress(OSError):
                    kernel.write(self.directory, "cgroup.freeze", "0")
            self.await_empty(deadline)

    def await_empty(self, deadline: float) -> None:
        """Wait until no process but zombies is inside. Unavailable: some still are at the deadline (monotonic)."""
        try:
            self._await_event("populated", 0, deadline)
        except Unavailable:
            raise Unavailable(f"cgroup {self.path}: processes {self.processes()} do not go away") from None

    # Freezing

    def freeze(self, *, timeout_s: float = _FREEZE_TIMEOUT_S) -> None:
        """Stop every process until `thaw`. Unavailable: some could not be stopped in time; they run again."""
        put(self.directory, "cgroup.freeze", 1, what="pausing")
        try:
            self._await_event("frozen", 1, time.monotonic() + timeout_s)
        except Unavailable:
            self.thaw()
            raise

    def thaw(self) -> None:
        """Let the processes run again."""
        put(self.directory, "cgroup.freeze", 0, what="pausing")

    def is_frozen(self) -> bool:
        try:
            return kernel.read(self.directory, "cgroup.freeze").strip() == "1"
        except FileNotFoundError:
            return False

    def _await_event(self, key: str, value: int, deadline: float) -> None:
        """Wait until cgroup.events says `key` is `value`, or the cgroup is gone."""
        try:
            events = os.open(f"{self.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            changed = select.poll()
            changed.register(events, select.POLLPRI)
            while kernel.flat_keyed(os.pread(events, 4096, 0).decode()).get(key) != value:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise Unavailable(f"cgroup {self.path}: {key} did not become {value} in time")
                changed.poll(left_s * 1000)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        finally:
            os.close(events)

    # Observation

    def stats(self) -> CgroupStats:
        """Return what was used so far. NotFound: the cgroup is gone."""
        return cgroup_stats_v2.collect(self.path, self.directory)

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed here, descendants included, for want of memory."""
        try:
            return kernel.flat_keyed(kernel.read(self.directory, "memory.events")).get("oom_kill", 0)
        except FileNotFoundError:
            return 0

    def oom_fd(self) -> int:
        """Return a non-blocking descriptor that becomes readable when `oom_kills` may have grown.

        The caller reads it empty, asks `oom_kills`, and closes it. It also becomes readable when the cgroup goes.
        """
        name = "memory.events" if kernel.has(self.directory, "memory.events") else "cgroup.events"
        return inotify.watch(f"{self.directory}/{name}", inotify.IN_MODIFY)

    def view(self, *, private: bool) -> CgroupView:
        """Return what the container's /sys/fs/cgroup consists of; `private`: it has a cgroup namespace."""
        source = "" if private else self.directory
        return CgroupView(False, (CgroupMount("", "cgroup2", source),))

    # Limits

    def limit(self, resources: Resources) -> None:
        """Set the limits given; device rules are not among them."""
        if resources.memory is not None:
            self._limit_memory(resources.memory)
        if resources.cpu is not None:
            self._limit_cpu(resources.cpu)
        if resources.pids is not None:
            self._put("pids.max", resources.pids.limit if resources.pids.limit > 0 else MAX, "pids limit")
        if resources.block_io is not None:
            self._limit_io(resources.block_io)
        for huge in resources.hugepage_limits:
            self._put(f"hugetlb.{huge.page_size}.max", huge.limit, "huge page limit")
            if kernel.has(self.directory, f"hugetlb.{huge.page_size}.rsvd.max"):
                self._put(f"hugetlb.{huge.page_size}.rsvd.max", huge.limit, "huge page limit")
        for device, rdma in resources.rdma.items():
            self._put("rdma.max", rdma_line(device, rdma), "RDMA limit")
        for name, value in resources.unified.items():
            if "/" in name or "." not in name:
                raise Unsupported(f"cgroup: {name!r} is not the name of a setting")
            for line in value.splitlines():
                self._put(name, line, name)

    def _put(self, name: str, value: str | int, what: str) -> None:
        try:
            put(self.directory, name, value, what=what)
        except Unsupported as error:
            controller = name.partition(".")[0]
            offered = kernel.read(self.mount_point, "cgroup.controllers").split()
            if controller in offered:
                error.hint = f"{controller} is not switched on down to {self.path}: an ancestor has its own processes"
            raise

    def _limit_memory(self, memory: Memory) -> None:
        if memory.limit is not None and memory.limit >= 0 and memory.check_before_update:
            used = int(kernel.read(self.directory, "memory.current"))
            if used > memory.limit:
                raise Conflict(f"cgroup: memory limit {memory.limit}: {used} bytes are in use")
        swap = None
        if memory.swap is not None and memory.swap != 0:
            swap = swap_max(memory.swap, memory.limit)
        elif memory.limit is not None and memory.limit < 0:
            swap = MAX
        if swap is not None and (swap != MAX or kernel.has(self.directory, "memory.swap.max")):
            self._put("memory.swap.max", swap, "swap limit")
        if memory.limit is not None:
            self._put("memory.max", limit_or_max(memory.limit), "memory limit")
        if memory.reservation is not None:
            self._put("memory.low", limit_or_max(memory.reservation), "memory reservation")

    def _limit_cpu(self, cpu: CPU) -> None:
        if cpu.idle is not None:
            self._put("cpu.idle", cpu.idle, "idle CPU")
        if cpu.shares and not cpu.idle:
            self._put("cpu.weight", cpu_weight(cpu.shares), "CPU shares")
        if cpu.quota is not None or cpu.period:
            self._limit_bandwidth(cpu)
        elif cpu.burst is not None:
            self._put("cpu.max.burst", cpu.burst, "CPU burst")
        if cpu.cpus:
            self._put("cpuset.cpus", cpu.cpus, "CPU set")
        if cpu.mems:
            self._put("cpuset.mems", cpu.mems, "memory nodes")

    def _limit_bandwidth(self, cpu: CPU) -> None:
        """A burst may not exceed the quota at any moment: it goes down before and up after."""
        now_quota, now_period = self._read("cpu.max").split()
        quota = now_quota if cpu.quota is None else MAX if cpu.quota <= 0 else str(cpu.quota)
        limit = f"{quota} {cpu.period or now_period}"
        if cpu.burst is None:
            self._put("cpu.max", limit, "CPU quota")
            return
        self._put("cpu.max.burst", 0, "CPU burst")
        self._put("cpu.max", limit, "CPU quota")
        self._put("cpu.max.burst", cpu.burst, "CPU burst")

    def _read(self, name: str) -> str:
        try:
            return kernel.read(self.directory, name)
        except FileNotFoundError:
            raise Unsupported(f"cgroup: {name} is not supported on this host") from None

    def _limit_io(self, io: BlockIO) -> None:
        bfq = kernel.has(self.directory, "io.bfq.weight")
        if io.weight:
            name, weight = ("io.bfq.weight", io.weight) if bfq else ("io.weight", io_weight(io.weight))
            self._put(name, weight, "block I/O weight")
        for device in io.weight_device:
            if device.weight:
                name, weight = ("io.bfq.weight", device.weight) if bfq else ("io.weight", io_weight(device.weight))
                self._put(name, f"{device.major}:{device.minor} {weight}", "device weight")
        for key, throttles in (
            ("rbps", io.throttle_read_bps_device),
            ("wbps", io.throttle_write_bps_device),
            ("riops", io.throttle_read_iops_device),
            ("wiops", io.throttle_write_iops_device),
        ):
            for throttle in throttles:
                value = f"{throttle.major}:{throttle.minor} {key}={throttle.rate or MAX}"
                self._put("io.max", value, "block I/O throttle")

    def _allow_devices(self, rules: list[DeviceRule]) -> None:
        policy = device_filter.policy(rules)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            device_filter.attach(descriptor, device_filter.compile_policy(policy))
        finally:
            os.close(descriptor)


def _switch_on(directory: str) -> None:
    """Hand every controller of the cgroup on to its children; what cannot be is found missing when it is needed."""
    offered = set(kernel.read(directory, "cgroup.controllers").split())
    missing = offered - set(kernel.read(directory, "cgroup.subtree_control").split())
    if not missing:
        return
    try:
        kernel.write(directory, "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(missing)))
    except OSError:
        # One that cannot be (cpu with real-time processes elsewhere, EBUSY) must not take the others with it.
        for name in sorted(missing):
            with suppress(OSError):
                kernel.write(directory, "cgroup.subtree_control", f"+{name}")
