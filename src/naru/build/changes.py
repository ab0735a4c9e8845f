"""`--change` of commit and import: the instructions that change an image's config and need no files.

Engine API, ImageCommit and ImageCreate, `changes`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from naru.build.config import StageConfig, apply, environment
from naru.build.dockerfile import parse_changes
from naru.build.expand import GlobalScope, Scope, expand
from naru.build.syntax import DockerfileError
from naru.errors import InvalidArgument
from naru.oci.image import ContainerConfig


def changed(config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
    """Return a copy of `config` after the instructions `changes`, each of which sees the environment so far.

    InvalidArgument, in Docker's words: not an instruction, or not one that may be there.
    """
    stage = StageConfig(msgspec.convert(msgspec.to_builtins(config), ContainerConfig))
    try:
        for instruction in parse_changes("\n".join(changes).encode()):
            scope = Scope(GlobalScope((), {}, {}), environment(stage.config))
            apply(stage, expand(instruction, scope))
    except DockerfileError as error:
        raise InvalidArgument(error.reason, hint=error.hint) from error
    return stage.config
