"""The guest's first process: mounts what a host has mounted, runs the tests, says how they went, powers off."""

import ctypes
import os
import sys

MS_BIND, MS_REC, MS_MOVE = 0x1000, 0x4000, 0x2000
FINIT_MODULE = 313
TESTS = ["/naru/tests/test_cgroup.py", "/naru/tests/guest_cgroup.py", "/naru/tests/guest_container.py"]
TESTS += ["/naru/tests/guest_quota.py"]

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    arguments = [text.encode() or None for text in (source, target, kind)]
    if libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def leave_the_initial_root() -> None:
    """The kernel does not let anyone pivot away from its first mount: put another one of the same tree on it."""
    os.mkdir("/next")
    mount("/", "/next", flags=MS_BIND)
    os.chdir("/next")
    mount("/next", "/", flags=MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def main() -> None:
    leave_the_initial_root()
    mount("proc", "/proc", "proc")
    mount("sysfs", "/sys", "sysfs")
    mount("devtmpfs", "/dev", "devtmpfs")
    os.mkdir("/dev/pts")
    mount("devpts", "/dev/pts", "devpts")
    mount("tmpfs", "/tmp", "tmpfs")
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    for name in sorted(os.listdir("/naru/modules")):
        with open(f"/naru/modules/{name}") as module:
            if libc.syscall(FINIT_MODULE, module.fileno(), b"", 0):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    environment = {
        "PATH": "/bin",
        "HOME": "/root",
        "PYTHONPATH": "/naru/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    options = ["-p", "no:cacheprovider", "-p", "no:faulthandler", "-rA", "-q", "--color=no", "--tb=short"]
    options += ["-W", "ignore::pytest.PytestUnknownMarkWarning", "--rootdir=/naru/tests"]
    pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "pytest", *options, *TESTS], environment)
    while True:
        ended, status = os.wait()
        if ended == pid:
            break
    print("GUEST EXIT", os.waitstatus_to_exitcode(status), flush=True)


try:
    main()
except BaseException as error:
    print("GUEST ERROR", repr(error), flush=True)
finally:
    os.sync()
    libc.reboot(0x4321FEDC)
