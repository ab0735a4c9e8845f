"""Names, masks and the rules of --cap-add and --cap-drop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from naru.errors import InvalidArgument
from naru.runtime import capability
from naru.runtime.capability import DEFAULT_CAPABILITIES, available, mask, names, normalize, resolve


def test_the_default_set_is_dockers() -> None:
    assert mask(DEFAULT_CAPABILITIES) == 0x00000000A80425FB


def test_names_and_numbers_are_the_kernels() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("needs the kernel's headers (linux-libc-dev)")

    defined = re.findall(r"^#define (CAP_\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)

    assert {name: int(number) for name, number in defined}.items() <= capability.NUMBERS.items()


def test_a_mask_reads_back_as_its_names() -> None:
    assert names(mask(["CAP_BPF", "CAP_CHOWN", "CAP_NO_SUCH"])) == ["CAP_CHOWN", "CAP_BPF"]


@pytest.mark.parametrize("written", ["net_admin", "NET_ADMIN", "cap_net_admin", "CAP_NET_ADMIN"])
def test_a_name_may_be_written_in_any_case_with_or_without_prefix(written: str) -> None:
    assert normalize(written) == "CAP_NET_ADMIN"


def test_adding_and_dropping_change_the_default_set() -> None:
    result = resolve(add=["NET_ADMIN", "CHOWN"], drop=["MKNOD"])

    assert set(result) == {*DEFAULT_CAPABILITIES, "CAP_NET_ADMIN"} - {"CAP_MKNOD"}
    assert len(result) == len(set(result))


def test_dropping_all_leaves_what_is_added() -> None:
    assert resolve(add=["kill"], drop=["all"]) == ["CAP_KILL"]


def test_adding_all_takes_everything_but_what_is_dropped() -> None:
    assert set(resolve(add=["ALL"], drop=["SYS_TIME"])) == set(available()) - {"CAP_SYS_TIME"}


def test_a_privileged_container_gets_everything_this_process_can_give() -> None:
    assert resolve(drop=["ALL"], privileged=True) == available()


def test_an_unknown_name_is_refused_in_dockers_words() -> None:
    with pytest.raises(InvalidArgument, match=r'^invalid CapAdd: unknown capability: "CAP_FLY"$'):
        resolve(add=["fly"])
