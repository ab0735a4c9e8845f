"""The files of a Debian image that no package owns: what docker's debian images add, in our words, and take away.

Configuration of dpkg and apt that suits an image (no caches, no daemons started while building), the script that
configures the packages, and the last sweep that makes two builds from one index equal.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime

from naru.library.debian_package import Root

# debian:*-slim: copyright files stay, they must be distributed with the binaries. dpkg.cfg(5)
SLIM_RULES: tuple[tuple[str, str], ...] = (
    ("path-exclude", "/usr/share/doc/*"),
    ("path-include", "/usr/share/doc/*/copyright"),
    ("path-exclude", "/usr/share/info/*"),
    ("path-exclude", "/usr/share/linda/*"),
    ("path-exclude", "/usr/share/lintian/overrides/*"),
    ("path-exclude", "/usr/share/locale/*"),
    ("path-include", "/usr/share/locale/locale.alias"),
    ("path-exclude", "/usr/share/man/*"),
)

_POLICY_RC_D = """\
#!/bin/sh
# Installing a package in an image must not start its daemon. See policy-rc.d(8).
exit 101
"""

_APT_CONF = {
    "docker-autoremove-suggests": """\
# Only what something depends on or recommends is kept by autoremove.
Apt::AutoRemove::SuggestsImportant "false";
""",
    "docker-clean": """\
# Downloaded packages and apt's binary caches are of no use in a layer.
DPkg::Post-Invoke { "cd /var/cache/apt && rm -f archives/*.deb archives/partial/*.deb *.bin || true"; };
APT::Update::Post-Invoke { "cd /var/cache/apt && rm -f archives/*.deb archives/partial/*.deb *.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
""",
    "docker-gzip-indexes": """\
# Package lists stay compressed on disk.
Acquire::GzipIndexes "true";
""",
    "docker-no-languages": """\
# Translated package descriptions are not fetched.
Acquire::Languages "none";
""",
}

_UNSAFE_IO = """\
# An image that is lost in a power cut is built again: do not fsync every file.
force-unsafe-io
"""

# Runs in the container. $@ are the packages, base-passwd first.
# - A preinst may use debconf, whose own conffile is still .dpkg-new at that time, and which learns the name of the
#   package from tmp.ci, where dpkg unpacks control files.
# - base-passwd is configured before the others look up users; that its dependencies are only unpacked is enough.
# - passwd makes /etc/shadow by login.defs, the conffile of a package that might be configured later (bookworm).
# - The second --configure -a runs triggers that the first one left.
CONFIGURE_SCRIPT = """\
export DPKG_ROOT= DPKG_ADMINDIR=/var/lib/dpkg DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1
arch=$(dpkg --print-architecture)
for package in "$@"; do
  for script in "/var/lib/dpkg/info/$package.preinst" "/var/lib/dpkg/info/$package:$arch.preinst"; do
    [ -e "$script" ] || continue
    mkdir -p /var/lib/dpkg/tmp.ci
    printf 'Package: %s\\n' "$package" >/var/lib/dpkg/tmp.ci/control
    DEBCONF_SYSTEMRC=/etc/debconf.conf.dpkg-new DPKG_MAINTSCRIPT_PACKAGE=$package DPKG_MAINTSCRIPT_ARCH=$arch \\
      "$script" install
  done
done
rm -rf /var/lib/dpkg/tmp.ci
unset DPKG_ROOT DPKG_ADMINDIR DPKG_MAINTSCRIPT_NAME DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT
if [ -e /etc/login.defs.dpkg-new ]; then cp -p /etc/login.defs.dpkg-new /etc/login.defs; fi
dpkg --force-depends --force-confnew --configure base-passwd
dpkg --force-confnew --configure -a
dpkg --configure -a
"""

_EMPTIED = ("var/cache/apt", "var/lib/apt/lists", "var/log")
_REMOVED = (
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/hostname",
    "etc/hosts",
    "etc/passwd-",
    "etc/resolv.conf",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/catalog/database",
)


def lay_down(root: Root, *, slim: bool, architecture: str) -> None:
    """Write what must be there before the first package: the merged /usr, and configuration for dpkg and apt."""
    for name in ("bin", "sbin", "lib", *(["lib64"] if architecture == "amd64" else [])):
        root.make_directories(f"usr/{name}")
        root.symlink(f"usr/{name}", name)
    root.write("usr/sbin/policy-rc.d", _POLICY_RC_D.encode(), mode=0o755)
    root.write("etc/dpkg/dpkg.cfg.d/docker-apt-speedup", _UNSAFE_IO.encode())
    if slim:
        rules = "".join(f"{kind} {pattern}\n" for kind, pattern in SLIM_RULES)
        root.write("etc/dpkg/dpkg.cfg.d/docker", f"# Keep the image small; copyright files stay.\n{rules}".encode())
    for name, content in _APT_CONF.items():
        root.write(f"etc/apt/apt.conf.d/{name}", content.encode())
    root.write("var/lib/dpkg/arch", f"{architecture}\n".encode())


def extended_states(depended: Sequence[str], architecture: str) -> bytes:
    """Return apt's note of which packages are there only because others need them: `apt autoremove` may take those."""
    return "".join(
        f"Package: {name}\nArchitecture: {architecture}\nAuto-Installed: 1\n\n" for name in sorted(depended)
    ).encode()


def finish(root: str, date: datetime) -> None:
    """Take away what building left behind and set no time later than `date`."""
    for name in _REMOVED:
        path = os.path.join(root, name)
        if os.path.lexists(path):
            os.unlink(path)
    for name in _EMPTIED:
        for path in _files(os.path.join(root, name)):
            os.unlink(path)
    # systemd(1): an empty machine-id is filled at first boot; one made here would be shared by every container.
    if os.path.exists(os.path.join(root, "etc/machine-id")):
        os.truncate(os.path.join(root, "etc/machine-id"), 0)
    clamp_times(root, int(date.timestamp()))


def clamp_times(root: str, epoch: int) -> None:
    """Set the modification time of everything below and at `root` that is younger than `epoch` to it."""
    for directory, directories, files in os.walk(root, topdown=False):
        for name in [*directories, *files]:
            _clamp(os.path.join(directory, name), epoch)
    _clamp(root, epoch)


def _clamp(path: str, epoch: int) -> None:
    if os.lstat(path).st_mtime > epoch:
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _files(directory: str) -> Iterator[str]:
    """Every file below `directory`, which is inside the new root: symlinks are not followed."""
    for parent, _directories, files in os.walk(directory):
        for name in files:
            path = os.path.join(parent, name)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                yield path
