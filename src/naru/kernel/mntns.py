"""Other mount namespaces, looked into by throwaway threads that hand out a descriptor and end.

A thread that has entered a container's namespace has the container's files as its root: it makes its system calls and
nothing else there, for whatever the interpreter or libc loaded would be the container's (CVE-2019-14271). Descriptors
are shared between threads, so what is opened inside is used outside, by openat2. mount_namespaces(7)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from naru.kernel import mount as m
from naru.kernel.process import CLONE_FS, CLONE_NEWNS, setns, unshare


def open_root(pidfd: int) -> int:
    """Open the root of the mount namespace of the process `pidfd`, with all that is mounted below it.

    It is the namespace's own root, whatever the process has made its own by chroot. The caller owns the descriptor.
    OSError: ESRCH if the process is gone. setns(2)
    """
    return _in_throwaway_thread(pidfd, lambda: os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def copy_root(pidfd: int) -> int:
    """Return a detached copy of that root's own mount: what is mounted below it is not there, what it hides is.

    OSError: ESRCH if the process is gone. open_tree(2)
    """
    return _in_throwaway_thread(pidfd, lambda: m.open_tree(m.AT_FDCWD, "/", clone=True))


def with_mounts(root: int, at: str, attach: Callable[[int], None]) -> int:
    """Return a detached copy of the detached mount `root` with what `attach` mounts below it.

    Until Linux 6.15 nothing can be mounted on a detached tree, so it is attached to the directory `at` in a mount
    namespace that only a throwaway thread sees; `attach` runs there, with the tree's root. The caller owns both.
    """

    def assemble() -> int:
        m.mount(None, "/", None, m.MS_PRIVATE | m.MS_REC)
        place = os.open(at, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            m.move_mount(root, place)
        finally:
            os.close(place)
        attach(root)
        return m.open_tree(m.AT_FDCWD, at, clone=True, recursive=True)

    return _in_throwaway_thread(None, assemble)


def _in_throwaway_thread(pidfd: int | None, action: Callable[[], int]) -> int:
    """Run `action` in the mount namespace of `pidfd`, or in a new copy of ours."""
    results: list[int] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            if pidfd is None:
                unshare(CLONE_NEWNS)
            else:
                unshare(CLONE_FS)  # root and working directory are the process's until then: setns would refuse
                setns(pidfd, CLONE_NEWNS)
            results.append(action())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name="mntns", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
