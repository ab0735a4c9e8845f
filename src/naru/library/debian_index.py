"""The signed index of a Debian suite: which packages there are, and the hashes they must have.

Trust runs one way: keyring → OpenPGP signature of InRelease → SHA-256 of Packages.xz → SHA-256 of each package.
Only the text that the signature covers is ever read. Dates are enforced: an index from the future, or past its
Valid-Until, is refused, because a mirror that replays an old index would otherwise keep known holes open.
Debian repository format, deb822(5), RFC 9580 section 7 (cleartext signatures)
"""

from __future__ import annotations

import lzma
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pysequoia
from debian.deb822 import Deb822
from debian.debian_support import Version

from naru.errors import Corrupt, NotFound, Unavailable
from naru.library.apt_config import Source, without_credentials
from naru.library.fetch import Fetcher, Wanted

HOST_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
# apt's own tolerance for a clock that runs behind the archive's (Acquire::Max-FutureTime).
_MAX_FUTURE = timedelta(seconds=10)

_PACKAGE = re.compile(rb"^Package: (\S+)$", re.MULTILINE)
_PROVIDES = re.compile(rb"^Provides: (.+)$", re.MULTILINE)
_SEED = re.compile(rb"^(?:Essential: yes|Priority: required)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Release:
    """A verified InRelease: what it is, when it was made, and the hashes of the indexes it covers."""

    source: Source
    codename: str
    version: str
    date: datetime
    valid_until: datetime | None
    sha256: dict[str, tuple[str, int]]


class Package:
    """One version of a binary package; its fields are parsed when first asked for."""

    __slots__ = ("_fields", "_stanza", "name", "source_uri")

    def __init__(self, name: str, stanza: bytes, source_uri: str) -> None:
        self.name = name
        self.source_uri = source_uri
        self._stanza = stanza
        self._fields: Deb822 | None = None

    @property
    def fields(self) -> Deb822:
        """Every field of the package's stanza, by its name in any case."""
        if self._fields is None:
            self._fields = Deb822(self._stanza.decode("utf-8", "replace").splitlines())
        return self._fields

    @property
    def version(self) -> Version:
        return Version(self.fields["Version"])

    @property
    def architecture(self) -> str:
        return str(self.fields["Architecture"])

    @property
    def priority(self) -> str:
        return str(self.fields.get("Priority", "optional"))

    @property
    def essential(self) -> bool:
        return str(self.fields.get("Essential", "no")) == "yes"

    @property
    def is_base(self) -> bool:
        """Whether every Debian system has it: Essential, or of priority required."""
        return self.essential or self.priority == "required"

    @property
    def file(self) -> Wanted:
        """The .deb: where it is and what it must be."""
        fields = self.fields
        return Wanted(f"{self.source_uri}/{fields['Filename']}", int(fields["Size"]), fields["SHA256"])

    def __repr__(self) -> str:
        return f"{self.name}={self.fields['Version']}"


class Index:
    """All packages of some suites for one architecture, newest version first."""

    def __init__(self) -> None:
        self._stanzas: dict[str, list[Package]] = defaultdict(list)
        self._providers: dict[str, set[str]] = defaultdict(set)
        self.seeds: set[str] = set()

    def add(self, packages: bytes, source_uri: str) -> None:
        """Take in the text of one Packages file."""
        for stanza in packages.split(b"\n\n"):
            match = _PACKAGE.search(stanza)
            if match is None:
                continue
            name = match[1].decode()
            self._stanzas[name].append(Package(name, stanza, source_uri))
            if provides := _PROVIDES.search(stanza):
                for item in provides[1].decode("utf-8", "replace").split(","):
                    self._providers[item.split()[0].partition(":")[0]].add(name)
            if _SEED.search(stanza):
                self.seeds.add(name)

    def versions(self, name: str) -> list[Package]:
        """Return the versions of `name`, newest first; none when there is no such package."""
        return sorted(self._stanzas.get(name, ()), key=lambda package: package.version, reverse=True)

    def newest(self, name: str) -> Package:
        """Return the newest version of `name`. NotFound: no suite has it."""
        if name not in self._stanzas:
            raise NotFound(f"package {name}: not in the index")
        return max(self._stanzas[name], key=lambda package: package.version)

    def providers(self, name: str) -> list[str]:
        """Return the names of packages some version of which provides `name`, in alphabetical order."""
        return sorted(self._providers.get(name, ()))


def keyring(shipped: Path | None, host: Sequence[Path] = HOST_KEYRINGS) -> list[pysequoia.Cert]:
    """Return the certificates of the Debian archive: the host's, which its updates keep fresh, and the shipped ones."""
    certificates: list[pysequoia.Cert] = []
    for path in [*host, *([shipped] if shipped else [])]:
        if path.is_file():
            certificates.extend(pysequoia.Cert.split_bytes(path.read_bytes()))
    if not certificates:
        raise Unavailable("no keyring of the Debian archive on this host or beside the library's recipes")
    return certificates


def verify_release(
    source: Source,
    signed: bytes,
    certificates: Sequence[pysequoia.Cert],
    *,
    now: datetime,
    check_valid_until: bool = True,
) -> Release:
    """Return what the InRelease text `signed` says once its signature and dates hold.

    Corrupt: no valid signature by a key in `certificates`, or not a Debian suite of that name. Unavailable: it is
    dated in the future or has expired.
    """
    place = f"{without_credentials(source.uri)} {source.suite}"
    try:
        # At least one signature must be valid (observed with an altered text and with an empty key list: it raises).
        verified = pysequoia.verify(bytes=signed, store=lambda _key_ids: list(certificates))
    except Exception as error:  # pysequoia raises RuntimeError, and PanicException on some malformed packets
        reason = str(error).partition("\n")[0]
        raise Corrupt(f"{place}: InRelease: {reason}") from None
    if not verified.valid_sigs or verified.bytes is None:
        raise Corrupt(f"{place}: InRelease has no valid signature")
    fields = Deb822(bytes(verified.bytes).decode("utf-8").splitlines())
    release = Release(
        source=source,
        codename=fields.get("Codename", ""),
        version=fields.get("Version", ""),
        date=_date(fields["Date"]),
        valid_until=_date(fields["Valid-Until"]) if "Valid-Until" in fields else None,
        sha256=_hashes(fields.get("SHA256", "")),
    )
    if source.suite not in (release.codename, fields.get("Suite", "")):
        raise Corrupt(f"{place}: InRelease is for {release.codename or 'another suite'}")
    if release.date > now + _MAX_FUTURE:
        raise Unavailable(
            f"{place}: InRelease is dated {release.date:%Y-%m-%d %H:%M} UTC, in the future", hint="is the clock right?"
        )
    if check_valid_until and release.valid_until is not None and release.valid_until < now:
        raise Unavailable(
            f"{place}: InRelease expired on {release.valid_until:%Y-%m-%d %H:%M} UTC",
            hint='use a mirror that is kept up to date, or accept it by Acquire::Check-Valid-Until "false" in apt.conf',
        )
    return release


def fetch_index(
    fetcher: Fetcher,
    sources: Iterable[Source],
    certificates: Sequence[pysequoia.Cert],
    architecture: str,
    *,
    check_valid_until: bool = True,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> tuple[list[Release], Index]:
    """Fetch, verify and merge the indexes of `sources`: the first must exist, a later one may be missing (404)."""

    def one(source: Source) -> tuple[Release, list[bytes]]:
        signed = fetcher.get(f"{source.uri}/dists/{source.suite}/InRelease", limit_bytes=16 << 20)
        release = verify_release(source, signed, certificates, now=clock(), check_valid_until=check_valid_until)
        return release, [_packages(fetcher, release, part, architecture) for part in source.components]

    first, *rest = sources
    releases: list[Release] = []
    index = Index()
    with ThreadPoolExecutor(1 + len(rest), thread_name_prefix="index") as pool:
        running = [pool.submit(one, source) for source in [first, *rest]]
        for position, result in enumerate(running):
            try:
                release, texts = result.result()
            except NotFound:
                if position == 0:
                    raise
                continue
            releases.append(release)
            for text in texts:
                index.add(text, release.source.uri)
    return releases, index


def _packages(fetcher: Fetcher, release: Release, component: str, architecture: str) -> bytes:
    name = f"{component}/binary-{architecture}/Packages.xz"
    if name not in release.sha256:
        raise NotFound(f"{without_credentials(release.source.uri)} {release.source.suite}: no {name}")
    sha256, size_bytes = release.sha256[name]
    base = f"{release.source.uri}/dists/{release.source.suite}/{component}/binary-{architecture}"
    try:
        # By hash, so that a mirror in the middle of an update still has the file this InRelease names.
        packed = fetcher.get_verified(Wanted(f"{base}/by-hash/SHA256/{sha256}", size_bytes, sha256))
    except NotFound:
        packed = fetcher.get_verified(Wanted(f"{base}/Packages.xz", size_bytes, sha256))
    return lzma.decompress(packed)


def _hashes(text: str) -> dict[str, tuple[str, int]]:
    rows = (line.split() for line in text.splitlines())
    return {row[2]: (row[0], int(row[1])) for row in rows if len(row) == 3}


def _date(text: str) -> datetime:
    # "UTC" has no offset in RFC 5322 terms, so Python gives back a naive time; the archive's dates are always UTC.
    parsed = parsedate_to_datetime(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
