"""Tables: made of rows by the list of fields, and shown in a terminal or on a page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from numbers import Real
from typing import Any, TypeAlias, TypeGuard

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from statesize.io.text import listed, printable
from statesize.results.fields import LAYERS, MODELS, Field, columns, number_text

Headings: TypeAlias = Sequence[str] | Mapping[str, str]
"""Names of columns, as a CSV has them; a mapping has what a reader sees instead."""
_WIDEST, _BAR, _ENDLESS = 40, 16, 100_000
MOST_LAYERS, _ENDS = 20, 8
"""Layers of a model that are all shown; of one with more, so many of those with most and of those with least."""


@dataclass(frozen=True)
class Shown:
    """A cell with a number and how a reader sees it; NaN where it is not known."""

    value: float
    text: str


@dataclass(frozen=True)
class PageTable:
    """A table; a cell is a text, a number, a `Shown` number, or None where it is not known.

    Attributes:
        terms: What its columns say, by their headings.
    """

    title: str
    headings: Headings
    rows: Sequence[Sequence[object]]
    caption: str = ""
    terms: Mapping[str, str] = field(default_factory=dict[str, str])


def field_table(
    kind: str, rows: Sequence[Mapping[str, Any]], title: str = "", caption: str = "", *, first: bool = False
) -> PageTable:
    """A table of rows by the list of fields, or by those that are read first, without columns that say nothing."""
    silent = set[str]()
    if kind != MODELS and len({row.get("model") for row in rows}) == 1:
        silent.add("model")
    if all(row.get("without_sink") == row.get("ess") for row in rows):
        silent.add("without_sink")
    known = [
        column
        for column in columns(kind, first=first)
        if column.name not in silent and any(_is_known(row.get(column.name)) for row in rows)
    ]
    cells = [[_field_cell(column, row) for column in known] for row in rows]
    if any("±" in cell_text(cell) for row in cells for cell in row):
        caption = f"{caption} ±: half of the 95 % interval, as not all cuts or heads were measured.".lstrip()
    terms = {
        column.line: f"{column.meaning}{column.unit and f' Unit: {column.unit}.'}"
        for column in known
        if column.form != "text"
    }
    return PageTable(title, {column.name: column.heading for column in known}, cells, caption, terms)


def _field_cell(column: Field, row: Mapping[str, Any]) -> str | Shown:
    """A text, codes, or a number with half the width of its interval."""
    value = row.get(column.name)
    if column.form in ("text", "codes"):
        return str(value) if column.form == "text" else ", ".join(value or ())
    number = _number(value)
    return Shown(number, number_text(number, column.form, row.get(f"{column.name}_error") or 0.0))


def layer_table(document: Mapping[str, Any]) -> PageTable:
    """The layers of a profile's document by ESS; of a large model, those with most and those with least."""
    rows = sorted(document["mixers"], key=lambda row: -(row.get("ess") or -math.inf))
    names = short_names([row["layer"] for row in rows]) if len(rows) > MOST_LAYERS else {}
    texts = "" if document["sequences"] == 1 else f", averaged over {document['sequences']:,} texts"
    said = [f"ESS: numbers per channel that a layer carries past {document['cut']}{texts}.", document["measured"]]
    if len(rows) > MOST_LAYERS:
        rows, most = [*rows[:_ENDS], *rows[-_ENDS:]], len(rows)
        said.insert(0, f"The {_ENDS} layers with most and the {_ENDS} with least ESS of {most}; the page has all.")
    shown = [row | {"layer": names.get(row["layer"], row["layer"])} for row in [*rows, *document["lost"]]]
    return field_table(LAYERS, shown, caption=" ".join(filter(None, said)), first=True)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the dotted parts that all begin and end with: layers.0.mixer, layers.1.mixer are 0 and 1."""
    levels = [name.split(".") for name in names]
    for _ in range(2):
        # One level is left of each; the second time from its end.
        same = [len(set(parts)) == 1 for parts in zip(*(level[:-1] for level in levels), strict=False)]
        levels = [level[[*same, False].index(False) :][::-1] for level in levels]
    return {name: ".".join(level) for name, level in zip(names, levels, strict=True)}


def legend_lines(limits: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    """Each code that occurs with its layers, by the names that a table gives them, and its sentence."""
    return [
        f"{limit['code']} ({listed([names.get(layer, layer) for layer in limit['layers']])}): {limit['sentence']}"
        for limit in limits
    ]


def _is_known(value: object) -> bool:
    return math.isfinite(_number(value)) or (isinstance(value, str | list) and value not in ("", []))


def table_text(table: PageTable, width: int, rest: str, *, bars: bool = False) -> list[str]:
    """The lines of a table within a width: texts break, then the last columns go, and a line says where the rest is."""
    console, names = Console(width=width, color_system=None), shown_headings(table.headings)
    unlimited, right = console.options.update(max_width=_ENDLESS), number_columns(table.headings, table.rows)
    # Shares in two columns are of two kinds, which do not compare.
    shares = [at for at in range(len(names)) if bars and any(_is_share(row[at]) for row in table.rows)]
    # First all columns and a bar, which stands behind them.
    for count in range(len(names) + (len(shares) == 1), 0, -1):
        grid = Table(box=None, pad_edge=False)
        for at, name in enumerate([*names, ""][:count]):
            is_number = at < len(names) and right[at]
            widest = None if is_number or at == 0 else _WIDEST
            grid.add_column(Text(name), justify="right" if is_number else "left", max_width=widest, overflow="fold")
        for row in table.rows:
            bar = [_share_bar(row[shares[0]])] if count > len(names) else []
            grid.add_row(*(Text(printable(cell_text(cell))) for cell in row[:count]), *bar)
        if count == 1 or Measurement.get(console, unlimited, grid).maximum <= width:
            lines = ["".join(segment.text for segment in line).rstrip() for line in console.render_lines(grid)]
            left = listed([name.replace("\n", " ") for name in names[count:]])
            dropped = f"No room in {width} columns for {left}: see {rest}." if left else ""
            return [*lines, *textwrap.wrap(dropped, width)]
    return []


def _is_share(cell: object) -> TypeGuard[Shown]:
    return isinstance(cell, Shown) and cell.text.endswith("%")


def _share_bar(cell: object) -> str:
    """A share as a bar; empty for other cells."""
    filled = round(min(max(cell.value, 0.0), 1.0) * _BAR) if _is_share(cell) else 0
    return "█" * filled + "░" * (_BAR - filled) if _is_share(cell) else ""


def html_table(headings: Headings, rows: Sequence[Sequence[object]]) -> str:
    """An HTML table, whose cells of numbers carry them unrounded for sorting and for the CSV."""
    shown = [heading.replace("\n", " ") for heading in shown_headings(headings)]
    sides = [' class="number"' if number else "" for number in number_columns(shown, rows)]
    head = "".join(
        f'<th scope="col"{side} data-name="{escape(name)}">{escape(text)}</th>'
        for name, text, side in zip(headings, shown, sides, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row, sides, range(len(sides))))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def shown_headings(headings: Headings) -> list[str]:
    """The headings of columns for a reader."""
    if isinstance(headings, Mapping):
        return list(headings.values())
    return [name.replace("_", " ") for name in headings]


def number_columns(headings: Headings, rows: Sequence[Sequence[object]]) -> list[bool]:
    """Which columns stand to the right: those of numbers, of texts that begin with one, and of nothing."""
    return [all(_is_numeric(row[at]) for row in rows) for at in range(len(headings))]


def _is_numeric(cell: object) -> bool:
    return cell[:1] in {"", *"+-−–[0123456789"} if isinstance(cell, str) else not isinstance(cell, bool)


def _cell(cell: object, side: str, column: int) -> str:
    text = escape(cell_text(cell))
    if isinstance(cell, str | bool):
        return f"<td{side}>{text}</td>" if column else f'<th scope="row">{text}</th>'
    number = _number(cell)
    known = f"{number:.6g}" if math.isfinite(number) else ""
    # A share has a bar.
    bar = f' style="--share:{min(max(number, 0), 1):.1%}"' if text.endswith("%") else ""
    return f'<td class="number" data-value="{known}"{bar}>{text}</td>'


def cell_text(cell: object) -> str:
    """A cell as a reader sees it: numbers at three digits or all whole ones, and a dash for what is not known."""
    if isinstance(cell, str | Shown):
        return cell if isinstance(cell, str) else cell.text
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    number = _number(cell)
    if not math.isfinite(number):
        return "–"
    return f"{number:,.0f}" if abs(number) >= 100 or number.is_integer() else f"{number:.3g}"


def _number(cell: object) -> float:
    number = cell.value if isinstance(cell, Shown) else cell
    return float(number) if isinstance(number, Real) else math.nan
