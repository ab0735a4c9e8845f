"""DNS messages of the containers' resolver: a query read, and the answers that are ours to give. Pure.

On dnspython; imported with the first container that has a DNS server. RFC 1035; RFC 6891 for sizes
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

PORT = 53
HEADER_BYTES = 12
_HEADER = struct.Struct("!HHHHHH")
_QR = 0x8000
_OPCODE_AND_RD = 0x7900
_LEAST_UDP_BYTES = 512
_LARGEST_BYTES = 65535
_MOST_ADDRESSES = 2000  # of IPv6, in the largest message
# Docker says 600. Containers come and go: a client that remembers for ten minutes talks to nobody after an update.
_TTL_S = 5


class Malformed(Exception):
    """Not a query. `answer` is what to tell its sender; empty: nothing."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__("malformed query")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Query:
    """One question: `name` in lower case without the last dot, and `address` in place of it for a reverse look-up."""

    message: dns.message.Message
    name: str
    address: str
    kind: dns.rdatatype.RdataType
    limit_bytes: int

    def addresses(self, found: Sequence[str]) -> bytes:
        """Answer with the addresses of the kind that was asked for, in an order that differs each time.

        With none of that kind the answer is empty, which is not NXDOMAIN: the name exists. What does not fit is left
        out and the answer marked truncated, so that the client asks again by TCP.
        """
        fitting = [record for address in found if (record := _record(address)).rdtype == self.kind]
        random.shuffle(fitting)
        del fitting[_MOST_ADDRESSES:]
        wire = self._answer(fitting)
        if len(wire) <= self.limit_bytes:
            return wire
        one = len(self._answer(fitting[:1])) - len(self._answer([]))
        room = max(0, self.limit_bytes - len(self._answer([])))
        return self._answer(fitting[: room // one], flags=dns.flags.TC)

    def pointer(self, name: str) -> bytes:
        """Answer a reverse look-up with a name; what cannot be one in DNS, as names of networks may be, is none."""
        try:
            target = dns.name.from_text(name).to_wire() or b""
        except (dns.exception.DNSException, UnicodeError):
            return self._answer([])
        return self._answer([dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.PTR, target, 0, len(target))])

    def failure(self) -> bytes:
        """Answer that nobody could be asked (SERVFAIL)."""
        response = self._response()
        response.set_rcode(dns.rcode.SERVFAIL)
        return response.to_wire()

    def is_answered_by(self, data: bytes) -> bool:
        """Say whether a message from a server is the answer to this query."""
        if len(data) < HEADER_BYTES:
            return False
        number, flags, *_counts = _HEADER.unpack_from(data)
        return number == self.message.id and bool(flags & _QR)

    def _answer(self, records: Sequence[dns.rdata.Rdata], *, flags: int = 0) -> bytes:
        response = self._response()
        response.flags |= flags
        if records:
            response.answer.append(dns.rrset.from_rdata_list(self.message.question[0].name, _TTL_S, records))
        return response.to_wire(max_size=_LARGEST_BYTES)

    def _response(self) -> dns.message.Message:
        return dns.message.make_response(self.message, recursion_available=True, our_payload=_LARGEST_BYTES)


def read(data: bytes, *, is_stream: bool) -> Query:
    """Read a client's message. Malformed: it is none that anybody could answer."""
    if len(data) < HEADER_BYTES:
        raise Malformed
    number, flags, *_counts = _HEADER.unpack_from(data)
    if flags & _QR:  # an answer; to answer it might go on for ever
        raise Malformed

    def refusal(code: dns.rcode.Rcode) -> Malformed:
        return Malformed(_HEADER.pack(number, _QR | flags & _OPCODE_AND_RD | code, 0, 0, 0, 0))

    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, struct.error):
        raise refusal(dns.rcode.FORMERR) from None
    if message.opcode() != dns.opcode.QUERY:
        raise refusal(dns.rcode.NOTIMP)
    if len(message.question) != 1:
        raise refusal(dns.rcode.FORMERR)
    question = message.question[0]
    limit = max(message.payload if message.edns >= 0 else 0, _LEAST_UDP_BYTES)
    is_internet = question.rdclass == dns.rdataclass.IN
    name = question.name.to_text(omit_final_dot=True).lower() if is_internet else ""
    address = _reversed(question.name) if is_internet and question.rdtype == dns.rdatatype.PTR else ""
    return Query(message, name, address, question.rdtype, _LARGEST_BYTES if is_stream else limit)


def is_refusal(data: bytes) -> bool:
    """Say whether a server's answer means that another server should be asked."""
    return data[3] & 0xF in (dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED)


def _record(address: str) -> dns.rdata.Rdata:
    kind = dns.rdatatype.AAAA if ":" in address else dns.rdatatype.A
    packed = ip_address(address).packed
    return dns.rdata.from_wire(dns.rdataclass.IN, kind, packed, 0, len(packed))


def _reversed(name: dns.name.Name) -> str:
    try:
        return dns.reversename.to_address(name)
    except (dns.exception.DNSException, ValueError):
        return ""
