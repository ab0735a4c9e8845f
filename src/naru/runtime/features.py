"""What this runtime can do, as `naru-runtime features` prints it. OCI runtime-spec, features.md."""

from __future__ import annotations

from typing import Any

from naru import __version__
from naru.oci.runtime import OCI_VERSION
from naru.runtime.capability import NAMES
from naru.runtime.create import CLONE_FLAGS
from naru.runtime.mount_options import KNOWN_OPTIONS
from naru.runtime.seccomp import ACTIONS, ARCHITECTURES, FLAGS
from naru.runtime.seccomp_program import OPERATORS

_HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


def features() -> dict[str, Any]:
    """Return the features object."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": _HOOKS,
        "mountOptions": sorted(KNOWN_OPTIONS),
        "linux": {
            "namespaces": sorted(CLONE_FLAGS),
            "capabilities": list(NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(ACTIONS),
                "operators": sorted(OPERATORS),
                "archs": sorted(ARCHITECTURES),
                "knownFlags": sorted(FLAGS),
                "supportedFlags": sorted(FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
        },
        "annotations": {"dev.naru.version": __version__},
    }
