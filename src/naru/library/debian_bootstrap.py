"""Make a minimal Debian root directory from packages: what debootstrap's minbase makes, in the shape of an image.

    1. index     signed index of the suite, its updates and its security archive      debian_index
    2. resolve   Essential, required, apt, and what they need                         debian_resolve
    3. fetch     eight threads; each file is hashed and decompressed where it lands   fetch, debian_package
    4. unpack    files below the root, dpkg's database beside them: "install ok unpacked"
    5. configure preinst scripts, then `dpkg --configure`, inside a container         the caller's `run`
    6. finish    apt's sources, no logs and caches, times no later than the index     here

Steps 1 to 4 and 6 run nothing from the packages; step 5 runs their scripts where they can reach nothing of the
host. The same index gives the same files: no clock, no random order. dpkg(1), deb-postinst(5), sources.list(5)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from naru.errors import Corrupt
from naru.library import debian_files
from naru.library.apt_config import AptConfig, without_credentials
from naru.library.debian_index import Package, Release, fetch_index, keyring
from naru.library.debian_package import Deb, PathFilter, Root, read_deb
from naru.library.debian_resolve import install_order, is_asked_for, resolve
from naru.library.fetch import Fetcher

ARCHIVE_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_STATUS = re.compile(r"^Package: .*$", re.MULTILINE)
_CONTROL_ONLY = frozenset({"control", "conffiles", "md5sums", "shlibs", "symbols", "templates", "triggers"})

# Runs a command (arguments, environment) as root in a container on the new root; returns its exit status.
Run = Callable[[Sequence[str], Mapping[str, str]], int]


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """What was made: the release it is, and the newest date of its indexes, which no file is younger than."""

    codename: str
    version: str
    date: datetime
    packages: tuple[str, ...]


class Bootstrap:
    """Debian bootstraps with one configuration of apt and one shipped keyring."""

    def __init__(self, config: AptConfig, *, shipped_keyring: Path | None = None) -> None:
        self._config = config
        self._shipped_keyring = shipped_keyring

    def make(
        self, root: str, suite: str, *, architecture: str, slim: bool, run: Run, progress: Callable[[str], None]
    ) -> Bootstrapped:
        """Fill the empty directory `root` with Debian `suite`.

        `slim` leaves out documentation, manual pages and translations, as debian:*-slim does. On an error `root` is
        left as it is, for the caller to throw away. Unavailable: no mirror. Corrupt: it has not what was signed.
        """
        fetcher = Fetcher(proxies=self._config.proxies, credentials=self._config.credentials)
        try:
            sources = self._config.mirrors(suite)
            progress(f"reading the index of {suite} at {without_credentials(sources[0].uri)}")
            releases, index = fetch_index(
                fetcher,
                sources,
                keyring(self._shipped_keyring),
                architecture,
                check_valid_until=self._config.check_valid_until,
            )
            packages = install_order(resolve(index), "base-files")
            progress(f"fetching {len(packages)} packages ({_megabytes(packages)} MB)")
            os.chmod(root, 0o755)
            skip = PathFilter(debian_files.SLIM_RULES if slim else ())
            with Root(root) as target:
                debian_files.lay_down(target, slim=slim, architecture=architecture)
                _unpack_all(fetcher, packages, target, skip)
                target.write("etc/apt/sources.list.d/debian.sources", _sources_list(releases).encode())
                depended = [package.name for package in packages if not is_asked_for(package)]
                target.write("var/lib/apt/extended_states", debian_files.extended_states(depended, architecture))
        finally:
            fetcher.close()
        made = Bootstrapped(
            codename=releases[0].codename,
            version=releases[0].version,
            date=max(release.date for release in releases),
            packages=tuple(map(repr, packages)),
        )
        progress("configuring the packages")
        _configure(packages, run, made.date)
        debian_files.finish(root, made.date)
        return made


def _megabytes(packages: Sequence[Package]) -> int:
    return round(sum(package.file.size_bytes for package in packages) / 1_000_000)


def _unpack_all(fetcher: Fetcher, packages: Sequence[Package], target: Root, skip: PathFilter) -> None:
    """Unpack in the order of `packages` whatever order they arrive in, so that shared directories come out the same."""
    arrived: dict[str, Deb] = {}

    def take_apart(package: Package, content: bytes) -> None:
        arrived[package.name] = read_deb(content, package.name)

    database = _Database()
    waiting = list(packages)
    for _package in fetcher.each(((package, package.file) for package in packages), take_apart):
        while waiting and waiting[0].name in arrived:
            package = waiting.pop(0)
            deb = arrived.pop(package.name)
            _check_identity(package, deb)
            database.add(deb, target.unpack(deb, skip))
    database.write(target)


def _check_identity(package: Package, deb: Deb) -> None:
    control = deb.control["control"].decode("utf-8", "replace")
    if f"Package: {package.name}\n" not in control or f"Version: {package.fields['Version']}\n" not in control:
        raise Corrupt(f"{package.name}: the package file is not what the index says")


class _Database:
    """/var/lib/dpkg as dpkg leaves it after unpacking: status, info/*, triggers/*."""

    def __init__(self) -> None:
        self._status: list[str] = []
        self._files: list[tuple[str, bytes, int]] = []
        self._file_triggers: list[str] = []
        self._named_triggers: dict[str, list[str]] = {}

    def add(self, deb: Deb, owned: Sequence[str]) -> None:
        control = deb.control["control"].decode().rstrip("\n") + "\n"
        fields = dict(line.split(": ", 1) for line in control.splitlines() if ": " in line and line[0] not in " \t")
        # Co-installable packages have the architecture in their file names and trigger lines. dpkg, pkg_infodb(5)
        name = fields["Package"]
        if fields.get("Multi-Arch") == "same":
            name = f"{name}:{fields['Architecture']}"
        stanza = _STATUS.sub(lambda match: f"{match.group()}\nStatus: install ok unpacked", control, count=1)
        if deb.conffiles:
            stanza += "Conffiles:\n" + "".join(f" {path} newconffile\n" for path in deb.conffiles)
        self._status.append(stanza)
        self._files.append((f"{name}.list", "".join(f"{path}\n" for path in owned).encode(), 0o644))
        for file, content in deb.control.items():
            if file != "control":
                self._files.append((f"{name}.{file}", content, 0o644 if file in _CONTROL_ONLY else 0o755))
        self._add_triggers(name, deb.control.get("triggers", b"").decode())

    def _add_triggers(self, name: str, text: str) -> None:
        for line in text.splitlines():
            directive, _, trigger = line.partition("#")[0].strip().partition(" ")
            if not directive.startswith("interest"):
                continue
            entry = f"{name}/noawait" if directive == "interest-noawait" else name
            if trigger.startswith("/"):
                self._file_triggers.append(f"{trigger} {entry}\n")
            else:
                self._named_triggers.setdefault(trigger, []).append(f"{entry}\n")

    def write(self, target: Root) -> None:
        base = "var/lib/dpkg"
        for directory in ("alternatives", "info", "parts", "triggers", "updates"):
            target.make_directories(f"{base}/{directory}")
        for name in ("available", "diversions", "statoverride", "triggers/Unincorp"):
            target.write(f"{base}/{name}", b"")
        target.write(f"{base}/info/format", b"1\n")
        target.write(f"{base}/status", "\n".join(sorted(self._status)).encode() + b"\n")
        for name, content, mode in self._files:
            target.write(f"{base}/info/{name}", content, mode=mode)
        target.write(f"{base}/triggers/File", "".join(sorted(self._file_triggers)).encode())
        for trigger, lines in self._named_triggers.items():
            target.write(f"{base}/triggers/{trigger}", "".join(sorted(lines)).encode())


def _configure(packages: Sequence[Package], run: Run, date: datetime) -> None:
    """Run what dpkg would have run: every preinst in order, then every postinst by `dpkg --configure`.

    base-passwd comes first in both: its preinst writes the first /etc/passwd, which the others look names up in.
    """
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "SOURCE_DATE_EPOCH": str(int(date.timestamp())),
    }
    names = [package.name for package in install_order(packages, "base-passwd")]
    status = run(["/bin/sh", "-ec", debian_files.CONFIGURE_SCRIPT, "configure", *names], environment)
    if status != 0:
        raise Corrupt(f"configuring the Debian packages failed with exit status {status}")


def _sources_list(releases: Sequence[Release]) -> str:
    """The mirrors that were used, in deb822 form, without credentials: an image must not carry the host's."""
    by_uri: dict[str, list[Release]] = {}
    for release in releases:
        by_uri.setdefault(without_credentials(release.source.uri), []).append(release)
    return "\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {' '.join(release.source.suite for release in group)}\n"
        f"Components: {' '.join(group[0].source.components)}\nSigned-By: {ARCHIVE_KEYRING}\n"
        for uri, group in by_uri.items()
    )
