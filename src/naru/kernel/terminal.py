"""Pseudoterminals of a given devpts instance, window size and controlling terminal. pty(7), ioctl_tty(2)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from naru.kernel.mount import DEVPTS_SUPER_MAGIC, filesystem_magic
from naru.kernel.openat2 import openat2

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_pty(devpts_fd: int) -> tuple[int, int]:
    """Open a new (master, slave) pair in the devpts instance whose directory is `devpts_fd`; the caller owns both.

    The slave comes from the master itself, not from a path, so nothing in between can be swapped.
    OSError: ENODEV if `devpts_fd` is not a devpts.
    """
    master = openat2(devpts_fd, "ptmx", os.O_RDWR | os.O_NOCTTY)
    try:
        if filesystem_magic(master) != DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENODEV, "ptmx is not on a devpts")
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        raise
    return master, slave


def set_window_size(fd: int, *, columns: int, rows: int) -> None:
    """Set the terminal's size; its foreground process group gets SIGWINCH. TIOCSWINSZ"""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def set_controlling_terminal(fd: int) -> None:
    """Make the terminal `fd` the controlling one of this session; the caller is its leader. TIOCSCTTY"""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
