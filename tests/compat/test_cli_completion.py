"""Completion in real shells: bash, zsh and fish ask `naru`, which asks narud."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon import Daemon
from programs import NARU

Complete = Callable[[str], list[str]]

_BASH = 'eval "$(naru completion bash)"; COMP_LINE=$LINE COMP_POINT=${#LINE}; _naru; printf "%s\\n" "${COMPREPLY[@]}"'
_FISH = "naru completion fish | source; complete --do-complete $LINE"
# zsh completes on a terminal only: a shell inside the shell, whose list of candidates is printed by a widget
_ZSH = """
zmodload zsh/zpty
zpty shell zsh -f
zpty -w shell 'PS1=; autoload -Uz compinit; compinit -u -d $DUMP; eval "$(naru completion zsh)"'
zpty -w shell 'compadd() { local -a words; builtin compadd -O words "$@"; print -rl -- "<"${^words}">"; }'
zpty -w shell 'show() { print begin; _main_complete; print end; exit }'
zpty -w shell 'zle -C show list-choices show; bindkey "^X" show'
zpty -n -w shell "$LINE"$'\\x18'
zpty -r shell seen '*end'$'\\r'
print -r -- $seen
"""


@pytest.fixture(scope="module")
def names(shared_narud: Daemon) -> Iterator[Daemon]:
    """A running container, a stopped one, a network and a volume to be named."""
    shared_narud("volume", "create", "vessel")
    shared_narud("network", "create", "netting")
    shared_narud("run", "--detach", "--name", "awake", "busybox", "sleep", "1000")
    shared_narud("create", "--name", "asleep", "busybox", "true")
    yield shared_narud
    shared_narud.clear()
    shared_narud("network", "rm", "netting")


def _shell(names: Daemon, tmp_path: Path, shell: str, script: str) -> Complete:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell} (libexec/install-test-peers)")
    program = tmp_path / "naru"
    program.write_text(f'#!/bin/sh\nexec {" ".join(NARU)} "$@"\n')
    program.chmod(0o755)
    env = names.client_env | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DUMP": f"{tmp_path}/dump", "TERM": "xterm"}

    def complete(line: str) -> list[str]:
        done = subprocess.run(
            [shell, "-c", script], env=env | {"LINE": line}, cwd=tmp_path, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return complete


@pytest.fixture
def bash(names: Daemon, tmp_path: Path) -> Complete:
    return _shell(names, tmp_path, "bash", _BASH)


@pytest.fixture
def fish(names: Daemon, tmp_path: Path) -> Complete:
    return _shell(names, tmp_path, "fish", _FISH)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("naru net", ["network"]),
        ("naru network con", ["connect"]),
        ("naru run --network-", ["--network-alias"]),
        ("naru run --network=net", ["netting"]),
        ("naru run --network net", ["netting"]),
        ("naru run --pull ", ["always", "missing", "never"]),
        ("naru run --rm -it bus", ["busybox", "busybox:latest"]),
        ("naru rmi busybox:la", ["latest"]),
        ("naru stop a", ["awake"]),
        ("naru start a", ["asleep"]),
        ("naru rm asleep a", ["awake"]),
        ("naru exec -u root a", ["awake"]),
        ("naru cp a", ["asleep:", "awake:"]),
        ("naru volume rm ve", ["vessel"]),
        ("naru network connect netting as", ["asleep"]),
        ("naru context use ", ["default"]),
        ("naru -c de", ["default"]),
        ("naru exec awake a", [""]),
    ],
)
def test_bash_completes(bash: Complete, line: str, words: list[str]) -> None:
    assert bash(line) == words


def test_bash_completes_nothing_where_no_daemon_answers(bash: Complete) -> None:
    assert bash("naru --host unix:///nowhere rm a") == [""]


def test_fish_shows_what_each_is(fish: Complete) -> None:
    assert fish("naru stop a") == ["awake\tbusybox"]
    assert fish("naru ps --no") == ["--no-trunc\tDo not shorten anything"]
    assert fish("naru run --network netti") == ["netting\tbridge"]


def test_zsh_completes(names: Daemon, tmp_path: Path) -> None:
    zsh = _shell(names, tmp_path, "zsh", _ZSH)
    assert any("awake" in line for line in zsh("naru stop a"))
