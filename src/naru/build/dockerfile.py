"""A Dockerfile's bytes → typed instructions by stage: the front door of the language.

`parse` reads a whole file, `parse_trigger` one ONBUILD expression. Every error is a DockerfileError with its line.
Owns the shape of each instruction's arguments; what an instruction does lives elsewhere. Dockerfile reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from naru.build.arguments import Flags, blank_separated, json_array, name_values, parse_flags, quoted_words, split_flags
from naru.build.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Dockerfile,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    Source,
    Stage,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from naru.build.lines import Directives, Heredoc, Line, heredoc_of, read_lines
from naru.build.run_mount import parse_run_mount
from naru.build.syntax import DockerfileError, SyntaxProblem, did_you_mean

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*$")
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_SHORTEST_HEALTH_NS = 10**6
_NETWORKS = ("default", "none", "host")
_SECURITY = ("sandbox", "insecure")
_CHANGES = (
    *("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME"),
    "WORKDIR",
)
_NOT_TRIGGERS = ("FROM", "MAINTAINER")


def parse(data: bytes, *, file: str = "Dockerfile") -> Dockerfile:
    """Return the Dockerfile in `data`; `file` is its name in messages. DockerfileError: it is not one."""
    read = read_lines(data, file=file)
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in read.lines:
        instruction = _parse_line(line, read.directives.escape, file)
        if isinstance(instruction, From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise DockerfileError("no build stage in current context", line=line.first, file=file)
    if not read.lines:
        raise DockerfileError("file with no instructions", line=max(data.count(b"\n"), 1), file=file)
    if not stages:
        raise DockerfileError("dockerfile contains no stages to build", file=file)
    built = tuple(Stage(index, base, tuple(body)) for index, (base, body) in enumerate(stages))
    return Dockerfile(read.directives, tuple(arguments), built, read.warnings, file)


def parse_changes(data: bytes) -> list[Instruction]:
    """Return the instructions of `docker commit --change`. DockerfileError: not ones that may be there."""
    read = read_lines(data, file="--change")
    for line in read.lines:
        name = line.text.split(None, 1)[0]
        if name.upper() not in _CHANGES:
            raise DockerfileError(f"{name.lower()} is not a valid change command", file="--change")
    return [_parse_line(line, read.directives.escape, "--change") for line in read.lines]


def parse_trigger(expression: str, *, image: str, escape: str = "\\") -> Instruction:
    """Return the instruction of an ONBUILD trigger of base `image`. DockerfileError: not one that may be there."""
    file = f"ONBUILD trigger of {image}"
    read = read_lines(expression.encode(), file=file, directives=Directives(escape=escape))
    if len(read.lines) != 1:
        raise DockerfileError("an ONBUILD trigger is exactly one instruction", line=1, file=file)
    instruction = _parse_line(read.lines[0], escape, file)
    if isinstance(instruction, From | OnBuild | Maintainer):
        raise DockerfileError("this instruction isn't allowed as an ONBUILD trigger", line=1, file=file)
    return instruction


@dataclass(frozen=True, slots=True)
class _Words:
    """One line cut into the parts that an instruction's parser looks at."""

    source: Source
    name: str
    flag_words: list[str]
    rest: str
    heredocs: tuple[Heredoc, ...]
    escape: str

    def flags(self, *, texts: tuple[str, ...] = (), lists: tuple[str, ...] = (), bools: tuple[str, ...] = ()) -> Flags:
        return parse_flags(self.flag_words, texts=texts, lists=lists, bools=bools)

    def command(self) -> Command:
        args = json_array(self.rest)
        if args is None:
            return Command((self.rest,) if self.rest else (), True, self.heredocs)
        return Command(args, False)

    def list(self) -> tuple[str, ...]:
        args = json_array(self.rest)
        return blank_separated(self.rest) if args is None else args


def _parse_line(line: Line, escape: str, file: str) -> Instruction:
    try:
        return _parse_text(line, escape)
    except SyntaxProblem as problem:
        raise DockerfileError(str(problem), line=line.first, file=file) from None


def _parse_text(line: Line, escape: str) -> Instruction:
    name, _, rest = line.text.replace("\t", " ", 1).partition(" ") if "\t" in line.text else line.text.partition(" ")
    known = name.upper()
    if known not in _PARSERS:
        raise SyntaxProblem(f"unknown instruction: {name}{did_you_mean(known, _PARSERS)}")
    flag_words, rest = split_flags(rest, escape)
    source = Source(line.first, line.last, line.source)
    return _PARSERS[known](_Words(source, known, flag_words, rest.strip(), line.heredocs, escape))


def _only_argument(words: _Words) -> str:
    if not words.rest:
        raise SyntaxProblem(f"{words.name} requires exactly one argument")
    words.flags()
    return words.rest


def _from(words: _Words) -> From:
    args = blank_separated(words.rest)
    flags = words.flags(texts=("platform",))
    if len(args) == 1:
        return From(words.source, args[0], "", flags.text("platform"))
    if len(args) != 3 or args[1].lower() != "as":
        raise SyntaxProblem("FROM requires either one or three arguments")
    name = args[2].lower()
    if not _STAGE_NAME.match(name):
        reason = "name can't start with a number or contain symbols"
        raise SyntaxProblem(f'invalid name for build stage: "{args[2]}", {reason}')
    return From(words.source, args[0], name, flags.text("platform"))


def _run(words: _Words) -> Run:
    flags = words.flags(texts=("network", "security"), lists=("mount", "device"))
    network, security = flags.text("network") or "default", flags.text("security") or "sandbox"
    if network not in _NETWORKS:
        raise SyntaxProblem(f'unsupported network mode "{network}"{did_you_mean(network, _NETWORKS)}')
    if security not in _SECURITY:
        raise SyntaxProblem(f'unsupported security mode "{security}"{did_you_mean(security, _SECURITY)}')
    mounts = flags.list("mount")
    for mount in mounts:
        if "$" not in mount or re.search(r"(^|,)from=[^,]*\$", mount):
            parse_run_mount(mount)
    command = words.command()
    if not command.args:
        raise SyntaxProblem("RUN requires at least one argument")
    return Run(words.source, command, mounts, network, security, flags.list("device"))


def _paths(words: _Words) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    args = words.list()
    if len(args) < 2:
        count = "only one was provided" if args else "none were provided"
        reason = f"{words.name} requires at least two arguments, but {count}"
        raise SyntaxProblem(f"{reason}. Destination could not be determined")
    if words.heredocs and heredoc_of(args[-1], words.escape):
        raise SyntaxProblem(f"{words.name} cannot accept a heredoc as a destination")
    bodies = {heredoc.name: heredoc for heredoc in words.heredocs}
    openings = [heredoc_of(word, words.escape) if bodies else None for word in args[:-1]]
    sources = tuple(word for word, opening in zip(args, openings, strict=False) if opening is None)
    inline = tuple(bodies[opening.name] for opening in openings if opening is not None)
    return sources, inline, args[-1]


def _copy(words: _Words) -> Copy:
    sources, inline, destination = _paths(words)
    flags = words.flags(texts=("from", "chown", "chmod"), lists=("exclude",), bools=("link", "parents"))
    return Copy(
        words.source,
        sources,
        destination,
        inline,
        from_=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.is_set("link"),
        parents=flags.is_set("parents"),
        exclude=flags.list("exclude"),
    )


def _add(words: _Words) -> Add:
    sources, inline, destination = _paths(words)
    flags = words.flags(
        texts=("chown", "chmod", "checksum"), lists=("exclude",), bools=("link", "keep-git-dir", "unpack")
    )
    return Add(
        words.source,
        sources,
        destination,
        inline,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.is_set("link"),
        exclude=flags.list("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.is_set("keep-git-dir"),
        unpack=flags.bools.get("unpack"),
    )


def _env(words: _Words) -> Env:
    words.flags()
    return Env(words.source, name_values(words.rest, "ENV", words.escape))


def _label(words: _Words) -> Label:
    words.flags()
    return Label(words.source, name_values(words.rest, "LABEL", words.escape))


def _arg(words: _Words) -> Arg:
    words.flags()
    pairs: list[tuple[str, str | None]] = []
    for word in quoted_words(words.rest, words.escape):
        name, separator, value = word.partition("=")
        if not name:
            raise SyntaxProblem("ARG names can not be blank")
        pairs.append((name, value if separator else None))
    if not pairs:
        raise SyntaxProblem("ARG requires at least one argument")
    return Arg(words.source, tuple(pairs))


def _expose(words: _Words) -> Expose:
    words.flags()
    if not words.rest:
        raise SyntaxProblem("EXPOSE requires at least one argument")
    return Expose(words.source, tuple(sorted(blank_separated(words.rest))))


def _volume(words: _Words) -> Volume:
    words.flags()
    paths = tuple(path.strip() for path in words.list())
    if not paths:
        raise SyntaxProblem("VOLUME requires at least one argument")
    if not all(paths):
        raise SyntaxProblem("VOLUME specified can not be an empty string")
    return Volume(words.source, paths)


def _user(words: _Words) -> User:
    return User(words.source, _only_argument(words))


def _workdir(words: _Words) -> Workdir:
    return Workdir(words.source, _only_argument(words))


def _stop_signal(words: _Words) -> StopSignal:
    return StopSignal(words.source, _only_argument(words))


def _maintainer(words: _Words) -> Maintainer:
    return Maintainer(words.source, _only_argument(words))


def _entrypoint(words: _Words) -> Entrypoint:
    words.flags()
    return Entrypoint(words.source, words.command())


def _cmd(words: _Words) -> Cmd:
    words.flags()
    return Cmd(words.source, words.command())


def _shell(words: _Words) -> Shell:
    words.flags()
    args = json_array(words.rest)
    if args is None and words.rest:
        raise SyntaxProblem(f"SHELL requires the arguments to be in JSON form: {words.source.text}")
    if not args:
        raise SyntaxProblem("SHELL requires at least one argument")
    return Shell(words.source, args)


def _healthcheck(words: _Words) -> Healthcheck:
    kind, _, rest = words.rest.partition(" ")
    rest = rest.strip()
    if not kind:
        raise SyntaxProblem("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        if rest:
            raise SyntaxProblem("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(words.source, ("NONE",))
    times = ("interval", "timeout", "start-period", "start-interval")
    flags = words.flags(texts=(*times, "retries"))
    if kind.upper() != "CMD":
        raise SyntaxProblem(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    args = json_array(rest)
    if not rest or args == ():
        raise SyntaxProblem("Missing command after HEALTHCHECK CMD")
    test = ("CMD-SHELL", rest) if args is None else ("CMD", *args)
    interval, timeout, start_period, start_interval = (_health_time(name, flags.text(name)) for name in times)
    retries = flags.text("retries") or "0"
    try:
        count = int(retries)
    except ValueError:
        raise SyntaxProblem(f'--retries "{retries}" is not a number') from None
    if count < 0:
        raise SyntaxProblem(f"--retries cannot be negative ({count})")
    return Healthcheck(words.source, test, interval, timeout, start_period, start_interval, count)


def _health_time(name: str, text: str) -> int:
    if not text:
        return 0
    value = parse_duration(text)
    if value and value < _SHORTEST_HEALTH_NS:
        raise SyntaxProblem(f'Interval "{name}" cannot be less than 1ms')
    return value


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a Go duration such as `1m30s`. SyntaxProblem: it is none."""
    sign = -1 if text.startswith("-") else 1
    body = text.lstrip("+-")
    if body == "0":
        return 0
    parts = _DURATION_PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        number = re.fullmatch(r"[\d.]+", body)
        raise SyntaxProblem(f'time: {"missing unit in" if number else "invalid"} duration "{text}"')
    return sign * sum(int(float(number) * _NANOSECONDS[unit]) for number, unit in parts)


def _on_build(words: _Words) -> OnBuild:
    words.flags()
    trigger = words.rest.split(None, 1)[0].upper() if words.rest else ""
    if not trigger:
        raise SyntaxProblem("ONBUILD requires at least one argument")
    if trigger == "ONBUILD":
        raise SyntaxProblem("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in _NOT_TRIGGERS:
        raise SyntaxProblem(f"{trigger} isn't allowed as an ONBUILD trigger")
    expression = words.rest + "".join(f"\n{heredoc.raw}{heredoc.name}" for heredoc in words.heredocs)
    inner = Line(words.source.first, words.source.last, words.rest, words.heredocs)
    _parse_text(inner, words.escape)
    return OnBuild(words.source, expression)


_PARSERS: dict[str, Callable[[_Words], Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _on_build,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
