"""Environment variables and labels from flags and files, as `run`, `exec`, `create` and `build` read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from naru.cli.flags import UsageError
from naru.errors import InvalidArgument


def variables(files: Sequence[str], given: Sequence[str], mine: Mapping[str, str]) -> list[str]:
    """Return `NAME=value`s, files first. A name alone takes the value from `mine`, and goes alone if that has none."""
    found = [line for path in files for line in _from_file(path, mine)]
    for one in given:
        name, has_value, _ = one.partition("=")
        if not name:
            raise UsageError(f'invalid argument "{one}" for "-e, --env" flag: invalid environment variable: {one}')
        found.append(one if has_value or name not in mine else f"{name}={mine[name]}")
    return found


def with_proxies(given: Sequence[str], proxies: Mapping[str, str]) -> list[str]:
    """Return `given` and those `proxies` of which it says nothing."""
    names = {one.partition("=")[0] for one in given}
    return [*given, *(f"{name}={value}" for name, value in proxies.items() if name not in names)]


def labels(files: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """Return labels, those of files first."""
    found: dict[str, str] = {}
    for one in [*(line for path in files for line in _lines(path)), *given]:
        name, _, value = one.partition("=")
        if not name.strip():
            raise UsageError(f'invalid argument "{one}" for "-l, --label" flag: invalid label format: "{one}"')
        found[name] = value
    return found


def pairs(given: Sequence[str]) -> dict[str, str]:
    """Return repeated `key=value` flags as a dictionary."""
    return {key: value for key, _, value in (one.partition("=") for one in given)}


def _from_file(path: str, mine: Mapping[str, str]) -> list[str]:
    found = []
    for line in _lines(path):
        name, has_value, _ = line.partition("=")
        if any(char.isspace() for char in name.rstrip("\n")):
            raise InvalidArgument(f"invalid env file ({path}): variable '{name}' contains whitespaces")
        if not name:
            raise InvalidArgument(f"invalid env file ({path}): no variable name on line '{line}'")
        if has_value:
            found.append(line)
        elif name in mine:
            found.append(f"{name}={mine[name]}")
    return found


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.rstrip("\r\n").lstrip() for line in file]
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"env file {path} contains invalid utf8 bytes") from error
    return [line for line in lines if line and not line.startswith("#")]
