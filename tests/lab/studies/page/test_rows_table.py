"""The rows of a study as a page shows them."""

import re

from statesize.lab.studies.page.rows_table import MOST_ROWS, rows_table, shared_facts

ROWS = [
    {"run": "a", "kv": 4, "accuracy": 0.123456789, "final": True, "settings": "{}", "width": 32},
    {"run": "b", "kv": 4, "accuracy": float("nan"), "final": False, "settings": "{1}", "width": 32, "extra": 1.0},
]


def test_columns_that_differ_with_long_ones_last():
    table = rows_table(ROWS)
    assert re.findall(r'data-name="(\w+)"', table) == ["accuracy", "final", "extra", "run"]
    assert 'data-value="0.123457">0.123</td>' in table
    assert '<td class="number" data-value="">–</td>' in table
    assert "<td>yes</td>" in table


def test_shared_facts():
    assert shared_facts(ROWS) == {"kv": "4", "width": "32"}
    assert shared_facts(ROWS[:1])["accuracy"] == "0.123"


def test_only_so_many_rows():
    rows = [{"step": step} for step in range(MOST_ROWS + 1)]
    assert rows_table(rows).count("<tr>") == MOST_ROWS + 1
    assert f">{MOST_ROWS}<" not in rows_table(rows)
