"""Steps: what those that were timed say of the others."""

import pytest

from statesize.io.steps import Steps


def test_each_kind_takes_what_its_timed_steps_took():
    steps = Steps({"short": 10, "long": 4, "never timed": 7})
    assert (steps.left, steps.each("short")) == (0, 0)
    steps.took("short", 2.0, 2)
    steps.took("long", 3.0)
    assert steps.left == pytest.approx(8 * 1 + 3 * 3)
    steps.took("long", 9.0, 3)
    assert steps.left == pytest.approx(8)
    steps.took("never timed", 0.1)
    assert steps.done == {"short": 2, "long": 4, "never timed": 1}


def test_kinds_that_were_not_timed_take_at_first_as_long_as_the_quickest():
    steps = Steps({"check": 1, "whole": 3, "cut": 10, "never timed": 7})
    steps.took("check", 9.0)
    steps.took("whole", 4.0)
    assert steps.first_left is None
    steps.took("cut", 0.5)
    assert steps.first_left == pytest.approx(2 * 4 + 9 * 0.5 + 7 * 0.5)
