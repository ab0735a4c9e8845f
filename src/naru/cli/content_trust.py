"""Content trust: the signatures of images that Docker's notary once kept. Nobody does any more, so we say so."""

from __future__ import annotations

from naru.cli.command import Call
from naru.cli.flags import BOOL, Flag
from naru.errors import Unsupported

CONTENT_TRUST = Flag("disable-content-trust", "", BOOL, "Do without signatures; they cannot be had", default=True)


def check_trust(call: Call) -> None:
    """Raise Unsupported if signatures are asked for, by flag or DOCKER_CONTENT_TRUST."""
    if call.flags.given("disable-content-trust"):
        is_asked = not call.flags.on("disable-content-trust")
    else:
        is_asked = call.environment.get("DOCKER_CONTENT_TRUST", "") in ("1", "t", "T", "true", "TRUE", "True")
    if is_asked:
        raise Unsupported("content trust is not supported: images are not checked for a notary's signatures")
