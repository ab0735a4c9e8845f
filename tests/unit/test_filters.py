"""Filters that are refused or read, before any object is looked at."""

from __future__ import annotations

import pytest

from naru.engine.events import EventBus
from naru.engine.prune import truth
from naru.errors import InvalidArgument


@pytest.mark.parametrize(("given", "means"), [(["1"], True), (["true"], True), (["0"], False), (["false"], False)])
def test_a_filter_that_is_true_or_false_says_which(given: list[str], means: bool) -> None:
    assert truth({"dangling": given}, "dangling") is means


def test_a_filter_that_was_not_asked_for_says_nothing() -> None:
    assert truth({}, "dangling") is None


def test_a_filter_that_is_neither_is_refused_in_dockers_words() -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid filter 'dangling=\[x\]'$"):
        truth({"dangling": ["x"]}, "dangling")


def test_events_pass_a_filter_that_docker_does_not_know_and_no_other_kinds() -> None:
    bus, heard, unheard = EventBus(), [], []
    bus.subscribe(heard.append, filters={"nonesuch": ["x"]})
    bus.subscribe(unheard.append, filters={"service": ["x"]})

    bus.publish("container", "start", "c1", {"name": "x"})

    assert ([event.action for event in heard], unheard) == (["start"], [])
