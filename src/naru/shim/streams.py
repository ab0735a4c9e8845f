"""The two ends of a new process's stdio."""

from __future__ import annotations

import os
from contextlib import ExitStack

from naru.shim.relay import Ends


def open_streams(*, stdin: bool, output: bool = True, theirs: ExitStack, ours: ExitStack) -> tuple[list[int], Ends]:
    """Return the process's ends (0, 1, 2) and ours; the two stacks close them.

    Without `stdin` the process reads, and without `output` writes, /dev/null.
    """
    ends = Ends()

    def null(flags: int) -> int:
        fd = os.open("/dev/null", flags | os.O_CLOEXEC)
        theirs.callback(os.close, fd)
        return fd

    def input_pipe() -> int:
        reader, ends.stdin = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, reader)
        ours.callback(os.close, ends.stdin)
        return reader

    def output_pipe() -> tuple[int, int]:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, writer)
        ours.callback(os.close, reader)
        return reader, writer

    process_stdin = input_pipe() if stdin else null(os.O_RDONLY)
    if not output:
        return [process_stdin, null(os.O_WRONLY), null(os.O_WRONLY)], ends
    ends.stdout, process_stdout = output_pipe()
    ends.stderr, process_stderr = output_pipe()
    return [process_stdin, process_stdout, process_stderr], ends
