"""Tables in a terminal and on a page."""

import math

import pytest

from statesize.report.table import (
    MOST_LAYERS,
    PageTable,
    Shown,
    field_table,
    html_table,
    layer_table,
    short_names,
    table_text,
)
from statesize.results.fields import LAYERS

ROWS = [
    {"model": "m", "layer": "first", "ess": 1.25, "ess_error": 0.5, "ceiling": 4, "limits": []},
    {"model": "m", "layer": "second", "ess": 3.0, "ess_error": None, "ceiling": None, "limits": ["sink", "rounded"]},
]


def test_columns_that_say_nothing_are_left_out():
    table = field_table(LAYERS, ROWS, first=True)
    assert list(table.headings) == ["layer", "ess", "ceiling", "limits"]
    assert [[getattr(cell, "text", cell) for cell in row] for row in table.rows] == [
        ["first", "1.2 ± 0.5", "4", ""],
        ["second", "3.0", "–", "sink, rounded"],
    ]
    assert table.rows[0][1].value == 1.25
    assert math.isnan(table.rows[1][2].value)


def document(count):
    rows = [ROWS[0] | {"layer": f"layers.{at}.mixer", "ess": float(at)} for at in range(count)]
    return {"mixers": rows, "lost": [ROWS[1] | {"ess": None}], "sequences": 1, "cut": "token 2 of 4", "measured": ""}


def test_layers_stand_by_ess_and_those_without_below():
    names = [row[0] for row in layer_table(document(3)).rows]
    assert names == ["layers.2.mixer", "layers.1.mixer", "layers.0.mixer", "second"]


def test_of_many_layers_those_with_most_and_least_are_shown():
    names = [row[0] for row in layer_table(document(MOST_LAYERS + 10)).rows]
    assert names == [*map(str, [*range(29, 21, -1), *range(7, -1, -1)]), "second"]


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_stays_within_the_width(width):
    long = [["layer", "a text of several words that goes on and on " * 3, "1,000"]]
    lines = table_text(PageTable("", ["name", "why", "seconds"], long), width, "--json")
    assert max(map(len, lines)) <= width
    assert "1,000" in " ".join(lines)


def test_a_narrow_terminal_loses_the_last_columns_and_names_them():
    rows = [["layers.0.mixer", "1,000", "2,000"]]
    lines = table_text(PageTable("", ["layer", "seconds", "memory"], rows), 24, "--json")
    assert max(map(len, lines)) <= 24
    assert "for memory: see --json" in " ".join(lines)


def test_a_share_has_a_bar_where_there_is_room():
    table = PageTable("", ["layer", "share"], [["first", Shown(0.5, "50%")]])
    assert table_text(table, 80, "", bars=True)[1].endswith("████████░░░░░░░░")
    assert "█" not in "".join(table_text(table, 20, "", bars=True))
    of_two_kinds = PageTable("", ["layer", "of state", "of ceiling"], [["a", Shown(0.5, "50%"), Shown(0.4, "40%")]])
    assert "█" not in "".join(table_text(of_two_kinds, 80, "", bars=True))


def test_cells_of_a_page_hold_the_numbers():
    table = field_table(LAYERS, ROWS)
    html = html_table(table.headings, table.rows)
    assert 'data-name="ess"' in html
    assert '<td class="number" data-value="1.25">1.2 ± 0.5</td>' in html
    assert '<td class="number" data-value="">–</td>' in html


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["layers.0.mixer", "layers.1.mixer"], ["0", "1"]),
        (["a", "a.b"], ["a", "a.b"]),
        (["encoder.0", "decoder.0"], ["encoder", "decoder"]),
        (["only.one"], ["one"]),
        ([], []),
    ],
)
def test_short_names_stay_different(names, short):
    assert list(short_names(names).values()) == short
