"""Being the terminal of a container: `run` and `exec` in the foreground, and handing a console to somebody else."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def send_console(socket_path: str, console: int) -> None:
    """Send a console's master over the unix socket at `socket_path`, with its name as the message."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.connect(socket_path)
        socket.send_fds(connection, [b"/dev/ptmx"], [console])


def attend(pid: int, pidfd: int, console: int | None) -> int:
    """Relay the terminal, forward signals, and return the status of `pid`, our child, as a shell would."""
    previous = {number: signal.signal(number, lambda got, _frame: _forward(pidfd, got)) for number in _FORWARDED}
    try:
        if console is not None:
            _relay(console, pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _forward(pidfd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def _relay(console: int, pidfd: int) -> None:
    """Copy between our terminal, if it is one, and the console until the process has ended and all is read."""
    ours = os.isatty(0)
    saved = termios.tcgetattr(0) if ours else None
    if ours:
        tty.setraw(0)
        _copy_size(console)
        signal.signal(signal.SIGWINCH, lambda _number, _frame: _copy_size(console))
    sources = [0, console, pidfd]
    try:
        while console in sources:
            ready, _write, _error = select.select(sources, [], [], 0 if pidfd not in sources else None)
            if not ready:
                return
            if pidfd in ready:
                sources = [console]
            if 0 in ready:
                data = os.read(0, 65536)
                if data:
                    os.write(console, data)
                else:
                    sources.remove(0)
            if console in ready and not _copy(console, 1):
                return
    finally:
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)


def _copy(source: int, target: int) -> bool:
    """Copy once; False when every slave is closed, which a master reports as EIO."""
    try:
        data = os.read(source, 65536)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    while data:
        data = data[os.write(target, data) :]
    return True


def _copy_size(console: int) -> None:
    size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(struct.calcsize("HHHH")))
    fcntl.ioctl(console, termios.TIOCSWINSZ, size)
