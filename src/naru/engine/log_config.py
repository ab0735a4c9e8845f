"""`--log-driver` and `--log-opt` to what the shim and its courier need. The default bounds the log: 5 files of 20 MB.

Docker keeps an unbounded file unless told otherwise, which fills disks; `max-size=-1` asks for that. The drivers that
deliver to a server keep a file too: it is what they deliver from, and what `docker logs` reads (in Docker: the cache).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from naru.api.host import LogConfig
from naru.engine.container import Container
from naru.engine.log_tag import log_tag
from naru.errors import InvalidArgument
from naru.logs import fluentd, journald, syslog
from naru.logs.delivery import DRIVERS, Delivery
from naru.logs.option_values import boolean, size_bytes
from naru.shim.protocol import LogConfig as TaskLogConfig

LOG_DRIVERS = ("fluentd", "journald", "json-file", "local", "syslog")

_DEFAULT_SIZE = 20 << 20
_DEFAULT_FILES = 5
_ATTRIBUTE_OPTIONS = ("labels", "labels-regex", "env", "env-regex", "tag")
_FILE_OPTIONS = ("max-size", "max-file", "compress")
_CACHE_OPTIONS = frozenset(("cache-disabled", *(f"cache-{name}" for name in _FILE_OPTIONS)))
_COMMON_OPTIONS = frozenset(("mode", "max-buffer-size")) | _CACHE_OPTIONS
_MODES = ("", "blocking", "non-blocking")
_LEAST_BUFFER = 1 << 20  # moby's, for mode=non-blocking


def with_defaults(config: LogConfig, default: LogConfig) -> LogConfig:
    """Return what a container asks for, completed from the daemon's settings.

    The settings' options are for their own driver; those of the cache for every one that has a cache.
    """
    driver = config.type or default.type
    options = dict(config.config or {})
    for name, value in (default.config or {}).items():
        if driver == default.type or (name in _CACHE_OPTIONS and driver != "none"):
            options.setdefault(name, value)
    return LogConfig(type=driver, config=options)


def check_log_config(config: LogConfig) -> None:
    """InvalidArgument: an unknown driver or option, or a value that it cannot have; in moby's words."""
    driver, options = config.type or "json-file", config.config or {}
    if driver == "none":
        return
    if driver not in LOG_DRIVERS:
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    mode = options.get("mode", "")
    if mode not in _MODES:
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            size_bytes(options["max-buffer-size"])
        except InvalidArgument as error:
            raise InvalidArgument(f"error parsing option max-buffer-size: {error}") from error
    if text := options.get("cache-disabled"):
        try:
            boolean(text)
        except InvalidArgument:
            raise InvalidArgument(f"invalid value for option cache-disabled: {text}") from None
    _check_driver(driver, {name: value for name, value in options.items() if name not in _COMMON_OPTIONS})
    _patterns(options)
    _files(driver, options)


def _check_driver(driver: str, options: dict[str, str]) -> None:
    match driver:
        case "local":
            _check_names(options, (*_FILE_OPTIONS, *_ATTRIBUTE_OPTIONS), f"log driver {driver}")
        case "json-file":
            _check_names(options, (*_FILE_OPTIONS, *_ATTRIBUTE_OPTIONS), f"{driver} log driver")
        case "syslog":
            _check_names(options, syslog.OPTIONS, "syslog log driver")
            syslog.check(options)
        case "journald":
            _check_names(options, journald.OPTIONS, "journald log driver")
            if not journald.is_there():
                raise InvalidArgument("failed to initialize logging driver: journald is not enabled on this host")
        case "fluentd":
            _check_names(options, fluentd.OPTIONS, "fluentd log driver")
            fluentd.parse(options)


def _check_names(options: Mapping[str, str], known: frozenset[str] | tuple[str, ...], where: str) -> None:
    for name in options:
        if name not in known:
            raise InvalidArgument(f"unknown log opt '{name}' for {where}")


def is_readable(config: LogConfig) -> bool:
    """Can `docker logs` show the output?"""
    if config.type in DRIVERS:
        return not boolean((config.config or {}).get("cache-disabled") or "false")
    return config.type != "none"


def task_log_config(container: Container, path: str) -> TaskLogConfig:
    """Return how the container's output is kept in `path`, and delivered. InvalidArgument: the tag is no template."""
    config = container.host_config.log_config
    driver, options = config.type or "json-file", config.config or {}
    if driver == "none":
        return TaskLogConfig(driver="none")
    size, files, compress = _files(driver, options)
    attributes = _attributes(container, options)
    if driver not in DRIVERS:
        if options.get("tag"):
            attributes["tag"] = log_tag(container, options["tag"])
        return TaskLogConfig(
            driver=driver, path=path, max_size_bytes=size, max_files=files, compress=compress, attributes=attributes
        )
    delivery = Delivery(
        driver=driver,
        path=path,
        options=options,
        container_id=container.id,
        container_name=container.name,
        image_name=container.config.image,
        tag=log_tag(container, options.get("tag", "")),
        attributes=attributes,
        is_blocking=options.get("mode") == "blocking",
    )
    return TaskLogConfig(
        driver=driver, path=path, max_size_bytes=size, max_files=files, compress=compress, delivery=delivery
    )


def _files(driver: str, options: Mapping[str, str]) -> tuple[int | None, int, bool]:
    """Return the size of a file of the log (None: unlimited), how many there are, and whether old ones are compressed.

    InvalidArgument: they do not go together.
    """
    prefix = "cache-" if driver in DRIVERS else ""
    limit, count = options.get(f"{prefix}max-size", ""), options.get(f"{prefix}max-file", "")
    if count and (not count.isdigit() or int(count) < 1):
        raise InvalidArgument(f"{prefix}max-file cannot be less than 1")
    files = int(count) if count else (1 if limit and driver == "json-file" else _DEFAULT_FILES)
    asked = options.get(f"{prefix}compress")
    compress = boolean(asked) if asked else driver != "json-file" and files > 1
    if compress and files < 2:
        if driver == "json-file":
            raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
        raise InvalidArgument("compression cannot be enabled when max file count is 1")
    size = None if limit == "-1" else size_bytes(limit) if limit else _DEFAULT_SIZE
    if size is not None and driver in DRIVERS and options.get("mode") == "non-blocking":
        # The file is the buffer: it is at least as large as the one that is asked for.
        buffer = max(size_bytes(options.get("max-buffer-size") or "0"), _LEAST_BUFFER)
        size = max(size, buffer // max(files - 1, 1))
    return size, files, compress


def _attributes(container: Container, options: Mapping[str, str]) -> dict[str, str]:
    """Return the labels and variables that `labels`, `env` and their `-regex` forms ask for: Docker's `attrs`."""
    patterns = _patterns(options)
    variables = dict(entry.split("=", 1) for entry in container.config.env or [] if "=" in entry)
    found: dict[str, str] = {}
    for option, values in (("labels", container.config.labels or {}), ("env", variables)):
        named = set(filter(None, options.get(option, "").split(",")))
        pattern = patterns.get(f"{option}-regex")
        found |= {name: value for name, value in values.items() if name in named or (pattern and pattern.search(name))}
    return found


def _patterns(options: Mapping[str, str]) -> dict[str, re.Pattern[str]]:
    try:
        return {name: re.compile(options[name]) for name in ("labels-regex", "env-regex") if options.get(name)}
    except re.error as error:
        raise InvalidArgument(f"invalid regular expression in a log option: {error}") from error
