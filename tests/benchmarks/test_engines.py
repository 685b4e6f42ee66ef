import pytest

from statesize.benchmarks.cases import cases
from statesize.benchmarks.engines import compare

CASES = {case.name: case for case in cases(quick=True)}


@pytest.mark.parametrize("name", ["gated n=64", "Mamba layer n=16, 32 channels"])
def test_rows(name):
    case = CASES[name]
    rows = list(compare(case, 160, rounds=1))
    assert [row.output for row in rows] == list(case.outputs)
    for row in rows:
        assert (row.case, row.engine, row.length, row.dense_positions) == (name, case.engine, 160, 8)
        assert row.units == case.make(8).batch_shape.numel()
        assert row.miscounts == 0
        assert row.checked >= 8
        assert row.ratio is not None
        assert row.ratio > 0
        assert row.seconds > 0
        assert row.peak_bytes > 8 * 160 * 64


def test_a_long_row_has_no_dense_loop(monkeypatch):
    monkeypatch.setattr("statesize.benchmarks.engines._LONGEST_DENSE", 512)
    (row, _) = compare(CASES["softmax d=64, decaying"], 600, rounds=1)
    assert (row.ratio, row.dense_positions, row.miscounts) == (None, 0, 0)
