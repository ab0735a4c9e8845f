"""The life of a shim process: spare, with a creator beside it; then one container's; then over.

    launcher ─fork─► spare shim ─fork─► its creator, which waits for a request and makes the container (`birth`)
                        │ waits for the handover                   ├─ "taken", or "narud is gone" ──► launcher
                        ▼
                     shim of the container

Both are forked before anybody asks, so a start costs neither fork; and the shim, which stays, touches little memory.
"""

from __future__ import annotations

import os
import signal
import socket

from naru.kernel import prctl
from naru.kernel.process import set_command_line
from naru.shim import protocol
from naru.shim.birth import bear, handover_decoder, start_decoder
from naru.shim.loop import EPOLLIN, Loop
from naru.shim.protocol import FAILURE_FILE
from naru.shim.shim import Shim

TAKEN = b"T"
NARUD_IS_GONE = b"G"

# Below every container's and almost every host process's: who kills a shim loses an exit status, not memory.
_OOM_SCORE_ADJ = -998


def prepare() -> None:
    """Set up, in the launcher, what every shim inherits."""
    # Handlers, not SIG_IGN, which the container would inherit. A service manager that ends narud's whole group sends
    # SIGTERM to shims too; a shim's end is its container's.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignore)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(_OOM_SCORE_ADJ))
    except OSError:
        pass  # needs CAP_SYS_RESOURCE


def be_spare(requests: socket.socket, launcher: int) -> None:
    """Be a spare shim, then one container's, until there is nothing left to serve.

    `requests` is narud's socket; `launcher` a pipe for TAKEN or NARUD_IS_GONE.
    """
    os.setsid()
    prctl.set_child_subreaper(True)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, _ignore)
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    shim_pid = os.getpid()
    if os.fork() == 0:
        channel.close()
        _be_creator(requests, launcher, theirs, shim_pid)
    theirs.close()
    requests.close()
    os.close(launcher)
    message = protocol.receive(channel)
    channel.close()
    if message is not None:
        _serve(*message)


def _ignore(_number: int, _frame: object) -> None:
    pass


def _be_creator(requests: socket.socket, launcher: int, shim: socket.socket, shim_pid: int) -> None:
    """Wait for a request, carry it out, hand over; never returns."""
    status = 1
    try:
        message = protocol.receive(requests)
        os.write(launcher, NARUD_IS_GONE if message is None else TAKEN)
        os.close(launcher)
        requests.close()
        if message is not None:
            body, fds = message
            bear(start_decoder.decode(body), fds, shim, shim_pid)
        status = 0
    except BaseException:
        import traceback  # 0.6 MB that only a failure needs

        traceback.print_exc()
    finally:
        os._exit(status)


def _serve(body: bytes, fds: list[int]) -> None:
    handover = handover_decoder.decode(body)
    try:
        _leave_narud(handover.container_id)
        loop = Loop()
        shim = Shim(loop, handover, fds)
        _wake_on_signals(loop, shim)
        shim.reap()
        loop.run()
    except BaseException:
        with open(os.path.join(handover.directory, FAILURE_FILE), "w") as file:
            import traceback  # 0.6 MB that only a failure needs

            traceback.print_exc(file=file)
        raise


def _leave_narud(container_id: str) -> None:
    """Let go of what the launcher shares with narud, and be somebody in a list of processes."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd, inheritable=False)
    os.close(null)
    prctl.set_name("naru-shim")
    set_command_line(f"naru-shim {container_id}")


def _wake_on_signals(loop: Loop, shim: Shim) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def woken(_events: int) -> None:
        os.read(reader, 512)
        shim.reap()

    loop.watch(reader, EPOLLIN, woken)
