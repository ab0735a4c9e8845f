from __future__ import annotations

from pathlib import Path

import pytest

from naru.errors import Unavailable
from naru.library.apt_config import read_apt_config, without_credentials


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/apt/apt.conf.d").mkdir()
    return tmp_path


def suites(root: Path, suite: str, **environment: str) -> list[tuple[str, str]]:
    return [(found.uri, found.suite) for found in read_apt_config(environment, root=root).mirrors(suite)]


def test_one_line_sources_lend_their_mirror_to_another_suite(root: Path) -> None:
    (root / "etc/apt/sources.list").write_text(
        "# deb http://old.test/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://a.test/debian/ bookworm main contrib # ours\n"
        "deb-src http://src.test/debian bookworm main\n"
        "deb http://s.test/debian-security bookworm-security main\n"
    )
    assert suites(root, "trixie") == [
        ("http://a.test/debian", "trixie"),
        ("http://a.test/debian", "trixie-updates"),
        ("http://s.test/debian-security", "trixie-security"),
    ]


def test_deb822_sources_are_read_and_disabled_or_foreign_ones_are_not_used(root: Path) -> None:
    (root / "etc/apt/sources.list.d/a.sources").write_text(
        "Types: deb\nURIs: http://vendor.test/x\nSuites: nodistro\nComponents: main\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off.test/debian\nSuites: bookworm\nComponents: main\n\n"
        "Types: deb deb-src\nURIs: http://a.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
    )
    assert suites(root, "bookworm")[0] == ("http://a.test/debian", "bookworm")


def test_the_setting_replaces_what_apt_says(root: Path) -> None:
    (root / "etc/apt/sources.list").write_text("deb http://a.test/debian bookworm main\n")
    assert suites(root, "sid", NARU_DEBIAN_MIRROR="http://mine.test/d/") == [("http://mine.test/d", "sid")]
    assert suites(root, "trixie", NARU_DEBIAN_MIRROR="http://mine.test/d")[2] == (
        "http://mine.test/d-security",
        "trixie-security",
    )


def test_a_host_without_a_debian_mirror_is_told_what_to_set(root: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        suites(root, "trixie")
    assert "NARU_DEBIAN_MIRROR" in caught.value.hint


def test_apts_proxy_wins_over_the_environments(root: Path) -> None:
    (root / "etc/apt/apt.conf.d/10proxy").write_text(
        '// Acquire::http::Proxy "http://no";\nAcquire { http { Proxy "http://apt.test:3142"; }; };\n'
    )
    config = read_apt_config({"http_proxy": "http://env.test", "HTTPS_PROXY": "http://env.test"}, root=root)
    assert config.proxies == {"http": "http://apt.test:3142", "https": "http://env.test"}


def test_dates_are_checked_unless_apt_on_this_host_does_not(root: Path) -> None:
    assert read_apt_config({}, root=root).check_valid_until
    (root / "etc/apt/apt.conf.d/99frozen").write_text('Acquire::Check-Valid-Until "false";\n')
    assert not read_apt_config({}, root=root).check_valid_until


def test_credentials_come_from_auth_conf(root: Path) -> None:
    (root / "etc/apt/auth.conf").write_text("machine a.test login ann password s3cret\n")
    assert read_apt_config({}, root=root).credentials == {"a.test": ("ann", "s3cret")}


def test_what_is_written_into_an_image_has_no_credentials() -> None:
    assert without_credentials("https://ann:s@a.test:8443/debian") == "https://a.test:8443/debian"
