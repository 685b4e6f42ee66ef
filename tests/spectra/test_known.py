"""What is stated, and how much is looked at for it, against the table of oracles.known."""

import json

import pytest
from oracles.known import CASES, TABLE, WINDOWS, known

KNOWN = json.loads(TABLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("case", CASES)
def test_bounds_and_work_are_those_that_are_known(case, windows):
    found, expected = known(case, windows), KNOWN[f"{case}, {windows}"]
    assert found["between"] == pytest.approx(expected["between"])
    assert set(found["stated"]) == set(expected["stated"])
    for engine, numbers in expected["stated"].items():
        assert found["stated"][engine] == {name: pytest.approx(pair, rel=1e-4) for name, pair in numbers.items()}, (
            engine
        )
    assert (found["held"], found["choices"]) == (expected["held"], expected["choices"])
    assert found["work"] == pytest.approx(expected["work"], rel=0.01)


def test_no_case_is_left_over():
    assert set(KNOWN) == {f"{case}, {windows}" for case in CASES for windows in WINDOWS}
