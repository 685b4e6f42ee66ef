"""Steps: what those that were timed say of the others."""

import pytest

from statesize.io.steps import Steps


def test_each_kind_takes_what_its_timed_steps_took_and_others_as_long_as_the_quickest():
    steps = Steps({"check": 1, "whole": 3, "cut": 10, "never timed": 7})
    steps.took("check", 9.0)
    steps.took("whole", 4.0)
    assert steps.first_left is None
    steps.took("cut", 1.0, 2)
    assert steps.first_left == pytest.approx(2 * 4 + 8 * 0.5 + 7 * 0.5)
    steps.took("cut", 9.0, 8)
    assert steps.first_left == pytest.approx(2 * 4 + 7 * 1)
