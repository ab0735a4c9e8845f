"""Digests and the identifiers made of them."""

from __future__ import annotations

import pytest

from naru.errors import InvalidArgument
from naru.oci import digest
from naru.oci.digest import DiffID


def test_digest_of_bytes_is_sha256_in_hex() -> None:
    assert digest.of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "sha256:abc", "sha256:" + "A" * 64, "md5:" + "0" * 32, "sha256:" + "0" * 64 + "\n", "0" * 64],
)
def test_what_we_cannot_verify_is_not_a_digest(text: str) -> None:
    with pytest.raises(InvalidArgument):
        digest.validate(text)


def test_chain_ids_name_each_stack_from_the_bottom() -> None:
    first, second = DiffID("sha256:" + "1" * 64), DiffID("sha256:" + "2" * 64)
    chain = digest.chain_ids([first, second])
    assert chain == [first, digest.of(f"{first} {second}".encode())]


def test_short_form_has_twelve_digits_with_or_without_algorithm() -> None:
    assert digest.short("sha256:0123456789abcdef") == digest.short("0123456789abcdef") == "0123456789ab"
