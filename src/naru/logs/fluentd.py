"""The fluentd driver: records in the forward protocol, several in one message (Forward mode).

    [tag, [[time, {container_id, container_name, source, log, …}], …], {"chunk": id}]       MessagePack
    {"ack": id}                                                      the answer, if `fluentd-request-ack` asks for one

The encoder is msgspec's (docs/adr/0014-log-delivery.md). Fluentd, Forward Protocol Specification v1
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence

import msgspec

from naru.api.moment import nanoseconds
from naru.errors import InvalidArgument
from naru.logs.connection import Address, Connection, Patience, connect, split_address
from naru.logs.delivery import Delivery
from naru.logs.option_values import boolean, count, duration_s, size_bytes
from naru.logs.record import Record

OPTIONS = frozenset(
    "env env-regex labels labels-regex tag fluentd-address fluentd-async fluentd-async-connect "
    "fluentd-async-reconnect-interval fluentd-buffer-limit fluentd-max-retries fluentd-request-ack fluentd-retry-wait "
    "fluentd-sub-second-precision fluentd-write-timeout".split()
)
_DEFAULT_HOST, _DEFAULT_PORT = "127.0.0.1", 24224
_EVENT_TIME = 0  # the extension type: seconds and nanoseconds, 32 bits each
_CHUNK_ID_BYTES = 16
# As long as fluentd itself waits for another: ack_response_timeout of its out_forward.
_ACK_TIMEOUT_S = 190.0

_UNUSED: dict[str, Callable[[str], object]] = {
    "fluentd-async": boolean,
    "fluentd-async-connect": boolean,
    "fluentd-async-reconnect-interval": duration_s,
    "fluentd-buffer-limit": size_bytes,
    "fluentd-write-timeout": duration_s,
}

_encoder = msgspec.msgpack.Encoder()


class _Ack(msgspec.Struct):
    ack: str


_ack_decoder = msgspec.msgpack.Decoder(_Ack)


def parse_address(text: str) -> Address:
    """Return where `fluentd-address` leads. InvalidArgument: nowhere, in moby's words."""
    try:
        parts = split_address(text if "://" in text else f"tcp://{text}")
        if parts.scheme == "unix":
            if not parts.path.strip("/"):
                raise ValueError("path is empty")
            return Address("unix", parts.path)
        if parts.scheme not in ("tcp", "tls"):
            raise ValueError(f"unsupported scheme: '{parts.scheme}'")
        if parts.path:
            raise ValueError("should not contain a path element")
        return Address(parts.scheme, parts.host or _DEFAULT_HOST, parts.port or _DEFAULT_PORT)
    except ValueError as error:
        raise InvalidArgument(f"invalid fluentd-address ({text}): {error}") from None


class Options(msgspec.Struct, frozen=True):
    """What the options say. The others are about a buffer in memory, which we have in a file."""

    address: Address
    wants_ack: bool
    has_nanoseconds: bool
    retry_wait_s: float
    most_attempts: float


def parse(options: dict[str, str]) -> Options:
    """Return `options` understood. InvalidArgument: one has a value that it cannot have."""
    if options.get("fluentd-async") and options.get("fluentd-async-connect"):
        raise InvalidArgument("conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'")
    for name, read in _UNUSED.items():
        if options.get(name):
            read(options[name])
    retries = options.get("fluentd-max-retries")
    return Options(
        address=parse_address(options.get("fluentd-address", "")),
        wants_ack=boolean(options.get("fluentd-request-ack") or "false"),
        has_nanoseconds=boolean(options.get("fluentd-sub-second-precision") or "false"),
        retry_wait_s=duration_s(options.get("fluentd-retry-wait") or "1s"),
        most_attempts=1 + count(retries) if retries else float("inf"),
    )


class Fluentd:
    """Sends records to one server that speaks the forward protocol."""

    def __init__(self, delivery: Delivery, patience: Patience) -> None:
        options = parse(delivery.options)
        self._address = options.address
        self._patience = patience
        self._tag = delivery.tag
        self._wants_ack = options.wants_ack
        self._has_nanoseconds = options.has_nanoseconds
        self.first_wait_s = options.retry_wait_s
        self.most_attempts = options.most_attempts
        self._id = delivery.container_id
        self._name = f"/{delivery.container_name}"
        self._attributes = delivery.attributes
        self._connection: Connection | None = None
        # Pieces of one line share an id and are counted; by stream.
        self._pieces: dict[str, tuple[str, int]] = {}

    def send(self, records: Sequence[Record]) -> int:
        """Send `records` in one message, wait for its acknowledgement if one is wanted, and return how many."""
        if self._connection is None:
            self._connection = connect(self._address, self._patience)
        pieces = dict(self._pieces)
        entries = [(self._time(record), self._entry(record, pieces)) for record in records]
        if self._wants_ack:
            chunk = base64.b64encode(os.urandom(_CHUNK_ID_BYTES)).decode()
            self._connection.send(_encoder.encode((self._tag, entries, {"chunk": chunk})))
            self._await_ack(self._connection, chunk)
        else:
            self._connection.send(_encoder.encode((self._tag, entries)))
        self._pieces = pieces
        return len(records)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _await_ack(self, connection: Connection, chunk: str) -> None:
        data = b""
        while True:
            data += connection.receive(4096, _ACK_TIMEOUT_S)
            try:
                answer = _ack_decoder.decode(data)
            except msgspec.ValidationError as error:
                raise OSError(f"the server's answer is no acknowledgement: {error}") from error
            except msgspec.DecodeError:
                continue  # not all of it yet
            if answer.ack != chunk:
                raise OSError("the server acknowledged something else")
            return

    def _time(self, record: Record) -> int | msgspec.msgpack.Ext:
        seconds, rest = divmod(nanoseconds(record.time), 1_000_000_000)
        if not self._has_nanoseconds:
            return seconds
        return msgspec.msgpack.Ext(_EVENT_TIME, seconds.to_bytes(4, "big") + rest.to_bytes(4, "big"))

    def _entry(self, record: Record, pieces: dict[str, tuple[str, int]]) -> dict[str, str]:
        entry = {
            "container_id": self._id,
            "container_name": self._name,
            "source": record.stream,
            "log": record.log.removesuffix("\n"),
            **self._attributes,
        }
        started = pieces.pop(record.stream, None)
        if record.is_partial or started:
            piece_id, ordinal = started or (os.urandom(32).hex(), 0)
            ordinal += 1
            entry |= {
                "partial_message": "true",
                "partial_id": piece_id,
                "partial_ordinal": str(ordinal),
                "partial_last": str(not record.is_partial).lower(),
            }
            if record.is_partial:
                pieces[record.stream] = (piece_id, ordinal)
        return entry
