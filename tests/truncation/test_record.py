"""The pages show the record, and the verdicts follow from it."""

import json
from pathlib import Path

from benchmarks.truncation import CLAIMS, table, verdicts
from tools.figures.pages import BLOCK

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_the_table_of_the_record():
    document = json.loads((DOCS / "truncation.json").read_text(encoding="utf-8"))
    shown = dict(BLOCK.findall((DOCS / "truncation.md").read_text(encoding="utf-8")))
    assert shown["truncation.table"].strip() == table(document)
    assert document["claims"] == CLAIMS
    assert document["verdicts"] == verdicts(document["rows"])


def test_verdicts_leave_doubts_where_an_interval_does():
    def row(low, high):
        return {"rows": [{"rule": "ess", "scale": scale, "share": {"interval": [low, high]}} for scale in (0.25, 1.0)]}

    names = tuple(CLAIMS)
    assert verdicts([row(-0.01, 0.009)]) == {names[0]: True, names[1]: False}
    assert verdicts([row(0.03, 0.05)]) == {names[0]: False, names[1]: True}
    assert verdicts([row(-0.01, 0.03)]) == {names[0]: None, names[1]: None}
    assert verdicts([row(0.03, 0.05), row(-0.01, 0.009)]) == {names[0]: False, names[1]: False}
