"""Streams of a session taken apart, keys that detach, progress on both outputs, and what start-up may import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from naru.cli import commands
from naru.cli.command import Command
from naru.cli.main import main
from naru.cli.progress import show
from naru.cli.session import Frames
from naru.cli.terminal import DetachKeys
from naru.errors import InvalidArgument, NaruError

SOURCE = Path(__file__).parents[2] / "src"


def _frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_frames_may_be_cut_anywhere() -> None:
    got: dict[int, bytes] = {1: b"", 2: b""}
    frames = Frames(lambda stream, data: got.update({stream: got[stream] + data}))
    data = _frame(1, b"out") + _frame(2, b"error") + _frame(1, b"") + _frame(1, b" more")
    for index in range(len(data)):
        frames.feed(data[index : index + 1])
    assert got == {1: b"out more", 2: b"error"}


def test_an_error_frame_of_the_daemon_is_raised() -> None:
    with pytest.raises(NaruError, match="error from daemon in stream: gone"):
        Frames(lambda *_: None).feed(_frame(3, b"gone\n"))


def test_keys_before_the_sequence_are_passed_on() -> None:
    keys = DetachKeys("")
    assert keys.feed(b"ls\x10") == (b"ls", False)
    assert keys.feed(b"x") == (b"\x10x", False)
    assert keys.feed(b"\x10\x11rest") == (b"", True)


def test_other_detach_keys_and_wrong_ones() -> None:
    assert DetachKeys("ctrl-a,d").feed(b"\x01d") == (b"", True)
    with pytest.raises(InvalidArgument, match="invalid detach keys"):
        DetachKeys("ctrl-,x")


_PULL: list[dict[str, Any]] = [
    {"status": "Pulling from library/redis", "id": "7"},
    {"status": "Downloading", "id": "abc", "progressDetail": {"current": 1, "total": 2}, "progress": "[=> ]"},
    {"status": "Pull complete", "id": "abc", "progressDetail": {}},
    {"status": "Status: Downloaded newer image for redis:7"},
]


def test_a_pull_is_told_in_lines_without_its_bars(capfd: pytest.CaptureFixture[str]) -> None:
    show(_PULL, to_stderr=False)
    assert capfd.readouterr() == (
        "7: Pulling from library/redis\nabc: Pull complete\nStatus: Downloaded newer image for redis:7\n",
        "",
    )


def test_that_no_registry_answers_is_told_on_stderr_even_if_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    notice: dict[str, Any] = {"status": "docker.io cannot be reached"}
    show([notice, *_PULL], to_stderr=False, is_pull=True)
    out, err = capfd.readouterr()
    assert (out, err.splitlines()[0]) == ("", "docker.io cannot be reached")
    show([notice, *_PULL], to_stderr=False, is_quiet=True, is_pull=True)
    assert capfd.readouterr() == ("", "docker.io cannot be reached\n")


def test_what_a_push_says_first_is_no_notice(capfd: pytest.CaptureFixture[str]) -> None:
    show([{"status": "The push refers to repository [a/b]"}], to_stderr=False)
    assert capfd.readouterr() == ("The push refers to repository [a/b]\n", "")


def test_an_error_in_the_stream_ends_it() -> None:
    with pytest.raises(NaruError, match=r"^no such tag$"):
        show([{"errorDetail": {"message": "no such tag"}, "error": "no such tag"}], to_stderr=True)


@pytest.mark.parametrize("path", commands.COMMANDS)
def test_every_command_of_the_table_is_where_the_table_says(path: str) -> None:
    assert isinstance(commands.load(path), Command)


def test_a_mistyped_command_is_answered_with_the_likely_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["imagse"]) == 1
    assert capfd.readouterr().err == (
        "naru: unknown command: naru imagse\n\nDid you mean: naru image, naru images?\n\n"
        "Run 'naru --help' for more information\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run"], 1, "naru: 'naru run' requires at least 1 argument"),
        (["run", "--foo"], 125, "unknown flag: --foo"),
        (["ps", "x"], 1, "naru: 'naru ps' accepts no arguments"),
        (["container", "ls", "x"], 1, "naru: 'naru container ls' accepts no arguments"),
        (["tag", "a"], 1, "naru: 'naru tag' requires 2 arguments"),
        (["run", "-p", "abc", "x"], 125, "naru: invalid containerPort: abc"),
        (["create", "-p", "abc", "x"], 125, "naru: invalid containerPort: abc"),
        (["run", "--pull=xx", "x"], 125, "naru: invalid pull option: 'xx': must be one of"),
        (["run", "-it", "x"], 1, "the input device is not a TTY"),
    ],
)
def test_wrong_command_lines_exit_as_dockers_do(
    arguments: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert capfd.readouterr().err.startswith(message)


def test_run_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import naru.cli.main, naru.cli.commands, naru.client.connection\n"
        "naru.cli.commands.load('container run'); import naru.cli.joined, naru.cli.config_file\n"
        "print(*(set(sys.modules) & {'typing', 'dataclasses', 'argparse', 'http.client', 'email', 'ssl', 'datetime', "
        "'subprocess', 'threading', 'msgspec', 'rich', 'tarfile', 'asyncio', 'inspect'}))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program, SOURCE], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
