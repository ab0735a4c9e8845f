"""Keeping the host's Python interpreter out of containers' reach: run it from a read-only copy of the mount tree.

A container whose entrypoint is (a link or script interpreter line leading to) /proc/self/exe makes its own init
execute what the runtime executes, and then opens that for writing once nobody runs it (CVE-2019-5736). So the
runtime's own program is executed through a detached, read-only clone of the mounts: /proc/PID/exe then is a file on
a read-only mount that is attached nowhere, and cannot be made writable by anybody. docs/adr/0002-proc-self-exe.md
"""

from __future__ import annotations

import os
import sys

from naru.kernel import mount as m


def is_protected() -> bool:
    """Say whether this process's program lies on a read-only mount."""
    fd = os.open("/proc/self/exe", os.O_PATH | os.O_CLOEXEC)
    try:
        return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
    finally:
        os.close(fd)


def protect() -> None:
    """Return if this process is protected; else start it again so that it is. Call it first thing in `main`.

    The same command line and environment; nothing the process has done or opened (close-on-exec) survives. One start
    of the interpreter more: 15 ms. OSError: EPERM without CAP_SYS_ADMIN.
    """
    if is_protected():
        return
    program = os.readlink("/proc/self/exe")
    tree = m.open_tree(m.AT_FDCWD, "/", clone=True, recursive=True)
    m.mount_setattr(tree, attr_set=m.MOUNT_ATTR_RDONLY, propagation=m.MS_PRIVATE, recursive=True)
    read_only = os.open(program.lstrip("/"), os.O_PATH | os.O_CLOEXEC, dir_fd=tree)
    if not os.fstatvfs(read_only).f_flag & os.ST_RDONLY:
        raise OSError(f"{program}: a read-only clone of its mount is not read-only")
    os.execve(f"/proc/self/fd/{read_only}", sys.orig_argv, os.environ)
