"""Variables in instructions: who may see which, and where they are replaced.

A `GlobalScope` holds what stands before the first FROM and the build's own arguments; each stage gets a `Scope` of
its own from it. Pure. Dockerfile reference, "ARG", "Environment replacement", "Predefined ARGs".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from naru.build.instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    Instruction,
    Label,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from naru.build.lines import Heredoc
from naru.build.syntax import DockerfileError, SyntaxProblem
from naru.build.words import Lexer
from naru.oci.image import Platform

PROXY_ARGUMENTS = frozenset(
    name
    for lower in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (lower, lower.upper())
)


def platform_arguments(target: Platform, build: Platform, target_stage: str = "") -> dict[str, str]:
    """Return the arguments that every build has: TARGETPLATFORM, BUILDPLATFORM, their parts, and TARGETSTAGE."""
    arguments = {"TARGETSTAGE": target_stage or "default"}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        arguments[f"{prefix}PLATFORM"] = str(platform)
        arguments[f"{prefix}OS"] = platform.os
        arguments[f"{prefix}OSVERSION"] = platform.os_version
        arguments[f"{prefix}ARCH"] = platform.architecture
        arguments[f"{prefix}VARIANT"] = platform.variant
    return arguments


class GlobalScope:
    """The arguments before the first FROM. `consumed` collects the build arguments that some ARG asked for."""

    def __init__(
        self, arguments: tuple[Arg, ...], given: Mapping[str, str], builtin: Mapping[str, str], escape: str = "\\"
    ) -> None:
        self.given = dict(given)
        self.builtin = dict(builtin)
        self.escape = escape
        self.consumed: set[str] = set()
        self.values: dict[str, str] = {}
        for argument in arguments:
            for name, default in argument.pairs:
                self._declare(name, default, argument)

    def _declare(self, name: str, default: str | None, where: Arg) -> None:
        if name in self.given:
            self.consumed.add(name)
            self.values[name] = self.given[name]
        elif default is not None:
            self.values[name] = self.expand(default, where)

    def expand(self, text: str, where: Instruction, *, file: str = "Dockerfile") -> str:
        """Replace variables in a FROM or a global ARG. DockerfileError: the text is malformed."""
        try:
            return Lexer(self.escape).expand(text, {**self.builtin, **self.values})
        except SyntaxProblem as problem:
            raise DockerfileError(str(problem), line=where.source.first, file=file) from None

    @property
    def unused(self) -> list[str]:
        """The build arguments that no ARG asked for, proxies aside, sorted."""
        ignored = PROXY_ARGUMENTS | {"SOURCE_DATE_EPOCH"}
        return sorted(
            name for name in self.given if name not in self.consumed | ignored and not name.startswith("BUILDKIT_")
        )


@dataclass
class Scope:
    """One stage's variables while its instructions pass: `arguments` from ARG, `environment` from ENV, which wins."""

    global_scope: GlobalScope
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    declared_proxies: set[str] = field(default_factory=set)

    @property
    def variables(self) -> dict[str, str]:
        return {**self.arguments, **self.environment}

    def declare(self, argument: Arg) -> None:
        """Take an ARG of this stage (already expanded by `expand`)."""
        outer = self.global_scope
        for name, default in argument.pairs:
            if name in PROXY_ARGUMENTS:
                self.declared_proxies.add(name)
            if name in outer.given:
                outer.consumed.add(name)
                self.arguments[name] = outer.given[name]
            elif default is not None:
                self.arguments[name] = default
            elif name in outer.values:
                self.arguments[name] = outer.values[name]
            elif name in outer.builtin:
                self.arguments[name] = outer.builtin[name]

    def run_arguments(self) -> dict[str, str]:
        """Return the ARG values a RUN sees and its cache key holds."""
        return {name: value for name, value in self.arguments.items() if name not in self.environment}

    def run_proxies(self) -> dict[str, str]:
        """Return the proxy build arguments a RUN sees though no ARG declared them: never part of a cache key."""
        return {
            name: value
            for name, value in self.global_scope.given.items()
            if name in PROXY_ARGUMENTS and name not in self.declared_proxies and name not in self.environment
        }


def expand(instruction: Instruction, scope: Scope, *, file: str = "Dockerfile") -> Instruction:
    """Return `instruction` with its variables replaced, where the language replaces any.

    DockerfileError: malformed quoting or substitution, or `${name:?message}` of an unset name.
    """
    try:
        return _expanded(instruction, scope)
    except SyntaxProblem as problem:
        raise DockerfileError(str(problem), line=instruction.source.first, file=file) from None


def _expanded(instruction: Instruction, scope: Scope) -> Instruction:
    escape = scope.global_scope.escape
    variables = scope.variables

    def word(text: str) -> str:
        return Lexer(escape).expand(text, variables)

    def words(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word(text) for text in texts)

    match instruction:
        case Env() | Label():
            return replace(instruction, pairs=tuple((word(name), word(value)) for name, value in instruction.pairs))
        case Arg():
            return replace(instruction, pairs=_defaults(instruction, scope))
        case Copy() | Add():
            return _copied(instruction, word, escape, variables)
        case Expose():
            lexer = Lexer(escape)
            return replace(
                instruction, ports=tuple(p for port in instruction.ports for p in lexer.split(port, variables))
            )
        case Volume():
            return replace(instruction, paths=words(instruction.paths))
        case User():
            return replace(instruction, user=word(instruction.user))
        case Workdir():
            return replace(instruction, path=word(instruction.path))
        case StopSignal():
            return replace(instruction, signal=word(instruction.signal))
        case _:
            return instruction


def _copied(
    instruction: Copy | Add, word: Callable[[str], str], escape: str, variables: Mapping[str, str]
) -> Instruction:
    lexer = Lexer(escape, skip_quotes=True)

    def body(heredoc: Heredoc) -> Heredoc:
        return replace(heredoc, text=lexer.expand(heredoc.text, variables)) if heredoc.expand else heredoc

    changed = replace(
        instruction,
        sources=tuple(word(source) for source in instruction.sources),
        destination=word(instruction.destination),
        inline=tuple(body(heredoc) for heredoc in instruction.inline),
        chown=word(instruction.chown),
        chmod=word(instruction.chmod),
        exclude=tuple(word(pattern) for pattern in instruction.exclude),
    )
    return replace(changed, checksum=word(changed.checksum)) if isinstance(changed, Add) else changed


def _defaults(argument: Arg, scope: Scope) -> tuple[tuple[str, str | None], ...]:
    """Each default may use the arguments before it, also those of the same instruction."""
    lexer = Lexer(scope.global_scope.escape)
    seen = dict(scope.variables)
    pairs: list[tuple[str, str | None]] = []
    for name, default in argument.pairs:
        name = lexer.expand(name, seen)
        value = None if default is None else lexer.expand(default, seen)
        pairs.append((name, value))
        effective = scope.global_scope.given.get(name, value)
        if effective is not None and name not in scope.environment:
            seen[name] = effective
    return tuple(pairs)
