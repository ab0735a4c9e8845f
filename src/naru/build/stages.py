"""Which stages a build needs, and what a name in FROM or --from means. Pure.

Dockerfile reference, "FROM"; multi-stage builds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from naru.build.instructions import Copy, Dockerfile, Run, Stage
from naru.build.run_mount import mount_origin
from naru.build.syntax import DockerfileError, did_you_mean
from naru.errors import InvalidArgument

SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class StageRef:
    """Another stage of the same file."""

    index: int


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image by name; "scratch" is the empty one."""

    name: str


def target_stage(dockerfile: Dockerfile, target: str) -> Stage:
    """Return the stage to build: the last, or the one with that name or number. InvalidArgument: there is none."""
    if not target:
        return dockerfile.stages[-1]
    found = _by_name(dockerfile.stages, target)
    if found is None and target.isdecimal() and int(target) < len(dockerfile.stages):
        found = dockerfile.stages[int(target)]
    if found is None:
        names = [stage.name for stage in dockerfile.stages if stage.name]
        raise InvalidArgument(f'target stage "{target}" could not be found{did_you_mean(target.lower(), names)}')
    return found


def base_of(dockerfile: Dockerfile, stage: Stage, image: str) -> StageRef | ImageRef:
    """Return what FROM `image` (variables replaced) means in `stage`: only earlier stages count."""
    earlier = _by_name(dockerfile.stages[: stage.index], image)
    return ImageRef(image) if earlier is None else StageRef(earlier.index)


def source_of(dockerfile: Dockerfile, name: str, *, line: int) -> StageRef | ImageRef:
    """Return what `--from=name` means: a stage by name or number, else an image."""
    if "$" in name:
        advice = "define a new stage with FROM using ARG from global scope as a workaround"
        raise DockerfileError(f"variable expansion is not supported for --from, {advice}", line=line)
    found = _by_name(dockerfile.stages, name)
    if found is not None:
        return StageRef(found.index)
    if name.isdecimal():
        if int(name) >= len(dockerfile.stages):
            raise DockerfileError(f"invalid stage index {name}", line=line)
        return StageRef(int(name))
    return ImageRef(name)


def needed_stages(dockerfile: Dockerfile, target: Stage, base_images: dict[int, str]) -> list[int]:
    """Return the indexes of `target` and all it uses, users after the used.

    `base_images` has each stage's FROM with variables replaced. DockerfileError: a stage needs itself.
    """
    done: list[int] = []
    open_: list[int] = []

    def visit(index: int) -> None:
        if index in done:
            return
        stage = dockerfile.stages[index]
        if index in open_:
            name = stage.name or str(index)
            raise DockerfileError(
                f"circular dependency detected on stage: {name}", line=stage.base.source.first, file=dockerfile.file
            )
        open_.append(index)
        for used in _uses(dockerfile, stage, base_images[index]):
            visit(used)
        open_.pop()
        done.append(index)

    visit(target.index)
    return done


def _uses(dockerfile: Dockerfile, stage: Stage, image: str) -> Iterator[int]:
    base = base_of(dockerfile, stage, image)
    if isinstance(base, StageRef):
        yield base.index
    for instruction in stage.instructions:
        line = instruction.source.first
        for name in _from_names(instruction):
            source = source_of(dockerfile, name, line=line)
            if isinstance(source, StageRef):
                yield source.index


def _from_names(instruction: object) -> Iterator[str]:
    if isinstance(instruction, Copy) and instruction.from_:
        yield instruction.from_
    if isinstance(instruction, Run):
        for text in instruction.mounts:
            if name := mount_origin(text):
                yield name


def _by_name(stages: tuple[Stage, ...], name: str) -> Stage | None:
    return next((stage for stage in reversed(stages) if stage.name and stage.name == name.lower()), None)
