"""The same command lines on Debian's dockerd and on narud come to the same, but for what the scenarios list."""

from __future__ import annotations

import warnings

import pytest
from outcome import differences, is_listed
from scenario import Scenario, read_scenarios
from sides import Sides

pytestmark = [pytest.mark.peer, pytest.mark.root]


@pytest.mark.parametrize("scenario", read_scenarios(), ids=lambda scenario: scenario.name)
def test_both_engines_answer_alike(sides: Sides, scenario: Scenario) -> None:
    ours, theirs = sides.play(scenario)

    problems = []
    for step, our_one, their_one in zip(scenario.steps, ours, theirs, strict=True):
        found = differences(our_one, their_one, only_shape=step.prefix == "shape")
        for part, lines in found.items():
            if not any(is_listed(part, listed) for listed in step.allowed):
                problems += [f"{step.line}: {part}", *(f"    {line}" for line in lines)]
        for listed, reason in step.allowed.items():
            if any(is_listed(part, listed) for part in found):
                continue
            gone = f"{step.line}: {listed} differs no more: remove its line"
            if reason.startswith("gap:"):
                warnings.warn(gone, stacklevel=1)
            elif not reason.startswith("clients:"):
                problems.append(gone)
    assert not problems, "\n".join(["-dockerd, +naru", *problems])
