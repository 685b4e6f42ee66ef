"""The pages show the record, and the verdicts follow from it."""

import pytest

from benchmarks import bounds
from benchmarks.truncation import CLAIMS, result_of, table, verdicts
from statesize.io.json_values import json_values
from tools.figures.fixed_claims import CLAIMED
from tools.figures.on_record import read_json
from tools.figures.pages import BLOCK, DOCS


def test_the_page_has_the_table_of_the_record():
    document = read_json("truncation")
    shown = dict(BLOCK.findall((DOCS / "appendix" / "truncation.md").read_text(encoding="utf-8")))
    assert shown["truncation.table"].strip() == table(document, CLAIMED)
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
