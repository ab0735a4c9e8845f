"""The lean, single-threaded process that shims are forked from.

narud forks the launcher before it imports anything large: a shim's memory and the time to fork it grow with its
parent. The launcher always has a spare shim forked, whose creator waits in recvmsg on narud's socket (`shim.main`), so
that a request costs no fork and no hop; when one is taken, the next is forked while the container starts.

It decides nothing and knows nothing of containers. It ends when narud's socket closes; the shims do not.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time

_DEATHS_MAX = 20
_DEATH_PAUSE_S = 0.01


def spawn() -> tuple[int, socket.socket]:
    """Fork the launcher; return its pid and the socket for requests, whose closing ends it.

    Call it first thing in narud's main: before any thread, and before asyncio, HTTP or the database are imported.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    status = 1
    try:
        ours.close()
        _become_launcher(theirs)
        serve(theirs)
        status = 0
    except BaseException:
        import traceback  # 0.6 MB that only a failure needs

        traceback.print_exc()
    finally:
        os._exit(status)


def _become_launcher(requests: socket.socket) -> None:
    from naru.kernel import prctl
    from naru.kernel.process import close_range, set_command_line

    os.setsid()  # what a terminal sends to narud is not for us
    prctl.set_name("naru-launcher")
    set_command_line("naru-launcher")
    os.chdir("/")
    os.umask(0o022)
    keep = requests.fileno()
    if keep > 3:
        close_range(3, keep - 1)
    close_range(keep + 1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps our shims; they undo this for themselves


def serve(requests: socket.socket) -> None:
    """Keep one spare shim waiting on `requests` until narud is gone."""
    # Imported here and not at the top, so that narud does not wait; before the freeze, so that all shims share it.
    from naru.kernel.memory import allow_merging, give_back_free
    from naru.shim import birth, main

    birth.warm_up()
    main.prepare()
    gc.collect()
    give_back_free()  # what imports needed: every shim would share it
    allow_merging()  # shims write the same to the same pages, which makes each a copy: see daemon.merging
    gc.freeze()
    gc.disable()
    deaths = 0
    while True:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError as error:
            os.close(reader)
            os.close(writer)
            if not _refuse(requests, error):
                return
            continue
        if pid == 0:
            os.close(reader)
            _be_spare(requests, writer)
        os.close(writer)
        word = os.read(reader, 1)
        os.close(reader)
        if word == main.NARUD_IS_GONE:
            return
        # A spare that ends without a word was killed (a request that it had taken is lost with it), or cannot live.
        deaths = 0 if word else deaths + 1
        if deaths > _DEATHS_MAX:
            raise RuntimeError("spare shims die as soon as they are forked")
        time.sleep(_DEATH_PAUSE_S * deaths)


def _be_spare(requests: socket.socket, launcher: int) -> None:
    """Never returns."""
    from naru.shim import main

    status = 1
    try:
        main.be_spare(requests, launcher)
        status = 0
    except BaseException:
        import traceback  # 0.6 MB that only a failure needs

        traceback.print_exc()
    finally:
        os._exit(status)


def _refuse(requests: socket.socket, error: OSError) -> bool:
    """Answer one request with why no shim can be forked; False if narud is gone."""
    from naru.errors import Unavailable
    from naru.shim import protocol

    message = protocol.receive(requests)
    if message is None:
        return False
    print(f"naru-launcher: fork: {error}", file=sys.stderr)
    with socket.socket(fileno=message[1][0]) as control:
        failure = protocol.failure_of(Unavailable(f"cannot fork a shim: {error}"))
        protocol.send(control, protocol.Answer(0, failure=failure))
    return True
