import io
import os
import pty
import sys

import pytest

from statesize.cli.shared.printing import REPORTING
from statesize.cli.shared.table import print_table, show_page
from statesize.report.result_page import PageTable, ResultPage

ROWS = [["gated n=64, all σ", "1,000×"], ["[bold]literal[/bold]", "-"]]


@pytest.mark.parametrize("columns", [40, 300])
def test_nothing_is_cut(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        print_table(PageTable("", ["case", "ratio"], ROWS, "a note"))
        terminal.flush()
        out = b""
        while b"a note" not in out:
            out += os.read(leader, 1 << 16)
    os.close(leader)
    lines = [line.rstrip() for line in out.decode().splitlines()]
    assert lines[0].split() == ["case", "ratio"]
    assert [line.split("  ")[0] for line in lines[1:3]] == [row[0] for row in ROWS]
    assert lines[3:] == ["", "a note"]


def test_a_narrow_terminal_loses_the_last_columns_and_says_so(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout", Terminal())
    rows = [("layers.0.mixer", "a text of several words", "1,000", "2,000")]
    print_table(PageTable("", ["layer", "why", "seconds", "memory"], rows))
    lines = [line.rstrip() for line in sys.stdout.getvalue().splitlines()]
    # The name is whole, text breaks between words.
    assert [line.split()[0] for line in lines[:2]] == ["layer", "layers.0.mixer"]
    assert "a text of several words" in " ".join(" ".join(line.split()) for line in lines).replace(
        "layers.0.mixer ", ""
    )
    assert max(map(len, lines)) <= 30
    assert " ".join(lines[-3:]).endswith("for seconds, memory: see --json, or a wider terminal.")


@pytest.mark.parametrize(
    ("rows", "shown", "more"), [(40, 40, ""), (42, 42, ""), (43, 40, "… and 3 rows more, which --html shows.")]
)
def test_three_rows_of_a_table_are_left_out_or_none(rows, shown, more, capsys):
    table = PageTable("", ["layer", "number"], [[f"row{at}", str(at)] for at in range(rows)])
    show_page(ResultPage("Title", "Found.", (), [table]), {}, REPORTING)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("row") for line in lines) == shown
    assert [line for line in lines if "more" in line] == ([more] if more else [])


class Terminal(io.StringIO):
    """A terminal as far as tables ask."""

    def isatty(self):
        return True


def test_signs_that_ascii_cannot_hold(monkeypatch, tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as file:
        monkeypatch.setattr("sys.stdout", file)
        print_table(PageTable("", ["case", "µs"], ROWS, "O(L³)"))
    out = (tmp_path / "out").read_text()
    assert "gated n=64, all s" in out
    assert "1,000x" in out
    assert "O(L^3)" in out
