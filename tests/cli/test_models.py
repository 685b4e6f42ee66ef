"""`statesize models`: the table and the JSON."""

import json

from statesize.adapters.families import FAMILIES
from statesize.cli import main


def test_the_table_has_a_row_for_each_family(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(FAMILIES)]] == [family.name for family in FAMILIES]
    row = next(line for line in lines if line.startswith("gemma2 "))
    assert "attention, sliding attention" in row
    assert "i, min(i, window - 1)" in row
    assert row.endswith("5.15.1, 5.23.0")
    assert "operator(hidden)" in lines[-2] + lines[-1]


def test_json_has_the_same(capsys):
    assert main(["models", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    rows = {row["family"]: row for row in document["families"]}
    assert list(rows) == [family.name for family in FAMILIES]
    assert rows["mamba2"]["mixers"] == [{"kind": "mamba2", "state_size": "state size n"}]
