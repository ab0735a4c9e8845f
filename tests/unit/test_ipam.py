"""IPAM: which subnet a network gets, and which address an endpoint gets."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naru.errors import Conflict, Forbidden, InvalidArgument, Unavailable
from naru.network.ipam import Pool, check_subnet, choose_ipv6_subnet, choose_subnet, mac_for
from naru.network.record import Subnet


def test_the_gateway_is_first_and_endpoints_follow() -> None:
    pool = Pool(check_subnet(Subnet("172.17.0.0/16"), []))

    assert [str(pool.allocate()) for _ in range(3)] == ["172.17.0.2", "172.17.0.3", "172.17.0.4"]


def test_a_released_address_is_the_next_to_be_handed_out() -> None:
    pool = Pool(check_subnet(Subnet("172.17.0.0/16"), []))
    first, _second = pool.allocate(), pool.allocate()

    pool.release(str(first))

    assert pool.allocate() == first


def test_a_requested_address_is_skipped_by_allocation_and_cannot_be_had_twice() -> None:
    pool = Pool(check_subnet(Subnet("10.0.0.0/24"), []))
    pool.take("10.0.0.2")

    assert str(pool.allocate()) == "10.0.0.3"
    with pytest.raises(Conflict, match="Address already in use"):
        pool.take("10.0.0.3")
    with pytest.raises(InvalidArgument, match=r"no configured subnet contains IP address 10\.0\.1\.1"):
        pool.take("10.0.1.1")


def test_allocation_stays_in_the_range_and_ends_with_it() -> None:
    pool = Pool(check_subnet(Subnet("10.0.0.0/24", ip_range="10.0.0.128/30", gateway="10.0.0.1"), []))

    assert [str(pool.allocate()) for _ in range(4)] == [f"10.0.0.{last}" for last in (128, 129, 130, 131)]
    with pytest.raises(Unavailable, match="no available IPv4 addresses"):
        pool.allocate()
    assert str(pool.take("10.0.0.5")) == "10.0.0.5"


def test_neither_network_nor_broadcast_address_is_handed_out() -> None:
    pool = Pool(check_subnet(Subnet("10.0.0.0/30"), []))

    assert str(pool.allocate()) == "10.0.0.2"
    with pytest.raises(Unavailable):
        pool.allocate()


@given(st.lists(st.one_of(st.none(), st.integers(2, 14)), max_size=60))
def test_no_address_is_ever_held_twice(steps: list[int | None]) -> None:
    pool = Pool(check_subnet(Subnet("10.0.0.0/28"), []))
    held: set[str] = set()
    for step in steps:
        address = f"10.0.0.{step}"
        if step is None and len(held) < 13:
            got = str(pool.allocate())
            assert got == min((f"10.0.0.{n}" for n in range(2, 15) if f"10.0.0.{n}" not in held), key=ip_address)
            held.add(got)
        elif address in held:
            pool.release(address)
            held.discard(address)
        elif step is not None:
            pool.take(address)
            held.add(address)


def test_the_first_predefined_subnet_that_overlaps_nothing_is_chosen() -> None:
    assert choose_subnet([]) == IPv4Network("172.17.0.0/16")
    assert choose_subnet([ip_network("172.17.0.0/24"), ip_network("172.18.4.0/30")]) == IPv4Network("172.19.0.0/16")
    assert choose_subnet([ip_network("172.16.0.0/12")]) == IPv4Network("192.168.0.0/20")
    with pytest.raises(Unavailable, match="all predefined address pools have been fully subnetted"):
        choose_subnet([ip_network("172.16.0.0/12"), ip_network("192.168.0.0/16")])


def test_a_subnet_of_another_network_is_refused_in_dockers_words() -> None:
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        check_subnet(Subnet("10.0.0.0/24"), [ip_network("10.0.0.0/16")])


@pytest.mark.parametrize(
    "subnet",
    [
        Subnet("10.0.0.0/33"),
        Subnet("10.0.0.0/31"),
        Subnet("10.0.0.0/24", gateway="10.0.1.1"),
        Subnet("10.0.0.0/24", ip_range="10.0.1.0/25"),
        Subnet("10.0.0.0/24", ip_range="fd00::/80"),
        Subnet("10.0.0.0/24", reserved={"router": "10.9.0.1"}),
    ],
)
def test_an_impossible_subnet_is_refused(subnet: Subnet) -> None:
    with pytest.raises(InvalidArgument, match="invalid"):
        check_subnet(subnet, [])


def test_a_mac_follows_from_the_address() -> None:
    assert mac_for(ip_address("172.17.0.2")) == "02:42:ac:11:00:02"
    assert mac_for(IPv6Address("fd00::1:2")) == "02:42:00:01:00:02"


def test_an_ipv6_subnet_is_unique_and_local() -> None:
    assert choose_ipv6_subnet("0123456789" + "f" * 54) == ip_network("fd01:2345:6789::/64")
