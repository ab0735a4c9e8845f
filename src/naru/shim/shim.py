"""One container's supervisor: holds its stdio, reaps it, writes down how it ended, and obeys narud meanwhile.

    spare ──Handover──► running ──init exits──► ending ──output ended, execs reaped──► over ──Delete──► gone
                                                                                        └─no narud─► gone

`over` begins with exit.json; only then is anyone told. The process stays while a client has output left to read.
Everything happens in one thread, in the order of the loop; what may take long happens in a creator.
"""

from __future__ import annotations

import os
import signal
import socket
from datetime import UTC, datetime

from msgspec.structs import replace

from naru.errors import Conflict, NaruError
from naru.runtime.cgroup import Cgroup, open_cgroup
from naru.shim import protocol, record
from naru.shim.birth import Handover
from naru.shim.courier import CourierProcess
from naru.shim.creator import Made
from naru.shim.execs import Execs
from naru.shim.json_log import JsonLog
from naru.shim.loop import EPOLLIN, Loop
from naru.shim.peers import Peers, Reply
from naru.shim.protocol import (
    AttachClosed,
    Exited,
    ExitRecord,
    LogNews,
    OomKilled,
    Request,
    Started,
    Status,
    TaskEvent,
)
from naru.shim.relay import Ends, Relay

# The container's processes are dead by then: whoever still holds its output, or cannot be reaped, is not worth more.
_OUTPUT_GRACE_S = 0.5
_REMOVE_TIMEOUT_S = 2.0


class Shim:
    """Serves the container of `handover` until it is over and no longer needed. Owns `fds`, the handover's."""

    def __init__(self, loop: Loop, handover: Handover, fds: list[int]) -> None:
        self._loop = loop
        self._id = handover.container_id
        self._directory = handover.directory
        self._cgroup_path = handover.cgroup
        self._started = handover.started
        self._exited: Exited | None = None
        self._is_forgotten = False
        self._wait_status: int | None = None
        self._oom_kills = 0
        # Wait statuses of children that an exec's creator may be about to report.
        self._unclaimed: dict[int, int] = {}
        self._creating = 0
        given = dict(zip(handover.roles, fds, strict=False))
        self._pidfd = given["pidfd"]
        self._oom_fd = given.get("oom")
        if self._oom_fd is not None:
            os.set_blocking(self._oom_fd, False)
            loop.watch(self._oom_fd, EPOLLIN, self._memory_event)
        self._peers = Peers(loop, self._serve, self._consider_leaving)
        self._courier = (
            CourierProcess(loop, handover.log.delivery, lambda news: self._tell(LogNews(self._id, news)))
            if handover.log.delivery is not None
            else None
        )
        self._log = JsonLog(handover.log, given["log"], self._courier) if "log" in given else None
        self._execs = Execs(
            loop, container_id=self._id, bundle=handover.bundle, cgroup=handover.cgroup, tell=self._tell
        )
        self._relay = Relay(
            loop,
            Ends(**{name: given.get(name) for name in ("stdin", "stdout", "stderr", "console")}),
            stdin_once=handover.stdin_once,
            log=self._log,
            on_attach_closed=lambda attach_id, detached: self._tell(AttachClosed(self._id, "", attach_id, detached)),
            on_end=self._consider_end,
        )
        self._peers.listen(socket.socket(fileno=given["listener"]))
        self._peers.add(socket.socket(fileno=given["control"]))
        for client, fd in zip(handover.clients, fds[len(handover.roles) :], strict=True):
            self._relay.attach(client, fd)

    # --- requests

    def _serve(self, request: Request, fds: list[int], reply: Reply) -> None:
        if isinstance(request, protocol.Exec):
            self._exec(request, fds, reply)
        else:
            reply(self._do(request, fds))

    def _do(self, request: Request, fds: list[int]) -> object:
        match request:
            case protocol.ReadStatus():
                return self._status()
            case protocol.Delete():
                self._delete()
                return None
            case protocol.ReadExec():
                return self._execs.status(request.exec_id)
        self._check_running()
        match request:
            case protocol.Attach():
                self._relay.attach(request.request, fds.pop(0))
            case protocol.Kill():
                self._kill(request)
            case protocol.Resize():
                if request.exec_id:
                    self._execs.resize(request.exec_id, request.size)
                else:
                    self._relay.resize(request.size)
            case protocol.Pause():
                self._cgroup.freeze()
            case protocol.Resume():
                self._cgroup.thaw()
            case protocol.ReadStats():
                return self._cgroup.stats()
            case protocol.ListProcesses():
                return self._cgroup.processes()
            case protocol.Update():
                self._cgroup.update(request.resources)
        return None

    @property
    def _cgroup(self) -> Cgroup:
        return open_cgroup(self._cgroup_path)

    def _check_running(self) -> None:
        if self._wait_status is not None:
            raise Conflict(f"container {self._id} is not running")

    def _status(self) -> Status:
        return Status(
            started=self._started,
            paused=self._wait_status is None and self._cgroup.is_frozen(),
            exit=self._exited,
            execs=self._execs.statuses(),
        )

    def _exec(self, request: protocol.Exec, fds: list[int], reply: Reply) -> None:
        self._check_running()
        if self._cgroup.is_frozen():  # the new process would freeze too, before it could report
            raise Conflict(f"container {self._id} is paused, unpause the container before exec")

        def started(made: Made | Exception) -> None:
            self._creating -= 1
            reply(Started(made.pid, datetime.now(UTC)) if isinstance(made, Made) else made)
            self._claim()

        clients = [fds.pop(0) for _ in request.attach]
        self._creating += 1
        try:
            self._execs.start(
                request,
                clients,
                target_pid=self._started.pid,
                target_pidfd=self._pidfd,
                on_started=started,
            )
        except BaseException:
            self._creating -= 1
            fds += clients
            raise

    def _kill(self, request: protocol.Kill) -> None:
        if request.exec_id:
            self._execs.kill(request.exec_id, request.signal)
            return
        signal.pidfd_send_signal(self._pidfd, request.signal)
        if request.signal == signal.SIGKILL and self._cgroup.is_frozen():
            self._cgroup.thaw()  # cgroup v1: a frozen process does not even die

    def _delete(self) -> None:
        if self._exited is None:
            raise Conflict(f"container {self._id} is running")
        self._is_forgotten = True
        self._peers.stop_listening()
        record.remove(self._directory)
        self._loop.call_after(0, self._consider_leaving)  # after the answer is sent

    def _memory_event(self, _events: int) -> None:
        assert self._oom_fd is not None
        try:
            os.read(self._oom_fd, 4096)
        except BlockingIOError:
            return
        self._count_oom_kills()

    def _count_oom_kills(self) -> None:
        kills = self._cgroup.oom_kills()
        if kills > self._oom_kills:
            self._oom_kills = kills
            self._tell(OomKilled(self._id))

    # --- end

    def reap(self) -> None:
        """Collect every child that has ended: init, execs, creators, and orphans that the kernel gave us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._unclaimed[pid] = status
        self._claim()

    def _claim(self) -> None:
        """Act on the ends of children that are known by now."""
        for pid, status in list(self._unclaimed.items()):
            if pid == self._started.pid and self._wait_status is None:
                self._wait_status = status
                self._init_ended()
            elif self._courier is not None and self._courier.reaped(pid):
                pass
            elif not self._execs.reaped(pid, _shell_code(status)) and self._creating:
                continue  # it may be what a creator is about to report
            del self._unclaimed[pid]
        self._consider_end()

    def _init_ended(self) -> None:
        """init is reaped: end everything else, take what output is left, give the rest a moment."""
        cgroup = self._cgroup
        if cgroup.processes():  # not in its own process namespace, or the kernel has not finished with it
            cgroup.kill_all(signal.SIGKILL)
        self._relay.drain()
        self._loop.call_after(_OUTPUT_GRACE_S, self._end)

    def _consider_end(self) -> None:
        if self._wait_status is not None and self._relay.has_ended and not self._execs.has_unreaped:
            self._end()

    def _end(self) -> None:
        """Write down how the container ended, then tell."""
        if self._wait_status is None or self._exited is not None:
            return
        self._execs.end_all()
        self._relay.close()
        if self._log is not None:
            self._log.close()
        if self._courier is not None:
            self._courier.finish()
        self._count_oom_kills()
        if self._oom_fd is not None:
            self._loop.forget(self._oom_fd)
            os.close(self._oom_fd)
        os.close(self._pidfd)
        status = self._wait_status
        exited = Exited(
            container_id=self._id,
            exit_code=_shell_code(status),
            finished_at=datetime.now(UTC),
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            oom_killed=self._oom_kills > 0,
        )
        try:
            self._cgroup.remove(timeout_s=_REMOVE_TIMEOUT_S)
        except (OSError, NaruError) as error:
            # A process in it cannot be killed (uninterruptible sleep); the record matters more.
            exited = replace(exited, reason=f"cgroup not removed: {error}")
        self._exited = exited
        record.write(self._directory, ExitRecord(exited, self._execs.statuses()))
        self._tell(exited)

    def _tell(self, event: TaskEvent) -> None:
        self._peers.tell(event)
        self._consider_leaving()

    def _consider_leaving(self) -> None:
        """End the process if it serves nobody any more: no container, no client, no narud that might still ask."""
        if self._exited is None or self._relay.has_clients or self._execs.has_clients:
            return
        if self._is_forgotten or not len(self._peers):
            self._loop.stop()


def _shell_code(status: int) -> int:
    """Return what a shell would say of a wait status. wait(2)"""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
