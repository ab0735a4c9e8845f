"""Netlink: frames, attributes, and a socket that sends a batch in one call and reads back every verdict.

Owns the framing that rtnetlink, nf_tables and conntrack share; the meaning of messages lives in those modules.
Integers are host order unless the subsystem says otherwise; attributes are padded to 4 bytes. netlink(7)
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_NLM_F_ACK_TLVS = 0x200  # on an NLMSG_ERROR: attributes follow
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_RECEIVE_BYTES = 1 << 18


class Message(NamedTuple):
    """One request: `label` names it in errors (`RTM_NEWLINK veth1a2b3c4`)."""

    type: int
    flags: int
    body: bytes
    label: str


class Reply(NamedTuple):
    """One message from the kernel: header type and everything behind the header."""

    type: int
    body: bytes


def attribute(kind: int, data: bytes) -> bytes:
    """Encode one attribute, padded."""
    length = 4 + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + b"\0" * (-length & 3)


def nested(kind: int, *parts: bytes) -> bytes:
    """Encode an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """Encode a NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """Encode one byte."""
    return attribute(kind, bytes((value,)))


def u32(kind: int, value: int) -> bytes:
    """Encode 32 bits in host order."""
    return attribute(kind, struct.pack("=I", value & 0xFFFFFFFF))


def be32(kind: int, value: int) -> bytes:
    """Encode 32 bits in network order, as netfilter wants them; negative values as two's complement."""
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def attributes(data: bytes) -> dict[int, bytes]:
    """Decode a run of attributes; of a repeated kind the last one wins."""
    return dict(attribute_list(data))


def attribute_list(data: bytes) -> list[tuple[int, bytes]]:
    """Decode a run of attributes in order, for lists whose elements share one kind."""
    found: list[tuple[int, bytes]] = []
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found.append((kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found


def string(data: bytes) -> str:
    """Decode a NUL-terminated string attribute."""
    return data.split(b"\0", 1)[0].decode(errors="replace")


class NetlinkSocket:
    """One kernel conversation, bound to the network namespace of the thread that opened it.

    Safe to share between threads: a conversation holds the socket's lock. An open socket keeps its network
    namespace alive, so one that was opened inside a container's namespace must be closed. netlink(7)
    """

    def __init__(self, protocol: int, *, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._lock = threading.Lock()
        self._sequence = 0
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.bind((0, groups))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor, for polling a socket that listens to multicast groups."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give up the socket, and with it its hold on the network namespace."""
        self._socket.close()

    def allow_large_batches(self, size_bytes: int) -> None:
        """Raise the send and receive limits for batches of up to `size_bytes`. Needs CAP_NET_ADMIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, 32, size_bytes)  # SO_SNDBUFFORCE
        self._socket.setsockopt(socket.SOL_SOCKET, 33, size_bytes)  # SO_RCVBUFFORCE

    def transact(self, messages: Sequence[Message]) -> None:
        """Send all `messages` in one call; the kernel runs them in order, each on its own.

        OSError of the first that failed, with the kernel's own explanation; the ones after it still ran.
        """
        if not messages:
            return
        with self._lock:
            first = self._sequence + 1
            self._socket.send(b"".join(self._frame(message, NLM_F_ACK) for message in messages))
            last = self._sequence
            failure: OSError | None = None
            waiting = len(messages)
            while waiting:
                for kind, flags, sequence, body in self._receive():
                    if kind != _NLMSG_ERROR or not first <= sequence <= last:
                        continue
                    waiting -= 1
                    failure = failure or _verdict(body, flags, messages[sequence - first].label)
        if failure:
            raise failure

    def transact_atomically(self, begin: Message, messages: Sequence[Message], end: Message) -> None:
        """Send `messages` between `begin` and `end` as one all-or-nothing batch (nfnetlink).

        Only the last message asks for an answer: a failed one answers anyway, and answers come in order, at the end.
        OSError of the first that failed; then none took effect.
        """
        if not messages:
            return
        with self._lock:
            frames = [self._frame(begin, 0)]
            first = self._sequence
            frames += [self._frame(message, 0) for message in messages[:-1]]
            frames += [self._frame(messages[-1], NLM_F_ACK)]
            last = self._sequence
            frames += [self._frame(end, 0)]
            self._socket.send(b"".join(frames))
            failure: OSError | None = None
            finished = False
            while not finished:
                for kind, flags, sequence, body in self._receive():
                    if kind != _NLMSG_ERROR or not first <= sequence <= last:
                        continue
                    label = messages[sequence - first - 1].label if sequence > first else begin.label
                    failure = failure or _verdict(body, flags, label)
                    # A refusal of the batch as a whole is reported on its first frame, and nothing may follow.
                    finished = finished or sequence in (first, last)
        if failure:
            raise failure

    def dump(self, message: Message) -> list[Reply]:
        """Return every object of the kind `message` asks for; restarted by the caller if it must be consistent."""
        with self._lock:
            self._socket.send(self._frame(message, NLM_F_DUMP))
            expected = self._sequence
            replies: list[Reply] = []
            while True:
                for kind, flags, sequence, body in self._receive():
                    if sequence != expected:
                        continue
                    if kind == _NLMSG_DONE:
                        return replies
                    if kind == _NLMSG_ERROR:
                        failure = _verdict(body, flags, message.label)
                        if failure:
                            raise failure
                        return replies
                    replies.append(Reply(kind, body))

    def query(self, message: Message) -> Reply:
        """Return the one object that `message` asks for. OSError (ENODEV, ENOENT…) if there is none."""
        with self._lock:
            self._socket.send(self._frame(message, 0))
            expected = self._sequence
            while True:
                for kind, flags, sequence, body in self._receive():
                    if sequence != expected:
                        continue
                    if kind == _NLMSG_ERROR:
                        failure = _verdict(body, flags, message.label)
                        if failure:
                            raise failure
                        continue
                    return Reply(kind, body)

    def events(self) -> list[Reply]:
        """Return the multicast messages of one datagram; blocks. OSError ENOBUFS: some were lost."""
        return [Reply(kind, body) for kind, _flags, _sequence, body in self._receive()]

    def _frame(self, message: Message, flags: int) -> bytes:
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        size = _HEADER.size + len(message.body)
        return (
            _HEADER.pack(size, message.type, message.flags | flags | NLM_F_REQUEST, self._sequence, 0)
            + message.body
            + b"\0" * (-size & 3)
        )

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_RECEIVE_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                return
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def _verdict(body: bytes, flags: int, label: str) -> OSError | None:
    number = -_ERROR.unpack_from(body)[0]
    if not number:
        return None
    reason = os.strerror(number)
    if flags & _NLM_F_ACK_TLVS:
        explanation = attributes(body[4 + _HEADER.size :]).get(_NLMSGERR_ATTR_MSG)
        if explanation:
            reason = f"{reason} ({string(explanation)})"
    return OSError(number, f"{label}: {reason}")
