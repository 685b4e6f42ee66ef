"""The rows of a study as a page shows them: what differs as a table, what all share as facts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from statesize.lab.studies.grid.run import Row
from statesize.report.tables import heading_cell, number_cell

MOST_ROWS = 1000
"""Rows that a page holds; the rest is in the study's folder."""
_LEFT_OUT = ("settings",)
_LAST = ("seconds", "message", "versions", "run")


def rows_table(rows: Sequence[Row]) -> str:
    """The columns that differ, as HTML; cells of numbers carry them unrounded for sorting and for the CSV."""
    names = _columns(rows)
    texts = {name for name in names if any(isinstance(row.get(name), str | bool) for row in rows)}
    head = "".join(heading_cell(name, _title(name), name not in texts) for name in names)
    body = "".join(f"<tr>{''.join(_cell(row.get(name)) for name in names)}</tr>" for row in rows[:MOST_ROWS])
    return f'<table id="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def shared_facts(rows: Sequence[Row]) -> dict[str, str]:
    """What is the same in all rows, as text by the name of the column; columns without a known value are left out."""
    shared = {name: values[0] for name, values in _values(rows).items() if not _differs(values)}
    return {_title(name): _text(value) for name, value in shared.items() if _text(value) not in {"", "–"}}


def _columns(rows: Sequence[Row]) -> list[str]:
    differing = [name for name, values in _values(rows).items() if _differs(values)]
    return sorted(differing, key=lambda name: _LAST.index(name) if name in _LAST else -1)


def _values(rows: Sequence[Row]) -> Mapping[str, list[object]]:
    names = dict.fromkeys(name for row in rows for name in row if name not in _LEFT_OUT)
    return {name: [row.get(name) for row in rows] for name in names}


def _differs(values: Sequence[object]) -> bool:
    return len(set(map(_text, values))) > 1


def _cell(value: object) -> str:
    if isinstance(value, str | bool):
        return f"<td>{escape(_text(value))}</td>"
    return number_cell(_number(value), _text(value))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    number = _number(value)
    return "–" if not math.isfinite(number) else f"{number:,.0f}" if number.is_integer() else f"{number:.3g}"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _title(name: str) -> str:
    return name.replace("_", " ")
