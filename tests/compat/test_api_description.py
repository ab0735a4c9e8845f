"""narud's answers, held against the published descriptions of the Engine API.

A description is of one version; between them, `server/versions.py` follows Docker's history of versions. 1.24, the
oldest version served, was never described in a form that a program can read; `test_api_old_clients.py` has it.
"""

from __future__ import annotations

import functools

import pytest
from api_client import Client
from api_description import ASKING_A_REGISTRY, FILES, description
from api_scenario import ABSENT, Judge, walk
from daemon import Daemon

pytestmark = pytest.mark.root

# Described, routed, and answered 501 until there is something behind it.
UNSERVED: set[str] = set()
# There is no registry in this walk but one that cannot be reached; the tests of the registry client have one.
ASKING_ANOTHER = set(ASKING_A_REGISTRY) - {"POST /images/create"}
# Refused always, in a way that is described: the store keeps no attestations, and there is no cluster.
REFUSED = {"GET /images/{name}/attestations", "PUT /volumes/{name}"}


@functools.cache
def walked(narud: Daemon, version: str) -> Judge:
    """Walk once for all tests of a version."""
    judge = Judge(Client(str(narud.run / "naru.sock"), version), description(version))
    walk(judge)
    return judge


@pytest.mark.parametrize("version", FILES)
def test_every_answer_is_as_it_is_described(own_narud_shared: Daemon, version: str) -> None:
    problems = walked(own_narud_shared, version).problems
    assert not problems, "\n".join(sorted(set(problems)))


@pytest.mark.parametrize("version", FILES)
def test_every_operation_was_asked_for_and_gave_a_success_and_an_error(own_narud_shared: Daemon, version: str) -> None:
    judge = walked(own_narud_shared, version)
    unproven = []
    for name, operation in judge.described.operations.items():
        if operation.template.startswith(ABSENT) or name in judge.unserved:
            continue
        statuses = judge.statuses.get(name, set())
        if not any(status < 400 for status in statuses) and name not in REFUSED | ASKING_ANOTHER:
            unproven.append(f"{name}: no success in {statuses}")
        if not any(status >= 400 for status in statuses):
            unproven.append(f"{name}: no error in {statuses}")
    assert not unproven, "\n".join(unproven)
    assert judge.unserved <= UNSERVED


def test_the_newest_version_that_is_served_is_the_newest_that_is_described(own_narud_shared: Daemon) -> None:
    client = Client(str(own_narud_shared.run / "naru.sock"), "")
    told = {client.call("GET", "/version").json["ApiVersion"], client.call("GET", "/_ping").headers["api-version"]}
    assert told == {max(FILES, key=lambda version: tuple(map(int, version.split("."))))}
