"""What an instruction does to the image config: the part of a build that needs no files. Pure.

`apply` changes a ContainerConfig that the caller owns (`inherit` makes one from a base), `created_by` gives the
history line in BuildKit's spelling, which `docker history` and other tools read. Dockerfile reference.
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from naru.build.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from naru.build.step import SCRIPTS
from naru.errors import InvalidArgument
from naru.oci import image as oci
from naru.oci.image import ContainerConfig

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HISTORY_COMMENT = "buildkit.dockerfile.v0"
_PORT = re.compile(r"(?:(?:\[[0-9a-fA-F:]+\]|[0-9.]+)?:)?(?:\d*(?:-\d+)?:)?(\d+)(?:-(\d+))?(?:/(\w+))?$")
_PROTOCOLS = ("tcp", "udp", "sctp")
_LARGEST_PORT = 65535


@dataclass
class StageConfig:
    """The config of a stage while its instructions pass. `has_cmd`: this stage set CMD itself."""

    config: ContainerConfig
    author: str = ""
    has_cmd: bool = False

    @property
    def shell(self) -> tuple[str, ...]:
        return tuple(self.config.shell or DEFAULT_SHELL)


def inherit(base: ContainerConfig | None) -> StageConfig:
    """Return the config a stage starts with: a copy of its base's, without the triggers that ran."""
    config = ContainerConfig() if base is None else msgspec.json.decode(msgspec.json.encode(base), type=ContainerConfig)
    config.on_build = None
    if not any(entry.startswith("PATH=") for entry in config.env or []):
        config.env = [f"PATH={DEFAULT_PATH}", *(config.env or [])]
    return StageConfig(config)


def environment(config: ContainerConfig) -> dict[str, str]:
    """Return the config's `env` as a mapping."""
    pairs = (entry.partition("=") for entry in config.env or [])
    return {name: value for name, _, value in pairs}


def apply(stage: StageConfig, instruction: Instruction) -> None:
    """Take an instruction (variables replaced) into the config. Those about files (RUN, COPY …) change nothing."""
    config = stage.config
    match instruction:
        case Env():
            config.env = [f"{n}={v}" for n, v in {**environment(config), **dict(instruction.pairs)}.items()]
        case Label():
            config.labels = {**(config.labels or {}), **dict(instruction.pairs)}
        case Expose():
            ports: dict[str, dict[str, Any]] = {port: {} for text in instruction.ports for port in exposed_ports(text)}
            config.exposed_ports = {**(config.exposed_ports or {}), **ports}
        case Volume():
            config.volumes = {**(config.volumes or {}), **{path: {} for path in instruction.paths}}
        case User():
            config.user = instruction.user
        case Workdir():
            config.working_dir = working_directory(config, instruction.path)
        case Entrypoint():
            config.entrypoint = command_line(stage, instruction.command) or None
            if not stage.has_cmd:
                config.cmd = None
        case Cmd():
            config.cmd = command_line(stage, instruction.command)
            stage.has_cmd = True
        case Shell():
            config.shell = list(instruction.args)
        case StopSignal():
            config.stop_signal = checked_signal(instruction.signal)
        case Healthcheck():
            config.healthcheck = _healthcheck(instruction)
        case OnBuild():
            config.on_build = [*(config.on_build or []), instruction.expression]
        case Maintainer():
            stage.author = instruction.name


def command_line(stage: StageConfig, command: Command) -> list[str]:
    """Return the argument vector of a command: JSON form as it is, shell form behind SHELL."""
    if not command.shell_form:
        return list(command.args)
    return [*stage.shell, *command.args] if command.args else []


def working_directory(config: ContainerConfig, path: str) -> str:
    """Return the absolute directory that `WORKDIR path` or a relative COPY destination means."""
    return posixpath.normpath(posixpath.join("/", config.working_dir, path)).replace("//", "/")


def exposed_ports(text: str) -> list[str]:
    """Return `80/tcp`, … for an EXPOSE argument. InvalidArgument: not a port or range."""
    match = _PORT.match(text)
    if match is None:
        raise InvalidArgument(f"invalid containerPort: {text}")
    first, last, protocol = int(match[1]), int(match[2] or match[1]), (match[3] or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    if not first <= last <= _LARGEST_PORT:
        raise InvalidArgument(f"invalid containerPort: {text}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def checked_signal(text: str) -> str:
    """Return the signal as written. InvalidArgument: neither a number nor a name the kernel has."""
    if text.isdecimal():
        if 0 < int(text) <= signal.SIGRTMAX:
            return text
    elif hasattr(signal, "SIG" + text.upper().removeprefix("SIG").partition("+")[0].partition("-")[0]):
        return text
    raise InvalidArgument(f"Invalid signal: {text}")


def _healthcheck(instruction: Healthcheck) -> oci.Healthcheck:
    return oci.Healthcheck(
        test=list(instruction.test),
        interval=instruction.interval_ns,
        timeout=instruction.timeout_ns,
        start_period=instruction.start_period_ns,
        start_interval=instruction.start_interval_ns,
        retries=instruction.retries,
    )


def created_by(instruction: Instruction, stage: StageConfig, arguments: dict[str, str]) -> str:
    """Return the history line of an instruction that has been applied; `arguments` are the ARGs a RUN saw."""
    match instruction:
        case Run():
            return _run_created_by(instruction, stage, arguments)
        case Copy() | Add():
            name = type(instruction).__name__.upper()
            names = [*instruction.sources, *(f"<<{heredoc.name}" for heredoc in instruction.inline)]
            flags = [f"--{flag}={value} " for flag in ("chown", "chmod") if (value := getattr(instruction, flag))]
            return f"{name} {''.join(flags)}{' '.join(names)} {instruction.destination} # buildkit"
        case Env() | Label():
            pairs = " ".join(f"{name}={value}" for name, value in instruction.pairs)
            return f"{type(instruction).__name__.upper()} {pairs}"
        case Arg():
            pairs = " ".join(name if value is None else f"{name}={value}" for name, value in instruction.pairs)
            return f"ARG {pairs}"
        case Expose():
            ports = [port for text in instruction.ports for port in exposed_ports(text)]
            return f"EXPOSE map[{' '.join(f'{port}:{{}}' for port in ports)}]"
        case Volume():
            return f"VOLUME [{' '.join(instruction.paths)}]"
        case Workdir():
            return f"WORKDIR {stage.config.working_dir}"
        case User():
            return f"USER {instruction.user}"
        case Cmd():
            return f"CMD {_quoted(stage.config.cmd)}"
        case Entrypoint():
            return f"ENTRYPOINT {_quoted(stage.config.entrypoint)}"
        case Shell():
            return f"SHELL [{' '.join(instruction.args)}]"
        case StopSignal():
            return f"STOPSIGNAL {instruction.signal}"
        case OnBuild():
            return f"ONBUILD {instruction.expression}"
        case _:
            return instruction.source.text


def _run_created_by(instruction: Run, stage: StageConfig, arguments: dict[str, str]) -> str:
    command = instruction.command
    line = " ".join(run_command(command, stage).args)
    if command.heredocs:
        line = " ".join([*stage.shell, *command.args])
        line += "".join(f"\n{heredoc.raw}{heredoc.name}" for heredoc in command.heredocs)
    if arguments:
        values = " ".join(f"{name}={value}" for name, value in sorted(arguments.items()))
        line = f"|{len(arguments)} {values} {line}"
    return f"RUN {line} # buildkit"


@dataclass(frozen=True, slots=True)
class RunCommand:
    """What a RUN starts, and the scripts that it needs by name in `SCRIPTS`."""

    args: tuple[str, ...]
    scripts: Mapping[str, str] = field(default_factory=dict)


def run_command(command: Command, stage: StageConfig) -> RunCommand:
    """Return what a RUN starts. A lone here-document is the script; one with a `#!` line is run by that interpreter."""
    if not command.heredocs:
        return RunCommand(tuple(command_line(stage, command)))
    text, first = command.args[0], command.heredocs[0]
    if len(command.heredocs) == 1 and re.fullmatch(r"\d*<<-?\S+", text):
        if first.text.startswith("#!"):
            return RunCommand((f"{SCRIPTS}/{first.name}",), {first.name: first.text})
        return RunCommand((*stage.shell, first.text))
    bodies = "".join(f"\n{heredoc.raw}{heredoc.name}" for heredoc in command.heredocs)
    return RunCommand((*stage.shell, text + bodies))


def _quoted(args: list[str] | None) -> str:
    return "[" + " ".join(msgspec.json.encode(arg).decode() for arg in args or []) + "]"
