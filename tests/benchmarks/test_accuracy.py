from dataclasses import replace

import pytest
import torch

from benchmarks.cases import cases
from benchmarks.engines import accuracy, definition

CASES = {case.name: case for case in cases(quick=True)}
POSITIONS = [5, 40, 90]


def test_the_definition_is_that_of_all_of_T():
    operator = CASES["softmax d=64, decaying"].make(96)
    matrix = operator.dense()
    found = definition(operator, POSITIONS)
    for row, i in zip(found, POSITIONS, strict=True):
        sigma = torch.linalg.svdvals(matrix[i:, :i])
        torch.testing.assert_close(row[: len(sigma)], sigma, rtol=0, atol=1e-13)
        assert not bool(row[len(sigma) :].any())


@pytest.mark.parametrize(
    ("name", "output"), [("gated n=64", "counts"), ("gated n=64", "entropy"), ("gated n=64, all σ", "values")]
)
def test_what_is_right_and_what_is_wrong(name, output):
    case = CASES[name]
    operator = case.make(96)
    exact = definition(operator, POSITIONS)
    right = accuracy(case, operator, output, POSITIONS, exact)
    assert right.miscounts == 0
    assert right.error <= {"counts": 0, "entropy": 2e-4, "values": 1e-12}[output]
    assert right.checked == len(POSITIONS) * (len(case.ratios) if output == "counts" else 1)
    # Against the spectra of positions that are not these.
    wrong = accuracy(replace(case, ratios=(0.3,)), operator, output, [2, 20, 50], exact)
    assert wrong.miscounts == len(POSITIONS)
    assert wrong.error > 1e-3
