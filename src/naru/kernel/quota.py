"""Project quotas: directories whose contents together may hold so many bytes. ext4 and xfs, mounted with `prjquota`.

A directory given to a project hands the project on to everything made in it. ioctl_fsgetxattr(2) (xfsprogs),
quotactl(2); quotactl_fd needs Linux 5.14.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from naru.kernel.libc import syscall

_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FSXATTR = struct.Struct("5I8x")  # xflags, extent size, extents, project, extent size of copies on write
_FS_XFLAG_PROJINHERIT = 0x200
_Q_SETQUOTA = 0x800008
_PRJQUOTA = 2
_QIF_BLIMITS = 1
_BLOCK = 1024


class _Limits(ctypes.Structure):
    """struct if_dqblk; block limits in units of 1 KiB."""

    _fields_ = [
        *(
            (name, ctypes.c_uint64)
            for name in ("bhard", "bsoft", "space", "ihard", "isoft", "inodes", "btime", "itime")
        ),
        ("valid", ctypes.c_uint32),
    ]


_quotactl_fd = syscall("quotactl_fd", 443, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)


def project_of(directory_fd: int) -> int:
    """Return the project that a directory belongs to, 0 for none. OSError: ENOTTY where there are no projects."""
    return int(_FSXATTR.unpack(fcntl.ioctl(directory_fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))[3])


def give_to_project(directory_fd: int, project: int) -> None:
    """Make a directory, empty as yet, and all that will be in it a part of `project`.

    OSError: ENOTTY or EOPNOTSUPP where the file system knows no projects.
    """
    now = _FSXATTR.unpack(fcntl.ioctl(directory_fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))
    flags = now[0] | _FS_XFLAG_PROJINHERIT
    fcntl.ioctl(directory_fd, _FS_IOC_FSSETXATTR, _FSXATTR.pack(flags, now[1], now[2], project, now[4]))


def limit_project(directory_fd: int, project: int, size_bytes: int) -> None:
    """Limit what `project` holds on the file system of `directory_fd`; 0 ends the limit.

    OSError: ESRCH where quotas of projects are not on, ENOSYS before Linux 5.14.
    """
    limits = _Limits(bhard=-(-size_bytes // _BLOCK), bsoft=0, valid=_QIF_BLIMITS)
    _quotactl_fd(directory_fd, _Q_SETQUOTA << 8 | _PRJQUOTA, project, ctypes.byref(limits))


def limit_directories(paths: tuple[str, ...], project: int, size_bytes: int) -> None:
    """Limit what new, empty directories of one file system will hold together. OSError as above, and nothing done."""
    descriptors = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in paths]
    try:
        limit_project(descriptors[0], project, size_bytes)
        for descriptor in descriptors:
            give_to_project(descriptor, project)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
