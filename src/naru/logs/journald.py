"""The journald driver: a line of output is one journal entry, by the native protocol.

    MESSAGE, PRIORITY, SYSLOG_IDENTIFIER and SYSLOG_TIMESTAMP; CONTAINER_ID, _ID_FULL, _NAME, _TAG; IMAGE_NAME; labels
    and variables asked for, in capitals; CONTAINER_PARTIAL_MESSAGE=true for a piece that is not a line's last

`docker logs` reads the file that is kept in any case, not the journal. systemd, Native Journal Protocol
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping, Sequence

from naru.logs.connection import Address, Connection, Patience, connect
from naru.logs.delivery import Delivery
from naru.logs.record import Record

OPTIONS = frozenset(("env", "env-regex", "labels", "labels-regex", "tag"))
SOCKET = "/run/systemd/journal/socket"

_ERROR, _INFORMATIONAL = "3", "6"  # syslog(3)
_NOT_IN_NAMES = re.compile("[^A-Z0-9_]")


def is_there() -> bool:
    """Is there a journald on this host?"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(SOCKET) == 0


class Journald:
    """Sends records to the host's journal."""

    first_wait_s = 0.1
    most_attempts = float("inf")

    def __init__(self, delivery: Delivery, patience: Patience) -> None:
        self._patience = patience
        self._connection: Connection | None = None
        fields = {
            "CONTAINER_ID": delivery.container_id[:12],
            "CONTAINER_ID_FULL": delivery.container_id,
            "CONTAINER_NAME": delivery.container_name,
            "CONTAINER_TAG": delivery.tag,
            "IMAGE_NAME": delivery.image_name,
            "SYSLOG_IDENTIFIER": delivery.tag,
        }
        fields |= {field_name(name): value for name, value in delivery.attributes.items() if field_name(name)}
        self._fields = encode(fields)

    def send(self, records: Sequence[Record]) -> int:
        """Send the first of `records`; return 1. OSError: it was not sent."""
        if self._connection is None:
            self._connection = connect(Address("unixgram", SOCKET), self._patience)
        entry = self.entry(records[0])
        try:
            self._connection.send(entry)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._connection.send_file(entry)
        return 1

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def entry(self, record: Record) -> bytes:
        """Return `record` as one journal entry."""
        fields = {
            "MESSAGE": record.log.removesuffix("\n"),
            "PRIORITY": _ERROR if record.stream == "stderr" else _INFORMATIONAL,
            "SYSLOG_TIMESTAMP": record.time,
        }
        if record.is_partial:
            fields["CONTAINER_PARTIAL_MESSAGE"] = "true"
        return encode(fields) + self._fields


def field_name(name: str) -> str:
    """Return `name` as a field's: capitals, digits, underscores, the first of which would be journald's own."""
    return _NOT_IN_NAMES.sub("_", name.upper()).lstrip("_")


def encode(fields: Mapping[str, str]) -> bytes:
    """Return fields as the protocol has them: `NAME=value`, or with the length in front if there are newlines."""
    parts = []
    for name, value in fields.items():
        data = value.encode()
        if b"\n" in data:
            parts.append(b"%b\n%b%b\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
        else:
            parts.append(b"%b=%b\n" % (name.encode(), data))
    return b"".join(parts)
