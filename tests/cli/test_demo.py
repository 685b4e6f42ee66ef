"""`statesize demo`: the bundled models, end to end."""

import json
import os

import pytest
import torch

from statesize import zoo
from statesize.cli import main
from statesize.cli.demo import LENGTH, SEQUENCES, demo_sequences


def test_sequences_are_whole_documents_joined_by_eos():
    ids = demo_sequences()
    assert ids.shape == (SEQUENCES, LENGTH)
    assert torch.equal(ids, demo_sequences())
    eos = zoo.tokenizer().token_to_id("<eos>")
    assert ((ids == eos).sum(1) >= 2).all()
    documents = zoo.documents()
    for row in ids.tolist():
        first = zoo.tokenizer().decode(row[: row.index(eos)])
        assert first in documents
    assert len({tuple(row) for row in ids.tolist()}) == SEQUENCES


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_table_and_report(run):
    done = run("demo")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[2:] if line.strip()]
    assert [row[0] for row in rows] == [name for name in ("sa", "la", "wla", "gla") for _ in range(len(rows) // 4)]
    assert "statesize-demo.html" in done.stderr
    assert os.listdir(run.folder) == ["statesize-demo.html"]
    assert (run.folder / "statesize-demo.html").stat().st_size < 1_500_000


def test_json(here, capsys, monkeypatch):
    # One model tells as much about the document as four.
    monkeypatch.setattr(zoo, "names", lambda: ("gla",))
    assert main(["demo", "--json", "--output", "other.html"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["report"]) == (1, "other.html")
    (model,) = document["models"]
    assert (model["model"], model["sequences"], model["tokens"]) == ("gla", SEQUENCES, SEQUENCES * LENGTH)
    assert os.listdir(here) == ["other.html"]


@pytest.mark.parametrize(("place", "message"), [(".", "is a folder"), ("missing/demo.html", "cannot be written")])
def test_a_bad_place_is_refused_before_the_work(here, capsys, place, message):
    assert main(["demo", "--output", place]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "profiling" not in captured.err
    assert os.listdir(here) == []
