"""Stages → layers and config: each instruction becomes a step that is found in the cache or carried out.

A stage is solved when another needs it, once. A step that makes files depends on the file system below it and on its
own inputs (`cache`); everything else only changes the config. Killed half-way, finished steps stay in the cache and
an unfinished one leaves an active snapshot that `recover` removes. Dockerfile reference; DESIGN.md, Images.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from naru.api.build import BuildOptions
from naru.build.cache import BuildCache, CacheRecord, Layer, Value, cache_key
from naru.build.config import (
    HISTORY_COMMENT,
    StageConfig,
    apply,
    created_by,
    environment,
    inherit,
    run_command,
)
from naru.build.context import Context
from naru.build.copying import plan_copy
from naru.build.directories import CacheDirectories
from naru.build.dockerfile import parse_trigger
from naru.build.expand import GlobalScope, Scope, expand
from naru.build.failure import StepFailed
from naru.build.filetree import Tree
from naru.build.instructions import Add, Arg, Copy, Dockerfile, From, Instruction, Run, Stage, Workdir
from naru.build.layers import ActiveLayer, Keeper, LayerStore
from naru.build.limits import step_resources, step_rlimits
from naru.build.ownership import resolve_owner
from naru.build.place import Attributes, is_directory, make_directories
from naru.build.progress import BuildProgress
from naru.build.run_mount import parse_run_mount
from naru.build.run_mounts import mount_facts, mounted
from naru.build.stages import SCRATCH, ImageRef, StageRef, base_of, source_of
from naru.build.step import Cancelled, Step, StepRunner
from naru.build.syntax import DockerfileError, SyntaxProblem
from naru.build.words import Lexer
from naru.errors import InvalidArgument, NotFound, Unsupported
from naru.oci import platform as platforms
from naru.oci.digest import ChainID, of, short
from naru.oci.image import ContainerConfig, History, ImageConfig, Platform, RootFS
from naru.task.spec import DEFAULT_SHM_BYTES

_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Solved:
    """A finished stage or a base image."""

    config: ContainerConfig
    platform: Platform
    layers: tuple[Layer, ...] = ()
    history: tuple[History, ...] = ()
    author: str = ""
    created: datetime | None = None

    @property
    def chain(self) -> ChainID | None:
        return self.layers[-1].chain_id if self.layers else None

    def image_config(self, created: datetime | None) -> ImageConfig:
        """Return the image config that names this result."""
        return ImageConfig(
            created=created,
            author=self.author,
            architecture=self.platform.architecture,
            variant=self.platform.variant,
            os=self.platform.os,
            config=self.config,
            rootfs=RootFS(type="layers", diff_ids=[layer.diff_id for layer in self.layers]),
            history=list(self.history),
        )


@dataclass
class Session:
    """What all stages of one build share. `base_image` gives an image by its name in FROM or --from."""

    dockerfile: Dockerfile
    options: BuildOptions
    context: Context
    scope: GlobalScope
    platform: Platform
    layers: LayerStore
    cache: BuildCache
    caches: CacheDirectories
    runner: StepRunner
    base_image: Callable[[str, Platform], Solved]
    progress: BuildProgress
    keeper: Keeper
    epoch: datetime | None = None
    cancelled: threading.Event | None = None
    solved: dict[int, Solved] = field(default_factory=dict)
    solving: set[int] = field(default_factory=set)

    @property
    def time_ns(self) -> int | None:
        """The time for what the builder makes itself, where SOURCE_DATE_EPOCH fixes it."""
        return None if self.epoch is None else int(self.epoch.timestamp()) * 10**9

    def stage(self, index: int) -> Solved:
        """Return stage `index`, solving it on first use."""
        if index not in self.solved:
            stage = self.dockerfile.stages[index]
            if index in self.solving:  # only a trigger of a base image can do what `needed_stages` did not see
                reason = f"circular dependency detected on stage: {stage.name or index}"
                raise DockerfileError(reason, line=stage.base.source.first, file=self.dockerfile.file)
            self.solving.add(index)
            self.solved[index] = _StageSolver(self, stage).solve()
            self.solving.discard(index)
        return self.solved[index]

    @contextmanager
    def tree(self, name: str, *, line: int) -> Iterator[Tree]:
        """Yield what `--from=name` means, the context for ""."""
        if not name:
            yield self.context.tree
            return
        source = source_of(self.dockerfile, name, line=line)
        solved = self.stage(source.index) if isinstance(source, StageRef) else self.image(source)
        with self.layers.view(solved.chain) as root_fd:
            yield Tree(root_fd)

    def image(self, image: ImageRef, platform: str = "") -> Solved:
        """Return the image that a FROM or --from names."""
        return self.base_image(image.name, platforms.parse(platform) if platform else self.platform)


class _StageSolver:
    """One stage while its instructions pass."""

    def __init__(self, session: Session, stage: Stage) -> None:
        self._session = session
        self._stage = stage
        self._scope = Scope(session.scope)
        self._layers: list[Layer] = []
        self._history: list[History] = []
        self._created: datetime | None = None
        self._current = StageConfig(ContainerConfig())
        self._platform = session.platform

    def solve(self) -> Solved:
        base = self._from(self._stage.base)
        self._platform = base.platform
        self._layers = list(base.layers)
        self._history = list(base.history)
        self._created = base.created
        self._current = inherit(base.config)
        self._current.author = base.author
        self._scope.environment = environment(self._current.config)
        self._show_id()
        self._run_triggers(base)
        for instruction in self._stage.instructions:
            self._session.progress.step(instruction.source.text)
            self._instruction(instruction)
            self._show_id()
        return self._result()

    def _result(self) -> Solved:
        current = self._current
        return Solved(
            current.config, self._platform, tuple(self._layers), tuple(self._history), current.author, self._created
        )

    def _from(self, instruction: From) -> Solved:
        session = self._session
        name = session.scope.expand(instruction.image, instruction, file=session.dockerfile.file)
        if not name:
            raise self._wrong(instruction, f"base name ({instruction.image}) should not be blank")
        base = base_of(session.dockerfile, self._stage, name)
        solved = session.stage(base.index) if isinstance(base, StageRef) else None
        session.progress.step(instruction.source.text)
        if solved is not None:
            return solved
        assert isinstance(base, ImageRef)
        platform = session.scope.expand(instruction.platform, instruction, file=session.dockerfile.file)
        if base.name == SCRATCH:
            return Solved(ContainerConfig(), session.platform)
        return session.image(base, platform)

    def _run_triggers(self, base: Solved) -> None:
        triggers = list(base.config.on_build or [])
        if not triggers:
            return
        plural = "s" if len(triggers) > 1 else ""
        self._session.progress.text(f"# Executing {len(triggers)} build trigger{plural}\n")
        for expression in triggers:
            self._instruction(parse_trigger(expression, image=self._stage.base.image))

    def _instruction(self, written: Instruction) -> None:
        session = self._session
        if session.cancelled is not None and session.cancelled.is_set():
            raise Cancelled("build cancelled")
        try:
            instruction = expand(written, self._scope, file=session.dockerfile.file)
            apply(self._current, instruction)
        except InvalidArgument as error:
            if isinstance(error, DockerfileError):
                raise
            raise self._wrong(written, str(error)) from error
        record: CacheRecord | None = None
        match instruction:
            case Run():
                record = self._run(instruction)
            case Copy() | Add():
                record = self._copy(instruction)
            case Workdir():
                record = self._workdir(instruction)
            case Arg():
                self._scope.declare(instruction)
        self._scope.environment = environment(self._current.config)
        self._remember(instruction, record)

    def _wrong(self, instruction: Instruction, reason: str) -> DockerfileError:
        return DockerfileError(reason, line=instruction.source.first, file=self._session.dockerfile.file)

    def _remember(self, instruction: Instruction, record: CacheRecord | None) -> None:
        """Add the step to layers and history. An empty step is as old as the files it stands on."""
        layer = None if record is None else record.layer
        if layer is not None and record is not None:
            self._layers.append(layer)
            self._created = self._session.epoch or record.created_at
        arguments = self._scope.run_arguments() if isinstance(instruction, Run) else {}
        self._history.append(
            History(
                created=self._session.epoch or self._created,
                created_by=created_by(instruction, self._current, arguments),
                author=self._current.author,
                comment=HISTORY_COMMENT,
                empty_layer=layer is None,
            )
        )

    def _show_id(self) -> None:
        document = msgspec.json.encode(self._result().image_config(None))
        self._session.progress.status(short(of(document)))

    @property
    def _chain(self) -> ChainID | None:
        return self._layers[-1].chain_id if self._layers else None

    def _step(
        self, kind: str, facts: Mapping[str, Value], instruction: Instruction, make: Callable[[ActiveLayer], None]
    ) -> CacheRecord:
        """Return the cached record of a step, or carry it out with `make` and record it."""
        session, chain = self._session, self._chain
        key = cache_key(kind, chain, {**facts, "epoch": session.time_ns})
        with session.cache.exclusively(key):
            record = None if session.options.no_cache else session.cache.find(key)
            if record is not None:
                if record.layer is None or session.keeper.keep(record.layer):
                    session.progress.status("Using cache")
                    return record
                session.cache.drop(key)
            with session.layers.active(chain) as active:
                make(active)
                layer = session.layers.commit(active, session.keeper, time_ns=session.time_ns)
            return session.cache.put(key, chain, layer, instruction.source.text)

    # --- COPY, ADD, WORKDIR ---------------------------------------------------------------------------------------

    def _copy(self, instruction: Copy | Add) -> CacheRecord:
        session = self._session
        name = instruction.from_ if isinstance(instruction, Copy) else ""
        kind = type(instruction).__name__.lower()
        with session.tree(name, line=instruction.source.first) as tree:
            try:
                plan = plan_copy(instruction, tree, self._current.config)
                return self._step(
                    kind, plan.facts(), instruction, lambda layer: plan.write(layer.root_fd, time_ns=session.time_ns)
                )
            except (NotFound, InvalidArgument) as error:
                raise type(error)(f"{kind.upper()} failed: {error}", hint=error.hint) from error

    def _workdir(self, instruction: Workdir) -> CacheRecord:
        config = self._current.config
        path, user = config.working_dir, config.user

        def make(layer: ActiveLayer) -> None:
            if is_directory(layer.root_fd, path):
                return
            owner = resolve_owner(user, layer.root_fd) if user else (0, 0)
            attributes = Attributes(owner, None, self._session.time_ns)
            os.close(make_directories(layer.root_fd, path, attributes))

        return self._step("workdir", {"path": path, "user": user}, instruction, make)

    # --- RUN ------------------------------------------------------------------------------------------------------

    def _run(self, instruction: Run) -> CacheRecord:
        session, current = self._session, self._current
        if platforms.rank(platforms.host(), self._platform) is None:
            raise Unsupported(f"RUN in a {self._platform} image is not supported on {platforms.host()}")
        variables = self._scope.variables
        escape = session.dockerfile.directives.escape
        try:
            mounts = tuple(
                parse_run_mount(text, lambda value: Lexer(escape).expand(value, variables))
                for text in instruction.mounts
            )
        except SyntaxProblem as problem:
            raise self._wrong(instruction, str(problem)) from None
        command = run_command(instruction.command, current)
        if instruction.security == "insecure":
            raise self._wrong(instruction, "security.insecure is not allowed")

        def tree_of(name: str) -> AbstractContextManager[Tree]:
            return session.tree(name, line=instruction.source.first)

        seen = {**self._scope.run_arguments(), **environment(current.config)}
        network = self._network(instruction)
        facts: dict[str, Value] = {
            "args": list(command.args),
            "scripts": dict(command.scripts),
            "env": dict(seen),
            "cwd": current.config.working_dir or "/",
            "user": current.config.user,
            "network": network,
            "hosts": list(session.options.extra_hosts),
            "mounts": mount_facts(mounts, tree_of),
        }

        def make(layer: ActiveLayer) -> None:
            with mounted(mounts, tree_of, session.caches, current.config) as runtime_mounts:
                step = Step(
                    args=command.args,
                    env={**self._scope.run_proxies(), **seen},
                    cwd=current.config.working_dir or "/",
                    user=current.config.user,
                    mounts=runtime_mounts,
                    network=network,
                    extra_hosts=session.options.extra_hosts,
                    scripts=command.scripts,
                    resources=step_resources(session.options),
                    rlimits=step_rlimits(session.options),
                    shm_size_bytes=session.options.shm_size or DEFAULT_SHM_BYTES,
                )
                self._execute(step, layer, instruction)

        return self._step("run", facts, instruction, make)

    def _network(self, instruction: Run) -> str:
        mode = self._session.options.network_mode or "default"
        if instruction.network == "host" and mode != "host":
            raise self._wrong(instruction, "network.host is not allowed")  # a stranger's Dockerfile must not choose it
        if instruction.network != "default":
            return instruction.network
        if mode.startswith("container:"):
            raise Unsupported("building on a container's network is not supported yet")
        return mode

    def _execute(self, step: Step, layer: ActiveLayer, instruction: Run) -> None:
        session = self._session
        step_id = secrets.token_hex(32)
        session.progress.status(f"Running in {step_id[:12]}")
        send = session.progress.output()
        tail = bytearray()

        def output(data: bytes) -> None:
            tail.extend(data)
            del tail[:-_TAIL_BYTES]
            send(data)

        code = session.runner.run(step, layer.overlay, output=output, cancelled=session.cancelled, step_id=step_id)
        if code:
            line = " ".join(step.args)
            raise StepFailed(
                f"The command '{line}' returned a non-zero code: {code}",
                exit_code=code,
                line=instruction.source.first,
                file=session.dockerfile.file,
                output_tail=tail.decode("utf-8", "replace"),
            )
        session.progress.text(f"Removing intermediate container {step_id[:12]}\n")
