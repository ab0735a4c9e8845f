"""Names that are made up: two containers created at once may be offered the same one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from naru.api.container import ContainerConfig, NetworkingConfig
from naru.api.host import HostConfig
from naru.engine import create, names
from naru.engine.clock import now
from naru.engine.container import Container, Containers
from naru.errors import Conflict
from naru.persist.database import Database


def container(number: int, name: str) -> Container:
    return Container(
        id=f"{number:064x}",
        name=name,
        created_at=now(),
        image_id="sha256:0",
        image="busybox",
        platform="linux",
        config=ContainerConfig(),
        host_config=HostConfig(),
        networking=NetworkingConfig(),
    )


@pytest.fixture
def parts(tmp_path: Path) -> Any:
    return SimpleNamespace(containers=Containers(Database(tmp_path / "naru.db")))


def test_a_made_up_name_that_was_taken_meanwhile_is_replaced(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.containers.add(container(1, "calm_han"))
    offered = iter(["calm_han", "bold_geum"])
    monkeypatch.setattr(names, "generate", lambda _taken: next(offered))

    added = create._add(parts, container(2, "calm_han"), may_rename=True)

    assert added.name == "bold_geum"
    assert parts.containers.get("bold_geum").id == added.id


def test_a_name_that_was_asked_for_is_a_conflict(parts: Any) -> None:
    parts.containers.add(container(1, "calm_han"))

    with pytest.raises(Conflict, match='The container name "/calm_han" is already in use'):
        create._add(parts, container(2, "calm_han"), may_rename=False)
