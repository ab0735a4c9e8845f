"""Capability sets on a real process: read back from /proc after the change of user."""

from __future__ import annotations

import os

import pytest

from naru.oci.runtime import Capabilities
from naru.runtime.capability import DEFAULT_CAPABILITIES, apply, apply_bounding, keep_across_setuid, mask

pytestmark = pytest.mark.root

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def after(capabilities: Capabilities, *, uid: int) -> tuple[dict[str, int], list[str]]:
    """Return the sets of a child that became `uid` with `capabilities`, and what it could not be granted."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            apply_bounding(capabilities.bounding)
            keep_across_setuid()
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            refused = apply(capabilities)
            with open("/proc/self/status") as status:
                lines = [line for line in status if line.startswith("Cap")]
            os.write(writer, "".join([*lines, " ".join(refused)]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        *lines, refused = pipe.read().split("\n")
    os.waitpid(pid, 0)
    return {key: int(value, 16) for key, value in (line.split(":") for line in lines)}, refused.split()


def test_root_gets_the_default_sets_and_nothing_more() -> None:
    default = list(DEFAULT_CAPABILITIES)

    sets, refused = after(Capabilities(bounding=default, effective=default, permitted=default), uid=0)

    wanted = mask(DEFAULT_CAPABILITIES)
    assert sets == {"CapInh": 0, "CapPrm": wanted, "CapEff": wanted, "CapBnd": wanted, "CapAmb": 0}
    assert refused == []


def test_a_user_keeps_ambient_capabilities() -> None:
    one = ["CAP_NET_BIND_SERVICE"]

    sets, _ = after(Capabilities(bounding=one, effective=one, permitted=one, inheritable=one, ambient=one), uid=1000)

    assert sets == dict.fromkeys(SETS, mask(one))


def test_an_unknown_capability_is_left_out_and_named() -> None:
    sets, refused = after(Capabilities(permitted=["CAP_KILL", "CAP_FLY"]), uid=0)

    assert sets["CapPrm"] == mask(["CAP_KILL"])
    assert refused == ["CAP_FLY"]
