"""PID 1 of a container started with `--init`: forwards signals, reaps orphans, exits with the command's status.

It is the forked runtime process itself, not a program put into the container: nothing to mount, and its pages stay
shared with the launcher (about 0.6 MB of its own). Its memory is the launcher's, so it stays non-dumpable for
good, and it runs with the command's user, capabilities and seccomp program.
"""

from __future__ import annotations

import os
import signal

from naru.kernel.prctl import set_name
from naru.kernel.process import close_range, set_command_line
from naru.runtime.step import Workspace

_NAME = "docker-init"


def become_reaper(work: Workspace) -> None:
    """Fork: return in the child, which goes on to be the command; the caller stays behind as PID 1 for good."""
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    pid = os.fork()
    if pid == 0:
        _lead_terminal()
        return
    try:
        set_name(_NAME)
        set_command_line(f"/sbin/{_NAME} -- {' '.join(work.arguments)}")
    except OSError:
        pass  # no /proc in this container: nobody can see the name
    close_range(0)
    os._exit(_reap_until(pid))


def _lead_terminal() -> None:
    """Take a process group of one's own to the foreground, so that Ctrl-C reaches the command once, not twice."""
    os.setpgid(0, 0)
    try:
        os.tcsetpgrp(0, os.getpid())  # SIGTTOU is blocked
    except OSError:
        pass  # not a terminal


def _reap_until(main: int) -> int:
    """Reap and forward until process `main` ends; return its status as a shell would."""
    waited = signal.valid_signals()
    while True:
        number = signal.sigwait(waited)
        if number != signal.SIGCHLD:
            try:
                os.kill(main, number)
            except ProcessLookupError:
                pass
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == main:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
