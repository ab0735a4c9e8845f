"""Where this host gets its Debian packages: the part of apt's own configuration that a bootstrap needs.

Read, never written: `/etc/apt/sources.list`, `/etc/apt/sources.list.d/*.{list,sources}`, `/etc/apt/apt.conf`,
`/etc/apt/apt.conf.d/*`, `/etc/apt/auth.conf`, `/etc/apt/auth.conf.d/*`. `NARU_DEBIAN_MIRROR` (and, for a security
archive that is not beside it, `NARU_DEBIAN_SECURITY_MIRROR`) replaces the sources. No mirror is built in: a host
that names none gets an error that says what to set. sources.list(5), apt.conf(5), apt_auth.conf(5)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from debian.deb822 import Deb822

from naru.errors import Unavailable

MIRROR_SETTING = "NARU_DEBIAN_MIRROR"
SECURITY_MIRROR_SETTING = "NARU_DEBIAN_SECURITY_MIRROR"

# Suites that Debian itself publishes. A third-party repository may use any of these names too, so the choice below
# also looks at what the entry offers; a wrong guess ends at the signature check, not in an image.
_DEBIAN_SUITES = frozenset(
    "buster bullseye bookworm trixie forky duke sid oldoldstable oldstable stable testing unstable".split()
)
_SCHEMES = ("http", "https", "file", "copy")
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>[^#]*)")
_COMMENT = re.compile(r"/\*.*?\*/|^\s*(?://|#).*?$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Source:
    """One repository that apt on this host reads: `suite` at `uri`."""

    uri: str
    suite: str
    components: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AptConfig:
    """What apt on this host would do: its sources, proxies by scheme, credentials by host, and date policy."""

    sources: tuple[Source, ...]
    proxies: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    check_valid_until: bool = True

    def mirrors(self, suite: str) -> list[Source]:
        """Return the sources that make up Debian `suite`: the release, its updates, its security archive.

        Taken from entries of any Debian suite, because a mirror that has the host's suite has the others; whether
        it really does is seen when the index is fetched. Unavailable: this host names no Debian mirror.
        """
        archive = security = None
        for source in self.sources:
            base, _, pocket = source.suite.partition("-")
            if "main" not in source.components or base.partition("/")[0] not in _DEBIAN_SUITES:
                continue
            if pocket == "security" or source.suite.endswith("/updates"):
                security = security or source
            elif pocket in ("", "updates"):
                archive = archive or source
        if archive is None:
            raise Unavailable(
                "no Debian mirror is known on this host",
                hint=f"set {MIRROR_SETTING} to the address of one, such as http://<host>/debian",
            )
        found = [Source(archive.uri, suite, ("main",))]
        if suite in ("sid", "unstable"):
            return found
        found.append(Source(archive.uri, f"{suite}-updates", ("main",)))
        if security is not None:
            found.append(Source(security.uri, f"{suite}-security", ("main",)))
        return found


def read_apt_config(environment: Mapping[str, str], *, root: Path = Path("/")) -> AptConfig:
    """Return the configuration of apt below `root`, with the settings in `environment` on top."""
    apt = root / "etc/apt"
    options = dict(_options(apt))
    mirror = environment.get(MIRROR_SETTING, "").rstrip("/")
    sources = _given_sources(mirror, environment.get(SECURITY_MIRROR_SETTING, "")) if mirror else tuple(_sources(apt))
    return AptConfig(
        sources=sources,
        proxies=_proxies(options, environment),
        credentials=dict(_credentials(apt)),
        check_valid_until=options.get("acquire::check-valid-until", "true").lower() not in ("false", "no", "0", "off"),
    )


def without_credentials(uri: str) -> str:
    """Return `uri` without a user name and password, as it may be shown or written into an image."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _given_sources(mirror: str, security: str) -> tuple[Source, ...]:
    """By convention the security archive lies beside the archive as `<mirror>-security`."""
    return (
        Source(mirror, "stable", ("main",)),
        Source((security or f"{mirror}-security").rstrip("/"), "stable-security", ("main",)),
    )


def _sources(apt: Path) -> Iterator[Source]:
    lists = sorted([*apt.glob("sources.list.d/*.list"), *apt.glob("sources.list.d/*.sources")])
    for path in [apt / "sources.list", *lists]:
        if not path.is_file():
            continue
        text = path.read_text("utf-8", "replace")
        found = _deb822_sources(text) if path.suffix == ".sources" else _one_line_sources(text)
        yield from (source for source in found if urlsplit(source.uri).scheme in _SCHEMES)


def _one_line_sources(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        if match := _ONE_LINE.match(line.strip()):
            yield Source(match["uri"].rstrip("/"), match["suite"].rstrip("/"), tuple(match["components"].split()))


def _deb822_sources(text: str) -> Iterator[Source]:
    for paragraph in Deb822.iter_paragraphs(text, use_apt_pkg=False):
        types, enabled = paragraph.get("Types", "").split(), paragraph.get("Enabled", "yes").strip().lower()
        if "deb" not in types or enabled in ("no", "false", "off", "0", "without", "disable"):
            continue
        components = tuple(paragraph.get("Components", "").split())
        for uri in paragraph.get("URIs", "").split():
            for suite in paragraph.get("Suites", "").split():
                yield Source(uri.rstrip("/"), suite.rstrip("/"), components)


def _options(apt: Path) -> Iterator[tuple[str, str]]:
    """Yield the plain `A::B "value";` options and those of `A { B "value"; }` blocks, names in lower case."""
    for path in [*sorted(apt.glob("apt.conf.d/*")), apt / "apt.conf"]:
        if not path.is_file():
            continue
        text = _COMMENT.sub("", path.read_text("utf-8", "replace"))
        yield from _block_options(text)


def _block_options(text: str) -> Iterator[tuple[str, str]]:
    scope: list[str] = []
    for token in re.finditer(r'"[^"]*"|[{};]|[^\s{};"]+', text):
        word = token.group()
        if word == "{":
            scope.append("{")
        elif word == "}":
            while scope and scope.pop() != "{":
                pass
            if scope and scope[-1] != "{":
                scope.pop()
        elif word == ";":
            if scope and scope[-1] != "{":
                scope.pop()
        elif word.startswith('"') and scope and scope[-1] != "{":
            yield "::".join(part for part in scope if part != "{").lower(), word[1:-1]
        elif not word.startswith('"'):
            scope.append(word)


def _proxies(options: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """apt's own option wins over the environment; `DIRECT` means no proxy, as in apt."""
    proxies: dict[str, str] = {}
    for scheme in ("http", "https"):
        name = f"{scheme}_proxy"
        value = options.get(f"acquire::{scheme}::proxy") or environment.get(name) or environment.get(name.upper(), "")
        if value and value.upper() not in ("DIRECT", "FALSE"):
            proxies[scheme] = value
    return proxies


def _credentials(apt: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    for path in [apt / "auth.conf", *sorted(apt.glob("auth.conf.d/*"))]:
        try:
            words = path.read_text("utf-8", "replace").split() if path.is_file() else []
        except PermissionError:
            continue
        entry: dict[str, str] = {}
        for name, value in zip(words[::2], words[1::2], strict=False):
            if name == "machine":
                entry = {}
            entry[name] = value
            if {"machine", "login", "password"} <= entry.keys():
                yield entry["machine"].rpartition("//")[2].partition("/")[0], (entry["login"], entry["password"])
