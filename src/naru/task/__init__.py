"""Containers as running things, seen from narud."""

from naru.shim.protocol import (
    AttachClosed,
    AttachRequest,
    ConsoleSize,
    ExecExited,
    ExecStatus,
    Exited,
    ExitRecord,
    LogConfig,
    OomKilled,
    TaskEvent,
)
from naru.task.task import ExecRequest, Task
from naru.task.tasks import StartRequest, Tasks

__all__ = [
    "AttachClosed",
    "AttachRequest",
    "ConsoleSize",
    "ExecExited",
    "ExecRequest",
    "ExecStatus",
    "ExitRecord",
    "Exited",
    "LogConfig",
    "OomKilled",
    "StartRequest",
    "Task",
    "TaskEvent",
    "Tasks",
]
