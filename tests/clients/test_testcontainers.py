"""testcontainers-python, unmodified, with real Redis and PostgreSQL servers in the containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from daemon import Daemon, pull
from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import RedisContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

pytestmark = [pytest.mark.root, pytest.mark.packages, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def images(shared_narud: Daemon) -> Daemon:
    pull(shared_narud, "redis:8.0", "postgres:17")
    return shared_narud


@pytest.fixture
def engine(images: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv("DOCKER_HOST", images.host)
    # Published ports are in narud's network namespace, whose end of the veth pair reaches them.
    monkeypatch.setattr(testcontainers_config, "tc_host_override", images.namespace.address)
    # Its janitor is an image that only Docker Hub has; `clear` removes what a failed test leaves.
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    yield images
    images.clear()


def test_redis_keeps_what_its_client_sets(engine: Daemon) -> None:
    with RedisContainer("redis:8.0") as container:
        client = container.get_client(decode_responses=True)
        assert client.set("greeting", "hello")
        assert client.get("greeting") == "hello"


def test_postgres_answers_a_query_of_its_client(engine: Daemon) -> None:
    postgres = PostgresContainer("postgres:17", username="me", password="secret", dbname="app", driver=None)
    with postgres as container, psycopg.connect(container.get_connection_url()) as connection:
        row = connection.execute("select current_database(), current_user, 6 * 7").fetchone()
    assert row == ("app", "me", 42)


def test_files_of_initdb_are_run(engine: Daemon, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # the server reads them as its own user
    (tmp_path / "table.sql").write_text("create table animals (name text); insert into animals values ('heron');")
    postgres = PostgresContainer("postgres:17", driver=None)
    postgres.with_volume_mapping(str(tmp_path), "/docker-entrypoint-initdb.d")
    with postgres as container, psycopg.connect(container.get_connection_url()) as connection:
        assert connection.execute("select name from animals").fetchall() == [("heron",)]


def test_containers_find_each_other_on_a_network_of_their_own(engine: Daemon) -> None:
    with Network() as network:
        server = DockerContainer("redis:8.0").with_network(network).with_network_aliases("cache")
        server.waiting_for(LogMessageWaitStrategy("Ready to accept connections"))
        asking = DockerContainer("redis:8.0").with_network(network).with_command("sleep 60")
        with server, asking:
            code, output = asking.exec(["redis-cli", "-h", "cache", "ping"])
    assert (code, output) == (0, b"PONG\n")
