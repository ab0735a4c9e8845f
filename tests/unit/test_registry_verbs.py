"""What the engine asks which registry: terms, servers, filters, and who is known to have a layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from naru.api.system import AuthConfig
from naru.distribution.search import Match
from naru.engine.registry_verbs import RegistryVerbs, registry_config
from naru.errors import InvalidArgument, Unavailable


@dataclass
class Hub:
    """Stands for the client's search and login: notes what is asked, and answers or does not."""

    answers: bool = True
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def search(self, domain: str, term: str, *, limit: int, **_more: object) -> list[Match]:
        self.asked.append((domain, term, str(limit)))
        if not self.answers:
            raise Unavailable('Get "https://index.docker.io/v1/search": connection refused')
        return [Match("web", "the web", 90, True), Match("team/web", None, 7)]

    def login(self, domain: str, _auth: AuthConfig, **_more: object) -> str:
        self.asked.append((domain,))
        return "kept"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr("naru.distribution.search.search", made.search)
    monkeypatch.setattr("naru.distribution.login.login", made.login)
    return made


def verbs(recipes: list[str] | None = None) -> RegistryVerbs:
    made = RegistryVerbs()
    parts: Any = SimpleNamespace(insecure_registries=(), recipes=None if recipes is None else lambda _term: recipes)
    made.parts = parts
    return made


@pytest.mark.parametrize(
    ("term", "asked"),
    [
        ("redis", ("docker.io", "redis", "25")),
        ("library/redis", ("docker.io", "redis", "25")),
        ("team/web", ("docker.io", "team/web", "25")),
        ("docker.io/team/web", ("docker.io", "team/web", "25")),
        ("quay.io/team/web", ("quay.io", "team/web", "25")),
        ("localhost/web", ("localhost", "web", "25")),
        ("box:5000/web", ("box:5000", "web", "25")),
    ],
)
def test_a_term_names_the_registry_to_search(hub: Hub, term: str, asked: tuple[str, ...]) -> None:
    verbs().image_search(term)
    assert hub.asked == [asked]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["web", "team/web"]),
        ({"is-official": ["true"]}, ["web"]),
        ({"is-official": ["0"]}, ["team/web"]),
        ({"stars": ["8"]}, ["web"]),
        ({"is-automated": ["true"]}, []),
    ],
)
def test_filters_choose_among_what_was_found(hub: Hub, filters: dict[str, list[str]], names: list[str]) -> None:
    assert [result.name for result in verbs().image_search("web", filters=filters)] == names


@pytest.mark.parametrize(
    ("filters", "limit", "refusal"),
    [
        ({"a": ["b"]}, 0, "invalid filter 'a'"),
        ({"stars": ["many"]}, 0, "invalid filter 'stars=many'"),
        ({"is-official": ["perhaps"]}, 0, "invalid filter 'is-official=perhaps'"),
        ({}, 101, r"limit 101 is outside the range of \[1, 100\]"),
        ({}, -1, r"limit -1 is outside the range of \[1, 100\]"),
    ],
)
def test_what_cannot_be_asked_is_refused(hub: Hub, filters: dict[str, list[str]], limit: int, refusal: str) -> None:
    with pytest.raises(InvalidArgument, match=refusal):
        verbs().image_search("web", limit=limit, filters=filters)
    assert hub.asked == []


def test_the_library_stands_in_for_docker_hub_and_says_so(hub: Hub) -> None:
    hub.answers = False
    (found,) = verbs(["redis"]).image_search("red")
    assert (found.name, found.is_official) == ("redis", False)
    assert found.description == "made here by naru's library: Docker Hub cannot be reached"


@pytest.mark.parametrize(("recipes", "term"), [([], "red"), (None, "red"), (["redis"], "quay.io/red")])
def test_where_the_library_has_nothing_or_is_not_meant_the_search_fails(
    hub: Hub, recipes: list[str] | None, term: str
) -> None:
    hub.answers = False
    with pytest.raises(Unavailable, match="connection refused"):
        verbs(recipes).image_search(term)


@pytest.mark.parametrize(
    ("server", "domain"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("quay.io", "quay.io"),
        ("https://box:5000/v2/", "box:5000"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_a_server_to_log_in_at_is_a_registry(hub: Hub, server: str, domain: str) -> None:
    answer = verbs().system_auth(AuthConfig(username="ann", password="s", serveraddress=server))
    assert (answer.status, answer.identity_token) == ("Login Succeeded", "kept")
    assert hub.asked == [(domain,)]


def test_info_tells_insecure_networks_from_registries() -> None:
    shown = registry_config(["10.0.0.0/8", "box:5000"])
    assert shown.insecure_registry_cidrs == ["127.0.0.0/8", "::1/128", "10.0.0.0/8"]
    assert {name: index.secure for name, index in shown.index_configs.items()} == {"docker.io": True, "box:5000": False}
