"""The pages show the record, and the verdicts follow from it."""

import json

import pytest

from benchmarks import bounds, truncation_lengths
from benchmarks.truncation import CLAIMS, result_of, table, verdicts
from statesize.io.json_values import json_values
from statesize.models.load import load_model
from statesize.texts.bundled import documents
from tools.figures.on_record import read_json
from tools.figures.pages import BLOCK, DOCS


def test_the_page_has_the_table_of_the_record():
    document = read_json("truncation")
    shown = dict(BLOCK.findall((DOCS / "appendix" / "truncation.md").read_text(encoding="utf-8")))
    assert shown["truncation.table"].strip() == table(document)
    assert document["claims"] == CLAIMS
    assert document["verdicts"] == verdicts(document["rows"])
    for row in document["rows"]:
        if "without_hindsight" in row:
            assert row["without_hindsight"].items() <= json_values(result_of(row).without_hindsight()).items()


@pytest.mark.parametrize("name", ["bounds", "more_bounds"])
def test_verdicts_on_both_bounds_follow_from_the_record(name):
    document = read_json(name)
    found = bounds.conclusion(document["rows"])
    assert document["claims"] == found["claims"]
    assert document["verdicts"] == found["verdicts"]
    for kept, again in zip(document["bounds"], found["bounds"], strict=True):
        assert kept["worth"] == again["worth"]
        # Another version of numpy may draw other documents.
        assert kept["stored"]["mean"] == again["stored"]["mean"]


def test_models_of_the_claims_on_both_bounds_read_all_texts():
    document = read_json("bounds")
    lengths = {(row["file"], row["tokens"]) for row in document["rows"]}
    whole = {file for file, tokens in lengths if tokens == bounds.TOKENS}
    rows = [row for row in document["rows"] if row["tokens"] == bounds.TOKENS]
    assert len(rows) == bounds.DOCUMENTS * len(whole)


def test_verdicts_leave_doubts_where_an_interval_does():
    def row(low, high):
        return {"rows": [{"rule": "ess", "scale": scale, "share": {"interval": [low, high]}} for scale in (0.25, 1.0)]}

    names = tuple(CLAIMS)
    assert verdicts([row(-0.01, 0.009)]) == {names[0]: True, names[1]: False}
    assert verdicts([row(0.03, 0.05)]) == {names[0]: False, names[1]: True}
    assert verdicts([row(-0.01, 0.03)]) == {names[0]: None, names[1]: None}
    assert verdicts([row(0.03, 0.05), row(-0.01, 0.009)]) == {names[0]: False, names[1]: False}


@pytest.mark.slow
def test_each_length_is_cut_in_its_middle_and_what_is_there_is_not_run_again(tmp_path, monkeypatch):
    # For the prose of the benchmarks all of Python's library would be read.
    monkeypatch.setattr("benchmarks.recorded.held_out", documents)
    monkeypatch.setattr(truncation_lengths, "LENGTHS", (16, 24))
    monkeypatch.setattr(truncation_lengths, "DOCUMENTS", 2)
    path = tmp_path / "lengths.json"
    row = truncation_lengths.one_length(load_model("gla"), 16, documents=2)
    path.write_text(json.dumps({"rows": [{"file": "gla", "tokens": 16, **row}]}))
    truncation_lengths.main(path, ["gla"])
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [(one["tokens"], one["documents"], one["measured"][0]["cut"]) for one in rows] == [(16, 2, 8), (24, 2, 12)]
    assert rows[0]["seconds"] == row["seconds"]
