"""From a spec's process to the steps between entering the root and execve: limits, user, capabilities, seccomp.

Two orders, as the kernel asks for: without no_new_privs loading a seccomp program needs CAP_SYS_ADMIN, so it comes
before capabilities are dropped; with it the program comes last, and so also confines least of our own work.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import stat

from naru.errors import InvalidArgument
from naru.kernel import prctl
from naru.kernel.process import close_range, join_session_keyring
from naru.kernel.terminal import set_controlling_terminal
from naru.oci.runtime import Capabilities, Linux, Process, Rlimit, User
from naru.runtime import capability, command
from naru.runtime.identity import look_up
from naru.runtime.rootfs import write_procfs
from naru.runtime.scheduling import plan_scheduling
from naru.runtime.seccomp import compile_profile, load
from naru.runtime.step import Refused, Step, Workspace

_NULL_DEVICE = os.makedev(1, 3)
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SetOomScore(Step, frozen=True):
    """Set the badness adjustment; through the host's procfs, so before the root is entered."""

    value: int

    def __str__(self) -> str:
        return "set oom_score_adj"

    def run(self, work: Workspace) -> None:
        write_procfs("self/oom_score_adj", str(self.value))


class SetProfile(Step, frozen=True):
    """Ask for an AppArmor profile or SELinux label from execve on; through the host's procfs."""

    file: str
    value: str

    def __str__(self) -> str:
        return f"set security label {self.value}"

    def run(self, work: Workspace) -> None:
        write_procfs(self.file, self.value)


class NewKeyring(Step, frozen=True):
    """Leave the session keyring of whoever started us."""

    name: str

    def __str__(self) -> str:
        return "join a new session keyring"

    def run(self, work: Workspace) -> None:
        try:
            join_session_keyring(self.name)
        except OSError as error:
            if error.errno != errno.ENOSYS:  # a kernel without keyrings has none to leak
                raise


class SetRlimits(Step, frozen=True):
    """Set resource limits. Raising a hard limit needs CAP_SYS_RESOURCE on the host."""

    limits: tuple[Rlimit, ...]

    def __str__(self) -> str:
        return "set rlimits"

    def run(self, work: Workspace) -> None:
        for limit in self.limits:
            kind = getattr(resource, limit.type)
            try:
                resource.setrlimit(kind, (_limit_value(limit.soft), _limit_value(limit.hard)))
            except ValueError as error:
                hard = resource.getrlimit(kind)[1]
                raise Refused(
                    f"{limit.type}: cannot set {limit.soft}:{limit.hard} with a hard limit of {hard} "
                    f"({str(error) or 'not permitted'})"
                ) from None


def _limit_value(value: int) -> int:
    """RLIM_INFINITY is all ones in the spec's unsigned numbers, and -1 in Python's."""
    return resource.RLIM_INFINITY if value in (-1, 2**64 - 1) else value


class Connect(Step, frozen=True):
    """Put the process's standard streams at 0, 1 and 2, in a session of its own; a terminal becomes its own."""

    terminal: bool

    def __str__(self) -> str:
        return "connect standard streams"

    def run(self, work: Workspace) -> None:
        os.setsid()
        streams = work.stdio
        if self.terminal:
            streams = (work.console,) * 3
            set_controlling_terminal(work.console)
        if streams is None:
            return
        copies = [os.dup(fd) for fd in streams]  # first out of the way: they may be 0, 1, 2 in another order
        for place, fd in enumerate(copies):
            if fd > 2:
                os.dup2(fd, place, inheritable=True)
        for fd in copies:
            if fd > 2:
                os.close(fd)


class LookUpUser(Step, frozen=True):
    """Find out who to be, from the container's own files; sets HOME if the environment does not."""

    user: User

    def __str__(self) -> str:
        return ""

    def run(self, work: Workspace) -> None:
        work.identity = look_up(self.user)
        if not work.environment.get("HOME"):
            work.environment["HOME"] = work.identity.home


class GiveStreams(Step, frozen=True):
    """Make the user the owner of its standard streams, so that it may open /dev/stdout again."""

    def __str__(self) -> str:
        return "give standard streams to the user"

    def run(self, work: Workspace) -> None:
        assert work.identity is not None
        for fd in (0, 1, 2):
            try:
                status = os.fstat(fd)
                if status.st_uid == work.identity.uid or status.st_rdev == _NULL_DEVICE:
                    continue
                if not (stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
                    continue
                os.fchown(fd, work.identity.uid, -1)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS, errno.EBADF):
                    raise


class LoadSeccomp(Step, frozen=True):
    """Load the compiled seccomp program."""

    program: bytes
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return "load seccomp program"

    def run(self, work: Workspace) -> None:
        load(self.program, self.flags)


class EnterDirectory(Step, frozen=True):
    """Enter the working directory, as root first, and as the user where root may not.

    Every other descriptor has been closed before, so no path can lead through one to the host; and what was entered
    must be reachable from the root (CVE-2024-21626).
    """

    path: str
    must: bool

    def __str__(self) -> str:
        return f'chdir to cwd ("{self.path}") set in config.json failed'

    def run(self, work: Workspace) -> None:
        if work.cwd_entered:
            return
        try:
            os.chdir(self.path)
        except OSError as error:
            if not self.must and error.errno in (errno.EACCES, errno.EPERM):
                return
            raise OSError(error.errno, os.strerror(error.errno or 0)) from None
        try:
            inside = os.getcwd().startswith("/")
        except OSError:
            inside = False
        if not inside:
            raise Refused("current working directory is outside of container mount namespace root")
        work.cwd_entered = True


class CloseDescriptors(Step, frozen=True):
    """Close all descriptors but the standard ones, the first `preserve` after them, and the way to the parent."""

    preserve: int

    def __str__(self) -> str:
        return "close descriptors"

    def run(self, work: Workspace) -> None:
        keep = 3 + self.preserve
        channel = fcntl.fcntl(work.channel, fcntl.F_DUPFD_CLOEXEC, keep + 2)
        listener = None
        if work.listener is not None:
            listener = fcntl.fcntl(work.listener, fcntl.F_DUPFD_CLOEXEC, keep + 2)
        os.dup2(channel, keep, inheritable=False)
        work.channel.detach()
        work.channel = _adopt(keep)
        close_from = keep + 1
        if listener is not None and work.listener is not None:
            os.dup2(listener, close_from, inheritable=False)
            work.listener.detach()
            work.listener = _adopt(close_from)
            close_from += 1
        close_range(close_from)
        for fd in range(3, keep):
            try:
                os.set_inheritable(fd, True)
            except OSError:
                pass  # a gap in the preserved range


def _adopt(fd: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)


class BecomeUser(Step, frozen=True):
    """Drop the bounding set, take on the groups and user, and then the capability sets."""

    capabilities: Capabilities
    umask: int | None

    def __str__(self) -> str:
        return "become the user"

    def run(self, work: Workspace) -> None:
        identity = work.identity
        assert identity is not None
        capability.apply_bounding(self.capabilities.bounding)
        capability.keep_across_setuid()
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        capability.apply(self.capabilities)
        os.umask(0o022 if self.umask is None else self.umask)


class SetNoNewPrivileges(Step, frozen=True):
    """Set no_new_privs."""

    def __str__(self) -> str:
        return "set no_new_privs"

    def run(self, work: Workspace) -> None:
        prctl.set_no_new_privileges()


class FindCommand(Step, frozen=True):
    """Look the program up as the user, inside the root."""

    def __str__(self) -> str:
        return ""

    def run(self, work: Workspace) -> None:
        work.command = command.find(work.arguments[0], work.environment.get("PATH", _DEFAULT_PATH))


def plan_before_root(process: Process, *, keyring: str) -> list[Step]:
    """Return the steps that need the host's procfs, or that come before anything else."""
    steps: list[Step] = []
    if keyring:
        steps.append(NewKeyring(keyring))
    if process.oom_score_adj is not None:
        steps.append(SetOomScore(process.oom_score_adj))
    if process.apparmor_profile:
        steps.append(SetProfile("self/attr/apparmor/exec", f"exec {process.apparmor_profile}"))
    if process.selinux_label:
        steps.append(SetProfile("self/attr/exec", process.selinux_label))
    return steps


def plan_process(process: Process, linux: Linux | None, *, preserve_fds: int = 0) -> tuple[list[Step], list[Step]]:
    """Return the steps up to "ready to start", and those after the start signal. InvalidArgument: a bad process."""
    if not process.args:
        raise InvalidArgument("process: no arguments")
    if not process.cwd.startswith("/"):
        raise InvalidArgument("process: cwd is not an absolute path")
    for limit in process.rlimits:
        if not limit.type.startswith("RLIMIT_") or not hasattr(resource, limit.type):
            raise InvalidArgument(f"invalid rlimit type: {limit.type}")
    confine: list[Step] = []
    profile = linux.seccomp if linux is not None else None
    if profile is not None:
        confine.append(LoadSeccomp(compile_profile(profile), tuple(profile.flags)))
    ready: list[Step] = [Connect(process.terminal)]
    if process.rlimits:
        ready.append(SetRlimits(tuple(process.rlimits)))
    ready += plan_scheduling(process, linux.personality if linux is not None else None)
    ready += [LookUpUser(process.user), GiveStreams(), CloseDescriptors(preserve_fds)]
    ready.append(EnterDirectory(process.cwd, must=False))  # a profile may forbid getcwd, which it looks with
    if not process.no_new_privileges:
        ready += confine
    ready.append(BecomeUser(process.capabilities or Capabilities(), process.user.umask))
    ready += [EnterDirectory(process.cwd, must=True), FindCommand()]
    start: list[Step] = []
    if process.no_new_privileges:
        start += [SetNoNewPrivileges(), *confine]
    return ready, start


def reset_signals() -> None:
    """Give every signal its default action and let all through: execve keeps ignored and blocked ones."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
