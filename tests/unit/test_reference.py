"""References as people type them, and the platforms an index offers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naru.errors import InvalidArgument
from naru.oci import platform
from naru.oci.image import Descriptor, Platform
from naru.oci.reference import parse, parse_familiar

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("typed", "canonical", "familiar"),
    [
        ("redis", "docker.io/library/redis:latest", "redis:latest"),
        ("redis:7", "docker.io/library/redis:7", "redis:7"),
        ("library/redis", "docker.io/library/redis:latest", "redis:latest"),
        ("index.docker.io/redis", "docker.io/library/redis:latest", "redis:latest"),
        ("ubuntu/nginx", "docker.io/ubuntu/nginx:latest", "ubuntu/nginx:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("LOCALHOST/x", "LOCALHOST/x:latest", "LOCALHOST/x:latest"),
        ("host:5000/x", "host:5000/x:latest", "host:5000/x:latest"),
        ("[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000/x:y"),
        (f"redis@{DIGEST}", f"docker.io/library/redis@{DIGEST}", f"redis@{DIGEST}"),
        (f"redis:7@{DIGEST}", f"docker.io/library/redis:7@{DIGEST}", f"redis:7@{DIGEST}"),
        ("a__b/c--d.e", "docker.io/a__b/c--d.e:latest", "a__b/c--d.e:latest"),
    ],
)
def test_reference_has_a_canonical_and_a_familiar_form(typed: str, canonical: str, familiar: str) -> None:
    reference = parse_familiar(typed)
    assert (reference.canonical(), reference.familiar()) == (canonical, familiar)
    assert parse_familiar(canonical) == parse_familiar(familiar) == reference


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "invalid reference format"),
        (":latest", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("../etc", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("redis:-x", "invalid reference format"),
        ("redis\n", "invalid reference format"),
        ("redis@sha256:12", "invalid reference format"),
        ("Redis", "invalid reference format: repository name (library/Redis) must be lowercase"),
        ("a" * 64, f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings"),
        ("x/" + "a" * 255, "repository name must not be more than 255 characters"),
    ],
)
def test_refusals_use_dockers_words(typed: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse_familiar(typed)
    assert str(refusal.value) == message


def test_only_a_name_without_tag_and_digest_gets_the_default_tag() -> None:
    assert parse("redis").tag is None
    assert parse(f"redis@{DIGEST}").with_default_tag().tag is None


@given(st.text(alphabet="ab.:/@-_[]A0", max_size=24))
def test_whatever_parses_survives_the_round_trip(typed: str) -> None:
    try:
        reference = parse_familiar(typed)
    except InvalidArgument:
        return
    assert parse_familiar(reference.canonical()) == parse_familiar(reference.familiar()) == reference


def _offer(architecture: str, variant: str = "") -> Descriptor:
    return Descriptor(
        digest=parse(f"x@{DIGEST}").digest or pytest.fail("no digest"),
        size=len(architecture + variant),
        platform=Platform(os="linux", architecture=architecture, variant=variant),
    )


@pytest.mark.parametrize(
    ("wanted", "offers", "expected"),
    [
        ("linux/amd64", [("arm64", "v8"), ("amd64", "")], ("amd64", "")),
        ("linux/arm64", [("amd64", ""), ("arm64", "v8")], ("arm64", "v8")),
        ("linux/arm/v7", [("arm", "v5"), ("arm", "v6"), ("arm64", "")], ("arm", "v6")),
        ("linux/amd64/v3", [("amd64", ""), ("amd64", "v2"), ("amd64", "v4")], ("amd64", "v2")),
        ("linux/amd64", [("amd64", "v3"), ("386", "")], None),
        ("arm64/", [("arm64", "")], InvalidArgument),
    ],
)
def test_the_closest_platform_that_runs_here_is_chosen(
    wanted: str, offers: list[tuple[str, str]], expected: tuple[str, str] | type[Exception] | None
) -> None:
    def choice() -> tuple[str, str] | type[Exception] | None:
        try:
            chosen = platform.choose([_offer(*offer) for offer in offers], platform.parse(wanted))
        except InvalidArgument:
            return InvalidArgument
        return (chosen.platform.architecture, chosen.platform.variant) if chosen and chosen.platform else None

    assert choice() == expected
