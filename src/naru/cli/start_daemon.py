"""Starting narud where nobody answers on our own socket: the first command of a fresh machine just works."""

from __future__ import annotations

import fcntl
import os
import sys
import time

from naru.client.address import Address
from naru.client.connection import dial
from naru.errors import Unavailable

RUN_ROOT = "/run/naru"
_SILENCE_S = 1.0
_PATIENCE_S = 30.0  # a first start makes the database and the bridge: 0.5 s here; a host under load took 6


def ensure_running(address: Address) -> None:
    """Return once a daemon answers at `address`, starting ours if the address is our own socket.

    Unavailable: somebody else's daemon does not answer, we are not root, or narud could not start (its last words).
    """
    try:
        dial(address).close()
        return
    except Unavailable:
        if not address.is_default or (os.path.exists(address.path) and not os.access(address.path, os.W_OK)):
            raise
    if os.geteuid() != 0:
        raise Unavailable("no naru daemon is running, and only root can start one", hint="try again with sudo")
    os.makedirs(RUN_ROOT, mode=0o711, exist_ok=True)
    with open(os.path.join(RUN_ROOT, "start.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _start(address)


def _start(address: Address) -> None:
    log_path = os.path.join(RUN_ROOT, "narud.log")
    log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    written = os.fstat(log_fd).st_size
    child = 0
    begun = time.monotonic()
    is_told = False
    while time.monotonic() < begun + _PATIENCE_S:
        try:
            dial(address).close()
            os.close(log_fd)
            return
        except Unavailable:
            pass
        if not child:
            child = _spawn(log_fd)
        elif os.waitpid(child, os.WNOHANG)[0]:
            break
        if not is_told and time.monotonic() > begun + _SILENCE_S:
            print("Starting narud ...", file=sys.stderr, flush=True)
            is_told = True
        time.sleep(0.01)
    with open(log_path, "rb") as log:
        log.seek(written)
        words = log.read().decode(errors="replace").strip().splitlines()
    reason = words[-1] if words else "it said nothing"
    raise Unavailable(f"narud did not start: {reason}", hint=f"its log is {log_path}")


def _spawn(log_fd: int) -> int:
    """Start narud in a session of its own, with the environment of this first command."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        os.chdir("/")
        os.umask(0o022)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        os.execv(sys.executable, [sys.executable, "-I", "-m", "naru.daemon"])
    finally:
        os._exit(127)
