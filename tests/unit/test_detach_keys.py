"""Detach keys are found wherever they arrive, and nothing else is lost."""

from __future__ import annotations

import pytest

from naru.shim.detach import DetachKeys

KEYS = b"\x10\x11"


def test_keys_that_arrive_together_detach_and_what_follows_is_dropped() -> None:
    assert DetachKeys(KEYS).feed(b"ab\x10\x11cd") == (b"ab", True)


def test_keys_that_arrive_one_by_one_are_held_back_and_detach() -> None:
    keys = DetachKeys(KEYS)
    assert [keys.feed(b"a\x10"), keys.feed(b"\x11")] == [(b"a", False), (b"", True)]


@pytest.mark.parametrize("pieces", [[b"\x10", b"x"], [b"\x10x"], [b"\x11\x10", b"y"]])
def test_an_incomplete_match_is_passed_on_once_it_fails(pieces: list[bytes]) -> None:
    keys = DetachKeys(KEYS)
    assert b"".join(keys.feed(piece)[0] for piece in pieces) == b"".join(pieces)


def test_a_repeated_first_key_still_leads_to_a_match() -> None:
    keys = DetachKeys(KEYS)
    assert [keys.feed(b"\x10"), keys.feed(b"\x10"), keys.feed(b"\x11")] == [(b"", False), (b"\x10", False), (b"", True)]


def test_without_keys_everything_passes() -> None:
    assert DetachKeys(b"").feed(KEYS) == (KEYS, False)
