import json
from functools import partial

import pytest

from benchmarks import engines
from benchmarks.cases import cases, gated
from benchmarks.engines import compare

CASES = {case.name: case for case in cases(quick=True)}


@pytest.mark.parametrize("name", ["gated n=64", pytest.param("Mamba layer n=16, 32 channels", marks=pytest.mark.slow)])
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


def test_the_script_writes_its_document(monkeypatch, tmp_path, capsys):
    path = tmp_path / "engines.json"
    monkeypatch.setattr(engines, "cases", lambda quick: [CASES["gated n=64"]])
    monkeypatch.setattr(engines, "_OPERATORS", {"all_cuts": partial(gated, states=4)})
    monkeypatch.setattr("sys.argv", ["engines", "--quick", "--length", "128", "--output", str(path)])
    engines.main()
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [row["output"] for row in document["rows"]] == ["counts", "entropy"]
    assert list(document["exponents"]) == ["all_cuts"]
    assert document["threads"] == 1
    assert capsys.readouterr().out.count("\n") == 3
