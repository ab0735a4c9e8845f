"""The instructions of a Dockerfile as values: one frozen class each, holding what was written, not what it means.

Variables are still in the texts; `expand.py` replaces them where the language says so. Dockerfile reference.
"""

from __future__ import annotations

from dataclasses import dataclass

from naru.build.lines import Directives, Heredoc


@dataclass(frozen=True, slots=True)
class Source:
    """Where an instruction was written: its lines, and its text on one line as `docker build` shows it."""

    first: int
    last: int
    text: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """What every instruction has."""

    source: Source


@dataclass(frozen=True, slots=True)
class From(Instruction):
    image: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line: JSON form, or shell form (one argument, to be prefixed by SHELL) with its here-documents."""

    args: tuple[str, ...]
    shell_form: bool
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Run(Instruction):
    """`mounts` are the texts of `--mount`; they may hold variables and become RunMounts when the step is made."""

    command: Command
    mounts: tuple[str, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    """`sources` are paths or patterns, `inline` the here-documents that are files of their own."""

    sources: tuple[str, ...]
    destination: str
    inline: tuple[Heredoc, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Add(Instruction):
    """Like Copy; archives are unpacked unless `unpack` says no, URLs fetched and checked against `checksum`."""

    sources: tuple[str, ...]
    destination: str
    inline: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


@dataclass(frozen=True, slots=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Arg(Instruction):
    """`pairs` are (name, default); None where none is given."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, slots=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, slots=True)
class Entrypoint(Instruction):
    command: Command


@dataclass(frozen=True, slots=True)
class Cmd(Instruction):
    command: Command


@dataclass(frozen=True, slots=True)
class Shell(Instruction):
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Healthcheck(Instruction):
    """`test` as the image config has it (NONE, CMD …, CMD-SHELL …); times in nanoseconds, 0 is the default."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class StopSignal(Instruction):
    signal: str


@dataclass(frozen=True, slots=True)
class OnBuild(Instruction):
    expression: str


@dataclass(frozen=True, slots=True)
class Maintainer(Instruction):
    name: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A FROM and what follows it up to the next. `index` counts from 0."""

    index: int
    base: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.base.name


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole file: the ARGs before the first FROM, and the stages in order (at least one)."""

    directives: Directives
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = ()
    file: str = "Dockerfile"
