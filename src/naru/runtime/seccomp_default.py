"""The seccomp profile of a container that asks for no other: what programs use, and nothing that reaches the host.

Deny by default with EPERM, as Docker's default profile does and with its meaning: calls that only act on the caller
or on what it was given are allowed always; calls that a capability guards are allowed to whoever has it; calls that
make or enter namespaces, which without a filter any user could do in a user namespace, need CAP_SYS_ADMIN. Tables
are by purpose, so that a new kernel's calls can be put where they belong.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable

from naru.oci.runtime import Seccomp, SyscallArg, SyscallRule
from naru.runtime.capability import DEFAULT_CAPABILITIES
from naru.runtime.seccomp import compile_profile, native_architectures

_ALWAYS = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek sendfile sendfile64
splice tee vmsplice copy_file_range readahead
open openat openat2 creat close close_range dup dup2 dup3 pipe pipe2 fcntl fcntl64 flock ioctl
fsync fdatasync sync syncfs sync_file_range fallocate ftruncate ftruncate64 truncate truncate64
fadvise64 fadvise64_64 cachestat

stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64
access faccessat faccessat2 getdents getdents64 getcwd chdir fchdir
link linkat symlink symlinkat readlink readlinkat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir
mknod mknodat chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 umask
utime utimes futimesat utimensat utimensat_time64 name_to_handle_at file_getattr file_setattr
getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark

brk mmap mmap2 munmap mremap mprotect mincore msync mlock mlock2 mlockall munlock munlockall mseal
remap_file_pages memfd_create memfd_secret membarrier map_shadow_stack pkey_alloc pkey_free pkey_mprotect

select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64

socketcall socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt
send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64

ipc msgget msgctl msgsnd msgrcv semget semctl semop semtimedop semtimedop_time64 shmget shmctl shmat shmdt
mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64
futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue get_robust_list set_robust_list rseq
rseq_slice_yield

fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill pause
pidfd_open pidfd_send_signal process_mrelease prctl seccomp landlock_create_ruleset landlock_add_rule
landlock_restrict_self set_tid_address get_thread_area set_thread_area restart_syscall
getpid getppid gettid getpgid getpgrp setpgid getsid setsid
sigaltstack sigprocmask sigreturn rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getgroups getgroups32 getresuid getresuid32
getresgid getresgid32 setuid setuid32 setgid setgid32 setgroups setgroups32 setreuid setreuid32 setregid setregid32
setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 capget capset
getpriority setpriority ioprio_get ioprio_set getrlimit ugetrlimit setrlimit prlimit64 getrusage getcpu
sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam sched_getscheduler
sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64
sched_yield

time times gettimeofday adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 nanosleep alarm getitimer setitimer
timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
uname sysinfo getrandom

process_vm_readv process_vm_writev ptrace
"""

# Calls of one architecture. ptrace above is safe since Linux 4.8: a tracer can no longer change a call after the
# filter has seen it.
_ALWAYS_ON = {
    "SCMP_ARCH_X86_64": "arch_prctl modify_ldt uretprobe",
    "SCMP_ARCH_AARCH64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
}

# What a capability adds.
_WITH_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount listns lookup_dcookie mount
        mount_setattr move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname
        sethostname setns statmount syslog umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

# Every CLONE_NEW flag of linux/sched.h that fits clone(2): a thread or child is fine, a namespace is not.
_CLONE_NAMESPACES = 0x7E020000
# PER_LINUX, PER_LINUX32, each also with UNAME26, and 0xffffffff, which only asks. linux/personality.h
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_VSOCK = 40
_MADV_MERGEABLE = 12
_INT = 0xFFFFFFFF


def default_profile(capabilities: Collection[str]) -> Seccomp:
    """Return the profile for a process that will have `capabilities` (CAP_… names) on this machine."""
    architectures = native_architectures()
    own = "".join(f" {names}" for architecture, names in _ALWAYS_ON.items() if architecture in architectures)
    added = [names for capability, names in _WITH_CAPABILITY.items() if capability in capabilities]
    rules = [_allow(_ALWAYS + own)]
    rules += [_allow(names) for names in added]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules += _clone_without_namespaces()
    rules += _socket_but_not_to_the_hypervisor()
    rules += _advise_but_not_to_merge()
    rules += [_allow("personality", _argument("SCMP_CMP_EQ", value)) for value in _PERSONALITIES]
    return Seccomp(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=errno.EPERM,
        architectures=list(architectures),
        syscalls=rules,
    )


def precompile() -> None:
    """Compile what most containers ask for, so that every process forked from this one finds it in memory."""
    compile_profile(default_profile(DEFAULT_CAPABILITIES))


def _allow(names: str, *args: SyscallArg) -> SyscallRule:
    return SyscallRule(names=names.split(), action="SCMP_ACT_ALLOW", args=list(args))


def _argument(op: str, value: int, value_two: int = 0) -> SyscallArg:
    return SyscallArg(index=0, op=op, value=value, value_two=value_two)


def _clone_without_namespaces() -> Iterable[SyscallRule]:
    """clone3 passes its flags in memory, where no filter can look: ENOSYS makes a libc use clone instead."""
    return [
        _allow("clone", _argument("SCMP_CMP_MASKED_EQ", _CLONE_NAMESPACES)),
        SyscallRule(names=["clone3"], action="SCMP_ACT_ERRNO", errno_ret=errno.ENOSYS),
    ]


def _advise_but_not_to_merge() -> Iterable[SyscallRule]:
    """Who can have pages merged can find out, by how long a write takes, that another process has the same content.

    EINVAL is what a kernel without KSM says, so programs go on without. madvise(2), MADV_MERGEABLE
    """
    merge = SyscallArg(index=2, op="SCMP_CMP_MASKED_EQ", value=_INT, value_two=_MADV_MERGEABLE)
    return [
        SyscallRule(names=["madvise"], action="SCMP_ACT_ERRNO", errno_ret=errno.EINVAL, args=[merge]),
        _allow("madvise"),
    ]


def _socket_but_not_to_the_hypervisor() -> Iterable[SyscallRule]:
    """vsock has no namespaces: a container would talk as the host does.

    The kernel takes the family as an int. Testing all 64 bits for "not 40", as the usual form of this rule does,
    lets 0x100000028 through, which is AF_VSOCK to the kernel.
    """
    vsock = _argument("SCMP_CMP_MASKED_EQ", _INT, _AF_VSOCK)
    return [
        SyscallRule(names=["socket"], action="SCMP_ACT_ERRNO", errno_ret=errno.EPERM, args=[vsock]),
        _allow("socket"),
    ]
