"""The syslog driver: a line of output is one message, in the forms that Docker's `syslog-format` offers.

    (none)         <PRI>Jan  2 15:04:05 TAG[PID]: TEXT                               what is read from /dev/log
    rfc3164        <PRI>Jan  2 15:04:05 HOST TAG[PID]: TEXT                          RFC 3164, section 4.1
    rfc5424        <PRI>1 2026-01-02T15:04:05+01:00 HOST TAG PID TAG - TEXT          RFC 5424, section 6
    rfc5424micro   the same with microseconds

Each ends in a newline. In RFC 5424's forms over TLS its length comes first. RFC 5425, section 4.3
The time is the line's own, not that of its delivery.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import datetime

from naru.errors import InvalidArgument
from naru.logs.connection import Address, Connection, Patience, TlsFiles, connect, split_address, tls_context
from naru.logs.delivery import Delivery
from naru.logs.record import Record

OPTIONS = frozenset(
    "env env-regex labels labels-regex tag syslog-address syslog-facility syslog-format syslog-tls-ca-cert "
    "syslog-tls-cert syslog-tls-key syslog-tls-skip-verify".split()
)
_DEFAULT_PORT = 514
# Where a host's syslog listens, by datagrams as a rule; those that srslog, Docker's library, tries.
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_FACILITIES = {
    name: number
    for number, name in enumerate(
        "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp - - - - "
        "local0 local1 local2 local3 local4 local5 local6 local7".split()
    )
    if name != "-"
}
_DAEMON = _FACILITIES["daemon"]
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_ERROR, _INFORMATIONAL = 3, 6  # RFC 5424, table 2
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def check(options: dict[str, str]) -> None:
    """InvalidArgument: an option has a value that it cannot have, in moby's words."""
    address = parse_address(options.get("syslog-address", ""))
    parse_facility(options.get("syslog-facility", ""))
    if options.get("syslog-format", "") not in _FORMATS:
        raise InvalidArgument("Invalid syslog format")
    if address is not None and address.scheme == "tls":
        try:
            tls_context(_tls_files(options))
        except OSError as error:
            raise InvalidArgument(f"failed to initialize logging driver: {error}") from error


def _tls_files(options: dict[str, str]) -> TlsFiles:
    return TlsFiles(
        ca=options.get("syslog-tls-ca-cert", ""),
        certificate=options.get("syslog-tls-cert", ""),
        key=options.get("syslog-tls-key", ""),
        verifies="syslog-tls-skip-verify" not in options,
    )


def parse_address(text: str) -> Address | None:
    """Return where `syslog-address` leads; None for the host's own syslog."""
    if not text:
        return None
    try:
        parts = split_address(text)
    except ValueError as error:
        raise InvalidArgument(f"parse {text!r}: {error}") from None
    if parts.scheme in ("unix", "unixgram"):
        if not os.path.exists(parts.path):
            raise InvalidArgument(f"stat {parts.path}: no such file or directory")
        return Address(parts.scheme, parts.path)
    if parts.scheme not in ("udp", "tcp", "tcp+tls"):
        raise InvalidArgument(f"unsupported scheme: '{parts.scheme}'")
    return Address(
        "tls" if parts.scheme == "tcp+tls" else parts.scheme, parts.host or "localhost", parts.port or _DEFAULT_PORT
    )


def parse_facility(text: str) -> int:
    """Return the facility's number."""
    if not text:
        return _DAEMON
    if text in _FACILITIES:
        return _FACILITIES[text]
    if text.isdecimal() and int(text) <= 23:
        return int(text)
    raise InvalidArgument("invalid syslog facility")


class Syslog:
    """Sends records to one syslog server."""

    first_wait_s = 0.1
    most_attempts = float("inf")

    def __init__(self, delivery: Delivery, patience: Patience) -> None:
        options = delivery.options
        text = options.get("syslog-address", "")
        parts = split_address(text) if text.startswith("unix") else None
        # A socket that was there at create may come back later: what it is called is enough.
        self._address = Address(parts.scheme, parts.path) if parts else parse_address(text)
        self._tls = _tls_files(options)
        self._patience = patience
        self._format = options.get("syslog-format", "")
        self._facility = parse_facility(options.get("syslog-facility", "")) << 3
        self._tag = delivery.tag
        self._host = socket.gethostname()
        self._pid = os.getpid()
        is_tls = self._address is not None and self._address.scheme == "tls"
        self._counts = is_tls and self._format.startswith("rfc5424")
        self._connection: Connection | None = None

    def send(self, records: Sequence[Record]) -> int:
        """Send as many of `records` as go at once, and return how many. OSError: none."""
        if self._connection is None:
            self._connection = self._connect()
        taken = records if self._connection.is_stream else records[:1]
        self._connection.send(b"".join(map(self.message, taken)))
        return len(taken)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Connection:
        if self._address is not None:
            return connect(self._address, self._patience, self._tls)
        error = OSError("no syslog on this host: Unix syslog delivery error")
        for path in _LOCAL:
            for scheme in ("unixgram", "unix"):
                try:
                    return connect(Address(scheme, path), self._patience)
                except OSError as failed:
                    error = failed
        raise error

    def message(self, record: Record) -> bytes:
        """Return `record` as it travels."""
        priority = self._facility | (_ERROR if record.stream == "stderr" else _INFORMATIONAL)
        text = record.log.removesuffix("\n")
        when = datetime.fromisoformat(f"{record.time[:26]}+00:00").astimezone()
        match self._format:
            case "":
                message = f"<{priority}>{_stamp(when)} {self._tag}[{self._pid}]: {text}\n"
            case "rfc3164":
                message = f"<{priority}>{_stamp(when)} {self._host} {self._tag}[{self._pid}]: {text}\n"
            case form:
                precision = "microseconds" if form == "rfc5424micro" else "seconds"
                moment = when.isoformat(timespec=precision).replace("+00:00", "Z")
                message = f"<{priority}>1 {moment} {self._host} {self._tag} {self._pid} {self._tag} - {text}\n"
        data = message.encode()
        return b"%d %b" % (len(data), data) if self._counts else data


def _stamp(when: datetime) -> str:
    """Return the local time as RFC 3164 has it: English, and the day padded with a space."""
    return f"{_MONTHS[when.month - 1]} {when.day:2} {when:%H:%M:%S}"
