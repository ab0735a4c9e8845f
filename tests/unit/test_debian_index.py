from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pysequoia
import pytest
from debian_archive import CERTIFICATE, publish, release, sign

from naru.errors import Corrupt, NotFound, Unavailable
from naru.library.apt_config import Source
from naru.library.debian_index import fetch_index, keyring, verify_release
from naru.library.fetch import Fetcher

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SOURCE = Source("http://mirror.test/debian", "trixie", ("main",))
PACKAGES = b"Package: a\nVersion: 1\nArchitecture: amd64\n"


def test_a_signed_release_tells_its_date_and_hashes() -> None:
    found = verify_release(SOURCE, sign(release("trixie", NOW, PACKAGES)), [CERTIFICATE], now=NOW)
    assert (found.codename, found.version, found.date) == ("trixie", "99", NOW)
    assert "main/binary-amd64/Packages.xz" in found.sha256


def test_a_changed_release_is_refused() -> None:
    signed = sign(release("trixie", NOW, PACKAGES)).replace(b"Version: 99", b"Version: 98")
    with pytest.raises(Corrupt, match="InRelease"):
        verify_release(SOURCE, signed, [CERTIFICATE], now=NOW)


def test_a_release_signed_by_a_stranger_is_refused() -> None:
    signed = sign(release("trixie", NOW, PACKAGES), pysequoia.Tsk.generate("Stranger <s@test>"))
    with pytest.raises(Corrupt, match="InRelease"):
        verify_release(SOURCE, signed, [CERTIFICATE], now=NOW)


def test_an_unsigned_release_is_refused() -> None:
    with pytest.raises(Corrupt, match="InRelease"):
        verify_release(SOURCE, release("trixie", NOW, PACKAGES), [CERTIFICATE], now=NOW)


def test_text_around_the_signed_text_is_not_read() -> None:
    signed = b"Version: 1\nEvil: yes\n\n" + sign(release("trixie", NOW, PACKAGES)) + b"\nVersion: 2\n"
    assert verify_release(SOURCE, signed, [CERTIFICATE], now=NOW).version == "99"


def test_an_expired_release_is_refused_unless_the_hosts_apt_does_not_care() -> None:
    signed = sign(release("trixie", NOW, PACKAGES, valid_until=NOW))
    later = NOW + timedelta(seconds=1)
    with pytest.raises(Unavailable, match="expired on 2026-05-01"):
        verify_release(SOURCE, signed, [CERTIFICATE], now=later)
    assert verify_release(SOURCE, signed, [CERTIFICATE], now=later, check_valid_until=False).valid_until == NOW


def test_a_release_from_the_future_is_refused() -> None:
    signed = sign(release("trixie", NOW + timedelta(minutes=1), PACKAGES))
    with pytest.raises(Unavailable, match="in the future"):
        verify_release(SOURCE, signed, [CERTIFICATE], now=NOW)


def test_the_release_of_another_suite_is_refused() -> None:
    with pytest.raises(Corrupt, match="is for bookworm"):
        verify_release(SOURCE, sign(release("bookworm", NOW, PACKAGES)), [CERTIFICATE], now=NOW)


def test_the_real_archives_keys_are_in_the_shipped_keyring() -> None:
    shipped = Path(__file__).parents[2] / "library/debian/keyring.gpg"
    names = [user for certificate in keyring(shipped, host=()) for user in map(str, certificate.user_ids)]
    assert any("Debian Archive Automatic Signing Key (13/trixie)" in name for name in names)
    assert any("Debian Security Archive Automatic Signing Key (12/bookworm)" in name for name in names)


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher(proxies={}, credentials={})


def test_suites_are_merged_and_the_newest_version_wins(tmp_path: Path, fetcher: Fetcher) -> None:
    base = publish(tmp_path, "trixie", NOW, PACKAGES)
    update = publish(tmp_path, "trixie-security", NOW, PACKAGES.replace(b"Version: 1", b"Version: 1~bpo9+1"))
    newer = publish(tmp_path, "trixie-updates", NOW, PACKAGES.replace(b"Version: 1", b"Version: 1.0"))
    missing = Source(base.uri, "trixie-none", ("main",))
    releases, index = fetch_index(fetcher, [base, missing, update, newer], [CERTIFICATE], "amd64", clock=lambda: NOW)
    assert [found.codename for found in releases] == ["trixie", "trixie-security", "trixie-updates"]
    assert [package.fields["Version"] for package in index.versions("a")] == ["1.0", "1", "1~bpo9+1"]


def test_a_suite_that_the_mirror_lacks_is_not_found(tmp_path: Path, fetcher: Fetcher) -> None:
    with pytest.raises(NotFound):
        fetch_index(fetcher, [Source(f"file://{tmp_path}", "trixie", ("main",))], [CERTIFICATE], "amd64")


def test_a_packages_file_other_than_the_signed_one_is_refused(tmp_path: Path, fetcher: Fetcher) -> None:
    source = publish(tmp_path, "trixie", NOW, PACKAGES)
    path = tmp_path / "dists/trixie/main/binary-amd64/Packages.xz"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(Corrupt, match="SHA-256"):
        fetch_index(fetcher, [source], [CERTIFICATE], "amd64", clock=lambda: NOW)
