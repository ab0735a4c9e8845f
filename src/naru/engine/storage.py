"""`--storage-opt size=`: a container's own layer, limited by a project quota where the file system has them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from naru.errors import InvalidArgument

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s?([kmgtp]?)i?b?\Z", re.IGNORECASE)
_UNITS = {unit: 1 << 10 * power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}


def check_storage_options(options: Mapping[str, str]) -> int:
    """Return the size asked for in bytes, 0 for none. InvalidArgument: another option, or no size."""
    size = 0
    for key, value in options.items():
        if key.lower() != "size":
            raise InvalidArgument(f"Unknown option {key}")
        found = _SIZE.match(value)
        if found is None or not float(found[1]):
            raise InvalidArgument(f"invalid size: '{value}'")
        size = int(float(found[1]) * _UNITS[found[2].lower()])
    return size
