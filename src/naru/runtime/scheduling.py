"""CPU scheduler, I/O priority and execution domain of a process. OCI runtime-spec, config.md, Linux Process."""

from __future__ import annotations

from naru.errors import InvalidArgument
from naru.kernel import schedule
from naru.oci.runtime import IOPriority, Personality, Process, Scheduler
from naru.runtime.step import Step, Workspace

_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_DOMAINS = {"LINUX": 0, "LINUX32": 0x0008}


class SetScheduler(Step, frozen=True):
    """Set the CPU scheduler."""

    scheduler: Scheduler

    def __str__(self) -> str:
        return f"set scheduler {self.scheduler.policy}"

    def run(self, work: Workspace) -> None:
        wanted = self.scheduler
        schedule.sched_setattr(
            _POLICIES[wanted.policy],
            flags=sum(_FLAGS[flag] for flag in wanted.flags),
            nice=wanted.nice,
            priority=wanted.priority,
            runtime=wanted.runtime,
            deadline=wanted.deadline,
            period=wanted.period,
        )


class SetIOPriority(Step, frozen=True):
    """Set the I/O scheduling class and priority."""

    wanted: IOPriority

    def __str__(self) -> str:
        return f"set I/O priority {self.wanted.class_}"

    def run(self, work: Workspace) -> None:
        schedule.ioprio_set(_IO_CLASSES[self.wanted.class_], self.wanted.priority)


class SetPersonality(Step, frozen=True):
    """Set the execution domain."""

    domain: str

    def __str__(self) -> str:
        return f"set personality {self.domain}"

    def run(self, work: Workspace) -> None:
        schedule.personality(_DOMAINS[self.domain])


def plan_scheduling(process: Process, personality: Personality | None) -> list[Step]:
    """Return the steps; they need privileges that the process may not keep. InvalidArgument: an unknown word."""
    steps: list[Step] = []
    if process.scheduler is not None:
        _known("scheduler policy", process.scheduler.policy, _POLICIES)
        for flag in process.scheduler.flags:
            _known("scheduler flag", flag, _FLAGS)
        steps.append(SetScheduler(process.scheduler))
    if process.io_priority is not None:
        _known("I/O priority class", process.io_priority.class_, _IO_CLASSES)
        steps.append(SetIOPriority(process.io_priority))
    if personality is not None:
        _known("personality domain", personality.domain, _DOMAINS)
        steps.append(SetPersonality(personality.domain))
    return steps


def _known(what: str, word: str, words: dict[str, int]) -> None:
    if word not in words:
        raise InvalidArgument(f"invalid {what}: {word!r}")
