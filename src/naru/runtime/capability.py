"""Capability names: which ones a container gets, and putting them on the calling process before execve.

Owns the names, Docker's default set and the rules of `--cap-add` and `--cap-drop`. A name that this kernel does not
know, or that this process cannot grant because it lacks it itself, is left out rather than refused: the
specification asks a runtime not to fail on it. capabilities(7); OCI runtime-spec, config.md, Linux Process.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable

from naru.errors import InvalidArgument
from naru.kernel import capability as kernel
from naru.oci.runtime import Capabilities

# In the order of linux/capability.h: a name's place is its number.
NAMES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL"),
    *("CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE"),
    *("CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE"),
    *("CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT"),
    *("CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE"),
    *("CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG"),
    *("CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF"),
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}

# What `docker run` gives without --cap-add: moby's default spec.
DEFAULT_CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
    "CAP_AUDIT_WRITE",
)
_ALL = "ALL"


def available() -> list[str]:
    """Return the names this process may grant: known to us and to the kernel, and in our own bounding set."""
    known = NAMES[: kernel.last_cap() + 1]
    return [name for number, name in enumerate(known) if kernel.bounding_has(number)]


def normalize(name: str) -> str:
    """Return `name` as CAP_… in upper case; "ALL" stays. InvalidArgument: no such capability."""
    upper = name.upper()
    if upper == _ALL:
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in NUMBERS:
        raise InvalidArgument(f'unknown capability: "{full}"')
    return full


def resolve(add: Iterable[str] = (), drop: Iterable[str] = (), *, privileged: bool = False) -> list[str]:
    """Return the names a container gets, given the lists of `--cap-add` and `--cap-drop`.

    ALL in `add` means everything but what is dropped; ALL in `drop` means nothing but what is added; otherwise
    drops come off the default set before adds go on. A privileged container gets everything, whatever the lists say.
    InvalidArgument: an unknown name. Engine API, HostConfig, CapAdd and CapDrop.
    """
    added = _normalized("CapAdd", add)
    dropped = _normalized("CapDrop", drop)
    if privileged:
        return available()
    if _ALL in added:
        return [name for name in available() if name not in dropped]
    if _ALL in dropped:
        return list(added)
    kept = [name for name in DEFAULT_CAPABILITIES if name not in dropped]
    return kept + [name for name in added if name not in kept]


def _normalized(field: str, names: Iterable[str]) -> dict[str, None]:
    try:
        return dict.fromkeys(normalize(name) for name in names)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid {field}: {error}") from None


@functools.lru_cache(maxsize=256)
def _mask(names: tuple[str, ...]) -> int:
    return sum(1 << NUMBERS[name] for name in set(names) if name in NUMBERS)


def mask(names: Collection[str]) -> int:
    """Return `names` as the kernel's bit mask, leaving out names we do not know."""
    return _mask(tuple(names))


def names(bits: int) -> list[str]:
    """Return the names in the kernel's bit mask `bits`."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def apply_bounding(bounding: Collection[str]) -> None:
    """Drop every capability not named from the bounding set of the calling process.

    Comes before the change of user and before `apply`: both may take CAP_SETPCAP away.
    """
    wanted = mask(bounding)
    for number in range(kernel.last_cap() + 1):
        if not wanted >> number & 1 and kernel.bounding_has(number):
            kernel.bounding_drop(number)


def keep_across_setuid() -> None:
    """Make the permitted set survive the coming setresuid, so that `apply` can still choose from it."""
    kernel.keep_permitted(True)


def apply(capabilities: Capabilities) -> list[str]:
    """Set the effective, permitted, inheritable and ambient sets; return the names that could not be granted.

    After the change of user (with `keep_across_setuid` before it) and after `apply_bounding`. What this process does
    not hold is left out of every set, so that a runtime that is itself confined can run ordinary containers.
    """
    held = kernel.capget().permitted
    permitted = mask(capabilities.permitted) & held
    effective = mask(capabilities.effective) & permitted
    inheritable = mask(capabilities.inheritable) & held
    ambient = mask(capabilities.ambient)
    kernel.capset(kernel.Sets(effective, permitted, inheritable))
    kernel.ambient_clear()
    raisable = ambient & permitted & inheritable
    for number in range(raisable.bit_length()):
        if raisable >> number & 1:
            kernel.ambient_raise(number)
    asked = {*capabilities.permitted, *capabilities.effective, *capabilities.inheritable, *capabilities.ambient}
    return sorted(name for name in asked if name not in NUMBERS or not held >> NUMBERS[name] & 1)
