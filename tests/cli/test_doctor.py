"""`statesize doctor`: what it prints, and that it fails where an engine is wrong."""

import json

import pytest

from statesize.benchmarks import engines
from statesize.cli import main
from statesize.spectra.choice import ENGINES


@pytest.fixture(scope="module")
def document():
    return engines.self_check()


def test_every_engine_is_right(document):
    assert {row["engine"] for row in document} == set(ENGINES)
    assert all(row["right"] and row["checked"] == 94 for row in document)


def test_json(capsys, monkeypatch, document):
    monkeypatch.setattr(engines, "self_check", lambda on_progress: document)
    assert main(["doctor", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["devices"][0] == "cpu"
    assert printed["packages"]["torch"]
    assert set(printed["optional"]) >= {"ray", "datasets", "lightning"}
    assert printed["checks"] == document


def test_table(capsys, monkeypatch, document):
    monkeypatch.setattr(engines, "self_check", lambda on_progress: document)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"{len(document)} of {len(document)} checks" in out
    assert all(engine in out for engine in ENGINES)


def test_a_wrong_engine_is_told(capsys, monkeypatch):
    right = engines.definition
    monkeypatch.setattr(engines, "definition", lambda operator, positions: 1.01 * right(operator, positions).sqrt())
    assert main(["doctor", "--json"]) == 1
    captured = capsys.readouterr()
    assert "contradict the definition" in captured.err
    assert not all(check["right"] for check in json.loads(captured.out)["checks"])
