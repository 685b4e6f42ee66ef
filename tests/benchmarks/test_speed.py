"""The benchmark of speed runs."""

import json

import pytest
from oracles.pretrained import save_tiny

from benchmarks import speed
from statesize.texts.bundled import documents


@pytest.fixture(autouse=True)
def prose(monkeypatch):
    """The bundled documents: for the prose of the benchmarks all of Python's library would be read."""
    monkeypatch.setattr("benchmarks.recorded.held_out", documents)


@pytest.mark.slow
def test_each_row_counts_units_of_its_own_process(tmp_path, monkeypatch, capsys):
    save_tiny(tmp_path / "tiny")
    monkeypatch.setattr(speed, "ROUNDS", 1)
    work = [(name, 128, call) for name, _, call in speed.WORK if callable(call)]
    monkeypatch.setattr(speed, "WORK", [("profile", 24, {"positions": 2}), *work])
    speed.main([str(tmp_path / "tiny"), "--output", str(tmp_path / "speed.json")])
    document = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert capsys.readouterr().out.count("\n") == len(document["rows"]) == len(speed.WORK)
    assert all(min(row["seconds"], row["units"]) > 0 for row in document["rows"])
