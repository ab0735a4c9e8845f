from __future__ import annotations

import pytest

from naru.errors import Unsupported
from naru.library.debian_index import Index
from naru.library.debian_resolve import install_order, resolve


def index(*stanzas: str) -> Index:
    """Each stanza is `name version; Field: value; …`; apt is always there."""
    found = Index()
    for stanza in ("apt 1", *stanzas):
        first, *fields = stanza.split("; ")
        name, version = first.split()
        text = "\n".join([f"Package: {name}", f"Version: {version}", "Architecture: amd64", *fields])
        found.add(text.encode() + b"\n", "http://mirror.test")
    return found


def names(found: Index, *extra: str) -> list[str]:
    return [package.name for package in resolve(found, ("apt", *extra))]


def test_essential_required_and_apt_are_the_seeds() -> None:
    assert names(index("e 1; Essential: yes", "r 1; Priority: required", "i 1; Priority: important")) == [
        "apt",
        "e",
        "r",
    ]


def test_both_kinds_of_dependency_are_followed_but_not_recommends() -> None:
    found = index("e 1; Essential: yes; Depends: d; Recommends: x", "d 1; Pre-Depends: p", "p 1", "x 1")
    assert names(found) == ["apt", "d", "e", "p"]


def test_what_is_selected_anyway_beats_the_first_alternative() -> None:
    found = index("e 1; Essential: yes; Depends: heavy | light, other", "other 1; Depends: light", "heavy 1", "light 1")
    assert names(found) == ["apt", "e", "light", "other"]


def test_an_alternative_whose_own_needs_cannot_be_met_is_left() -> None:
    assert names(index("e 1; Essential: yes; Depends: a | b", "a 1; Depends: nowhere", "b 1")) == ["apt", "b", "e"]


def test_an_alternative_that_conflicts_is_left() -> None:
    assert names(index("e 1; Essential: yes; Depends: a | b", "a 1; Conflicts: apt", "b 1")) == ["apt", "b", "e"]


def test_a_virtual_package_is_provided_by_the_one_of_highest_priority() -> None:
    found = index(
        "e 1; Essential: yes; Depends: awk", "zawk 1; Provides: awk; Priority: important", "aawk 1; Provides: awk"
    )
    assert names(found) == ["apt", "e", "zawk"]


def test_a_versioned_dependency_needs_a_versioned_provides() -> None:
    found = index("e 1; Essential: yes; Depends: v (>= 2)", "a 1; Provides: v", "b 1; Provides: v (= 2.1)")
    assert names(found) == ["apt", "b", "e"]


def test_the_newest_version_across_suites_is_taken() -> None:
    found = index("e 1:0.9; Essential: yes", "e 2.0; Essential: yes")
    assert [str(package.version) for package in resolve(found) if package.name == "e"] == ["1:0.9"]


def test_an_older_version_is_taken_where_the_dependency_asks_for_it() -> None:
    found = index("e 1; Essential: yes; Depends: d (<< 2)", "d 1", "d 2")
    assert [str(package.version) for package in resolve(found) if package.name == "d"] == ["1"]


def test_what_cannot_be_met_is_named() -> None:
    with pytest.raises(Unsupported, match=r"e needs d \(>= 2\), which is not there"):
        names(index("e 1; Essential: yes; Depends: d (>= 2)", "d 1"))


def test_a_package_comes_after_what_it_pre_depends_on() -> None:
    found = index("a 1; Essential: yes; Pre-Depends: z", "z 1", "m 1; Essential: yes")
    order = [package.name for package in install_order(resolve(found), "m")]
    assert order == ["m", "z", "a", "apt"]
