"""`--security-opt`: seccomp, AppArmor, what is hidden of the kernel, and SELinux labels where there are none.

A host without AppArmor or SELinux takes their options and does nothing, as Docker does there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from naru.errors import InvalidArgument
from naru.oci import runtime as oci
from naru.runtime.seccomp_default import default_profile
from naru.runtime.seccomp_profile import load_profile

_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_TRUTH = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


class SecurityOptions:
    """`--security-opt` taken apart. InvalidArgument: an option or value Docker does not know."""

    def __init__(self, options: Sequence[str]) -> None:
        self.no_new_privileges = False
        self.seccomp = ""
        self.apparmor = ""
        self.unmasked = False
        self.writable_cgroups = False
        for option in options:
            name, separator, value = option.partition("=")
            if not separator:
                name, separator, value = option.partition(":")
            match name:
                case "no-new-privileges":
                    self.no_new_privileges = _truth(option, value) if separator else True
                case "seccomp":
                    self.seccomp = value
                case "apparmor":
                    self.apparmor = value
                case "systempaths":
                    if value != "unconfined":
                        raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
                    self.unmasked = True
                case "writable-cgroups":
                    self.writable_cgroups = _truth(option, value)
                case "label":
                    pass  # SELinux labels have no meaning on a kernel without SELinux, as in Docker
                case _:
                    raise InvalidArgument(f'invalid --security-opt 2: "{option}"')


def _truth(option: str, value: str) -> bool:
    if value.lower() not in _TRUTH:
        raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return _TRUTH[value.lower()]


def apparmor_profile(security: SecurityOptions) -> str:
    """Return the AppArmor profile to run under, "" for none; on a host without AppArmor always none.

    InvalidArgument: the profile is not loaded.
    """
    profile = security.apparmor
    if profile in ("", "unconfined") or not _has_apparmor():
        return ""
    try:
        loaded = [line.rpartition(" (")[0] for line in _PROFILES.read_text().splitlines()]
    except OSError:
        return profile  # securityfs is not in view: the kernel will say
    if profile not in loaded:
        raise InvalidArgument(f"apparmor profile is not loaded: {profile}")
    return profile


@functools.cache
def _has_apparmor() -> bool:
    try:
        return _APPARMOR.read_text().strip() == "Y"
    except OSError:
        return False


def seccomp_of(security: SecurityOptions, privileged: bool, capabilities: Sequence[str]) -> oci.Seccomp | None:
    """Return the filter a container runs under; None for no filter. InvalidArgument: it is not a profile."""
    if security.seccomp == "unconfined" or (privileged and not security.seccomp):
        return None
    if security.seccomp and security.seccomp not in ("builtin", "default"):
        return load_profile(security.seccomp.encode(), capabilities)  # clients send the file's content
    return default_profile(capabilities)
