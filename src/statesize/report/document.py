"""An HTML file that holds everything it needs and may load nothing, and the parts that every page is made of."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from numbers import Real
from typing import NamedTuple, TypeAlias, cast


class Section(NamedTuple):
    """A part of a page, as HTML, under its heading, whose id is `key`-title; a folded one shows its heading alone."""

    key: str
    title: str
    content: str
    folded: bool = False

    @property
    def html(self) -> str:
        """The section."""
        heading = f'<h2 id="{self.key}-title">{escape(self.title)}</h2>'
        shown = f"<details><summary>{heading}</summary>{self.content}</details>"
        return (
            f'<section aria-labelledby="{self.key}-title">{shown if self.folded else heading + self.content}</section>'
        )


def document(
    title: str, finding: str, sections: Sequence[Section], data: Mapping[str, object], scripts: Sequence[str]
) -> str:
    """A whole page, whose policy forbids remote content, evaluated code, and any script but its own."""
    code = (vega(), *(resource(name) for name in scripts))
    first, *others = finding.split("\n")
    items = "".join(map(list_item, others))
    links = [(one.key, one.title) for one in sections if not one.folded]
    # One link leads to all that is folded.
    links += [(one.key, "Details") for one in sections if one.folded][:1]
    parts = {
        "hashes": " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in code
        ),
        "title": escape(title),
        "style": resource("page.css"),
        "finding": f"<p><strong>{escape(first)}</strong></p>" + (items and f"<ul>{items}</ul>"),
        "links": " ".join(f'<a href="#{key}-title">{escape(name)}</a>' for key, name in links),
        "sections": "\n".join(one.html for one in sections),
        "data": embedded_json(data),
        "scripts": "\n".join(f"<script>{script}</script>" for script in code),
    }
    return filled("frame.html", parts)


_COMMAND = re.compile(r"(?<=: )statesize .*")


def list_item(line: str) -> str:
    """A line of a list; the command at its end, behind a colon, is set apart to be copied."""
    marked = _COMMAND.sub(r"<code>\g<0></code>", escape(line))
    return f"<li>{marked}</li>"


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A file of this package with HTML instead of its comments, by their text."""
    # All at once, so that no part is searched for the comments of others.
    return re.sub("<!-- ([a-z-]+) -->", lambda comment: parts[comment[1]], resource(template))


@dataclass(frozen=True)
class Shown:
    """A cell with a number and how a reader sees it; NaN where it is not known."""

    value: float
    text: str


Headings: TypeAlias = Sequence[str] | Mapping[str, str]
"""Names of columns, as a CSV has them; a mapping has what a reader sees instead."""


def html_table(headings: Headings, rows: Sequence[Sequence[object]]) -> str:
    """An HTML table, whose cells of numbers carry them unrounded for sorting and for the CSV."""
    shown = shown_headings(headings)
    numbers = number_columns(shown, rows)
    sides = [' class="number"' if number else "" for number in numbers]
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


def embedded_json(data: object) -> str:
    """JSON that no HTML parser can leave: `<`, `>` and `&` are written as escapes."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def vega() -> str:
    """Vega, Vega-Lite and their embedding as one script."""
    # Commands use this module for tables too.
    import vl_convert

    # A closing tag inside the libraries' strings would end the script element.
    # The stub forgets that the snippet has a default.
    bundle = cast("str", vl_convert.javascript_bundle())  # pyright: ignore[reportCallIssue]
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@cache
def resource(name: str) -> str:
    """The text of a file of this package."""
    return (resources.files("statesize.report") / name).read_text(encoding="utf-8")
