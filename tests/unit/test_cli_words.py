"""Sizes, times, tables, ports, names and ignore patterns: what the CLI reads and shows."""

from __future__ import annotations

import pytest

from naru.cli import ports, reference, units
from naru.cli.dockerignore import Ignore
from naru.cli.environment import variables
from naru.cli.ps import ports as shown_ports
from naru.cli.table import columns, filters
from naru.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "size"),
    [("512m", 512 << 20), ("1.5g", 3 << 29), ("64MiB", 64 << 20), ("10", 10), ("1 kb", 1024), ("-1", -1), ("7b", 7)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert units.parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1h30m", 5_400_000_000_000), ("1.5s", 1_500_000_000), ("-2ms", -2_000_000), ("0", 0), ("1m0.5s", 60_500_000_000)],
)
def test_durations_are_gos(text: str, nanoseconds: int) -> None:
    assert units.parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "1x", "h", "1.2.3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time: "):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (300, "5 minutes"),
        (3600, "About an hour"), (47 * 3600, "47 hours"), (72 * 3600, "3 days"), (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"), (800 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_ages_are_told_in_one_unit(seconds: float, text: str) -> None:
    assert units.human_duration(seconds) == text


def test_sizes_are_told_with_few_digits() -> None:
    assert [units.human_size(87_234_567, 3), units.human_size(0), units.human_size(2_025_000)] == [
        "87.2MB", "0B", "2.025MB",
    ]  # fmt: skip
    assert units.human_binary_size(25_275_000_000) == "23.54GiB"


def test_a_time_ago_becomes_seconds_since_1970() -> None:
    assert units.timestamp("10m", now=1_000_000) == "999400.000000000"
    assert units.timestamp("2026-01-02T03:04:05Z") == "1767323045.000000000"
    assert units.timestamp("1700000000.5") == "1700000000.5"


def test_columns_are_ten_wide_or_as_their_widest_cell_and_three() -> None:
    assert columns([["A", "B"], ["a longer cell", "x"]]) == "A               B\na longer cell   x\n"
    assert columns([["A", "B"]]) == "A         B\n"


def test_filters_of_one_name_add_up() -> None:
    assert filters(["status=exited", "status=dead"]) == {"status": {"exited": True, "dead": True}}
    with pytest.raises(InvalidArgument, match="bad format of filter"):
        filters(["foo"])


@pytest.mark.parametrize(
    ("spec", "bindings"),
    [
        ("80", {"80/tcp": [("", "")]}),
        ("8080:80", {"80/tcp": [("", "8080")]}),
        ("127.0.0.1::53/udp", {"53/udp": [("127.0.0.1", "")]}),
        ("[::1]:8080:80", {"80/tcp": [("::1", "8080")]}),
        ("8000-8001:80-81", {"80/tcp": [("", "8000")], "81/tcp": [("", "8001")]}),
        ("8000-8010:80", {"80/tcp": [("", "8000-8010")]}),
        ("target=80,published=8080,protocol=udp", {"80/udp": [("", "8080")]}),
    ],
)
def test_published_ports(spec: str, bindings: dict[str, list[tuple[str, str]]]) -> None:
    found = ports.publish([spec])
    assert {port: [(one["HostIp"], one["HostPort"]) for one in many] for port, many in found.items()} == bindings


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("abc", "invalid containerPort: abc"),
        ("x:80", "invalid hostPort: x"),
        ("80/foo", "invalid proto: foo"),
        ("300.1.1.1:80:80", "invalid IP address: 300.1.1.1"),
        ("1-2:5-9", "invalid ranges specified for container and host Ports: 5-9 and 1-2"),
        ("70000:80", "invalid hostPort: 70000"),
    ],
)
def test_ports_that_cannot_be_are_refused_in_dockers_words(spec: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        ports.publish([spec])
    assert str(raised.value) == message


def test_listed_ports_show_runs_as_ranges_and_mappings_last() -> None:
    published = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 90, "PublicPort": 90, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 91, "PublicPort": 91, "Type": "udp"},
        {"IP": "::", "PrivatePort": 90, "PublicPort": 90, "Type": "udp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]
    assert shown_ports(published) == (
        "0.0.0.0:90-91->90-91/udp, [::]:90->90/udp, 443/tcp, 0.0.0.0:8080->80/tcp"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tagged", "registry"),
    [
        ("redis", "redis:latest", "docker.io"),
        ("docker.io/library/redis:7", "redis:7", "docker.io"),
        ("localhost:5000/a", "localhost:5000/a:latest", "localhost:5000"),
        ("ghcr.io/x/y@sha256:00", "ghcr.io/x/y@sha256:00", "ghcr.io"),
    ],
)
def test_image_names_get_their_tag_and_know_their_registry(name: str, tagged: str, registry: str) -> None:
    assert (reference.tagged(name), reference.registry(name)) == (tagged, registry)


def test_an_upper_case_repository_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"repository name \(library/FOO\) must be lowercase"):
        reference.tagged("FOO")


def test_ignore_patterns_exclude_with_what_is_inside_and_the_last_match_decides() -> None:
    ignore = Ignore(["# comment", "*.log", "skip", "!skip/keep", "**/cache", "/top", "a?c", ""])
    kept = ["a.txt", "sub/x.log", "skip/keep", "abbc"]
    lost = ["x.log", "skip", "skip/b/c", "deep/er/cache/file", "cache", "top", "abc"]
    assert [ignore.excludes(path) for path in kept] == [False] * len(kept)
    assert [ignore.excludes(path) for path in lost] == [True] * len(lost)
    assert ignore.may_hold_exception("skip") and not ignore.may_hold_exception("top")


def test_a_variable_alone_is_passed_on_from_ours(tmp_path: pytest.TempPathFactory) -> None:
    assert variables([], ["A", "B=2", "C"], {"A": "1"}) == ["A=1", "B=2", "C"]
