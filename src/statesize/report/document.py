"""An HTML file that holds everything it needs and may load nothing, and the parts that every page is made of."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import cast

import vl_convert

from statesize.errors import FileError
from statesize.io.files import os_errors, require_regular


def document(title: str, head: str, body: str, data: Mapping[str, object], scripts: Sequence[str]) -> str:
    """A whole page, whose policy forbids remote content, evaluated code, and any script but its own."""
    code = (vega(), *(resource(name) for name in scripts))
    parts = {
        "hashes": " ".join(f"'sha256-{_digest(script)}'" for script in code),
        "title": escape(title),
        "style": resource("page.css"),
        "head": head,
        "body": body,
        "data": embedded_json(data),
        "scripts": "\n".join(f"<script>{script}</script>" for script in code),
    }
    return filled("frame.html", parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A file of this package with HTML instead of its comments, by their text."""
    # All at once, so that no part is searched for the comments of others.
    return re.sub("<!-- ([a-z-]+) -->", lambda comment: parts[comment[1]], resource(template))


def check_report_path(path: Path) -> None:
    """Refuse a path where no page can be written, before any work is done."""
    if path.is_dir():
        raise FileError(f"The report must be a file, got {path}, which is a folder.")
    with os_errors(f"{path} cannot be written", "Give a file in a writable folder."):
        if path.exists():
            require_regular(path)
        tempfile.TemporaryFile(dir=path.absolute().parent).close()


def section(key: str, title: str, content: str) -> str:
    """A part of a page under its heading, whose id is `key`-title."""
    return f'<section aria-labelledby="{key}-title"><h2 id="{key}-title">{escape(title)}</h2>{content}</section>'


def scrolled(key: str, content: str) -> str:
    """What may be larger than the screen, in the section `key`."""
    return f'<div class="scroll tall" tabindex="0" role="region" aria-labelledby="{key}-title">{content}</div>'


def filtered(table: str) -> str:
    """The page's table with the id "rows", of which a reader may choose rows and take them as CSV."""
    return (
        '<form class="choices" id="table-choices" autocomplete="off" hidden>'
        '<label>Rows with <input id="filter" type="search" placeholder="part of a text"></label>'
        '<label>Download <button id="csv" type="button">CSV of these rows</button></label></form>'
        f'<p id="table-count" class="hint" aria-live="polite"></p>{scrolled("table", table)}'
    )


def definitions(texts: Mapping[str, object]) -> str:
    """Entries of a definition list, by name."""
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(text))}</dd>" for name, text in texts.items())


def html_table(headings: Sequence[str], rows: Sequence[Sequence[object]], key: str = "") -> str:
    """An HTML table, whose cells of numbers carry them unrounded for sorting and for the CSV."""
    numbers = number_columns(headings, rows)
    head = "".join(
        heading_cell(name, name.replace("_", " "), number) for name, number in zip(headings, numbers, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(_cell(cell, named=not index, number=numbers[index]) for index, cell in enumerate(row))}</tr>"
        for row in rows
    )
    attribute = f' id="{key}"' if key else ""
    return f"<table{attribute}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def number_columns(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> list[bool]:
    """Which columns stand to the right: those of numbers, of texts that begin with one, and of nothing."""
    columns = zip(*rows, strict=True) if rows else [()] * len(headings)
    return [
        all(
            cell[:1] in {"", *"+-−–[0123456789"} if isinstance(cell, str) else not isinstance(cell, bool)
            for cell in column
        )
        for column in columns
    ]


def _cell(cell: object, *, named: bool, number: bool) -> str:
    if isinstance(cell, str | bool):
        text = escape(cell_text(cell))
        side = ' class="number"' if number else ""
        return f'<th scope="row">{text}</th>' if named else f"<td{side}>{text}</td>"
    return number_cell(_number(cell), cell_text(cell))


def cell_text(cell: object) -> str:
    """A cell as a reader sees it: numbers at three digits, and a dash for what is not known."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    number = _number(cell)
    return "–" if not math.isfinite(number) else f"{number:,.0f}" if number.is_integer() else f"{number:.3g}"


def _number(cell: object) -> float:
    return float(cell) if isinstance(cell, int | float) else math.nan


def number_cell(value: float, shown: str) -> str:
    """A table's cell with a number, unrounded for sorting and for the CSV; a dash for one that is not finite."""
    if not math.isfinite(value):
        return '<td class="number" data-value="">–</td>'
    return f'<td class="number" data-value="{value:.6g}">{shown}</td>'


def heading_cell(name: str, heading: str, number: bool) -> str:
    """The head of a table's column, with its name in the CSV."""
    return f'<th scope="col"{" class=number" if number else ""} data-name="{escape(name)}">{escape(heading)}</th>'


def named_texts(title: str, texts: Mapping[str, object]) -> str:
    """A list of names with what is to know of each, under a title; nothing without names."""
    items = "".join(f"<li>{escape(str(name))}: {escape(str(text))}</li>" for name, text in texts.items())
    return f'<div class="skipped"><p>{escape(title)}</p><ul>{items}</ul></div>' if items else ""


def embedded_json(data: object) -> str:
    """JSON that no HTML parser can leave: `<`, `>` and `&` are written as escapes."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def vega() -> str:
    """Vega, Vega-Lite and their embedding as one script."""
    # A closing tag inside the libraries' strings would end the script element.
    # The stub forgets that the snippet has a default.
    bundle = cast("str", vl_convert.javascript_bundle())  # pyright: ignore[reportCallIssue]
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@cache
def resource(name: str) -> str:
    """The text of a file of this package."""
    return (resources.files("statesize.report") / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
