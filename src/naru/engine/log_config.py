"""`--log-driver` and `--log-opt` to what the shim needs. The default bounds the log: 5 files of 20 MB.

Docker keeps an unbounded file unless told otherwise, which fills disks; `max-size=-1` asks for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from naru.api.host import LogConfig
from naru.engine.container import Container
from naru.errors import InvalidArgument
from naru.shim.protocol import LogConfig as TaskLogConfig

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)b?\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_OPTIONS = {
    "max-size",
    "max-file",
    "compress",
    "mode",
    "max-buffer-size",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
}
_TAG_FIELD = re.compile(r"\{\{ *\.(\w+) *\}\}")
_DEFAULT_SIZE = 20 << 20
_DEFAULT_FILES = 5


def size_bytes(text: str) -> int:
    """Return `10m` as bytes. InvalidArgument: not a size."""
    found = _SIZE.match(text.strip())
    if found is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def task_log_config(config: LogConfig, path: str, attributes: dict[str, str] | None = None) -> TaskLogConfig:
    """Return how the shim keeps the log. InvalidArgument: an unknown driver or option, or a bad value."""
    driver, options = config.type or "json-file", config.config or {}
    if driver == "none":
        return TaskLogConfig(driver="none")
    if driver not in ("json-file", "local"):
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    for name in options:
        if name not in _OPTIONS:
            raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver")
    _patterns(options)
    limit = options.get("max-size", "")
    unbounded = limit == "-1"
    files = options.get("max-file", "")
    if files and (not files.isdigit() or int(files) < 1):
        raise InvalidArgument("max-file cannot be less than 1")
    return TaskLogConfig(
        driver=driver,
        path=path,
        max_size_bytes=None if unbounded else size_bytes(limit) if limit else _DEFAULT_SIZE,
        max_files=int(files) if files else (1 if limit and driver == "json-file" else _DEFAULT_FILES),
        compress=options.get("compress", "true" if driver == "local" else "false") == "true",
        attributes=attributes or {},
    )


def log_attributes(container: Container) -> dict[str, str]:
    """Return what `labels`, `env`, their `-regex` forms and `tag` write into every line as Docker's `attrs`."""
    options = container.host_config.log_config.config or {}
    patterns = _patterns(options)
    variables = dict(entry.split("=", 1) for entry in container.config.env or [] if "=" in entry)
    found: dict[str, str] = {}
    for option, values in (("labels", container.config.labels or {}), ("env", variables)):
        named = set(filter(None, options.get(option, "").split(",")))
        pattern = patterns.get(f"{option}-regex")
        found |= {name: value for name, value in values.items() if name in named or (pattern and pattern.search(name))}
    if options.get("tag"):
        found["tag"] = _TAG_FIELD.sub(lambda field: _tag_values(container).get(field[1], field[0]), options["tag"])
    return found


def _patterns(options: Mapping[str, str]) -> dict[str, re.Pattern[str]]:
    try:
        return {name: re.compile(options[name]) for name in ("labels-regex", "env-regex") if options.get(name)}
    except re.error as error:
        raise InvalidArgument(f"invalid regular expression in a log option: {error}") from error


def _tag_values(container: Container) -> dict[str, str]:
    return {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "ImageID": container.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": container.image_id,
        "ImageName": container.config.image,
        "DaemonName": "naru",
    }
