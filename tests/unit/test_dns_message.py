"""Reading whatever a container may send to port 53, and the answers that are ours to give."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naru.network.dns_message import Malformed, read


def wire(name: str, kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


@given(st.binary(max_size=600))
def test_rubbish_is_malformed_or_a_query_that_can_be_answered(data: bytes) -> None:
    check(data)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_a_query_with_anything_changed_is_malformed_or_can_be_answered(position: int, change: bytes) -> None:
    query = wire("a-rather-long-name.example.org", "AAAA", use_edns=True, payload=1232)
    position %= len(query)
    check(query[:position] + change + query[position + len(change) :])


def check(data: bytes) -> None:
    try:
        query = read(data, is_stream=False)
    except Malformed as error:
        assert error.answer == b"" or dns.message.from_wire(error.answer).rcode() != dns.rcode.NOERROR
        return
    for answer in (query.failure(), query.addresses(["192.0.2.1", "2001:db8::1"])):
        assert query.is_answered_by(answer)


def test_a_name_is_read_without_its_dot_and_in_lower_case() -> None:
    query = read(wire("WEB.Front."), is_stream=False)
    assert (query.name, query.address) == ("web.front", "")


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_a_reverse_name_is_read_as_an_address(address: str) -> None:
    name = dns.reversename.from_address(address).to_text()
    assert read(wire(name, "PTR"), is_stream=False).address == address
    assert read(wire(name, "A"), is_stream=False).address == ""


def test_answers_keep_the_question_the_identifier_and_the_clients_wishes() -> None:
    data = wire("web", "A", use_edns=True, payload=1232)
    answer = dns.message.from_wire(read(data, is_stream=False).addresses(["192.0.2.1", "2001:db8::1"]))
    assert answer.id == dns.message.from_wire(data).id
    assert answer.question == dns.message.from_wire(data).question
    assert [record.to_text() for record in answer.answer[0]] == ["192.0.2.1"]
    assert answer.edns == 0
    assert answer.flags & dns.flags.RA


def test_the_most_that_fits_is_answered() -> None:
    many = [f"10.0.{number // 256}.{number % 256}" for number in range(1000)]
    cut = read(wire("web"), is_stream=False).addresses(many)
    assert 496 < len(cut) <= 512
    assert dns.message.from_wire(cut).flags & dns.flags.TC
    whole = read(wire("web"), is_stream=True).addresses(many)
    assert len(dns.message.from_wire(whole).answer[0]) == 1000
