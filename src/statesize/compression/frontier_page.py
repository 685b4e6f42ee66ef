"""The frontier of a model as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import altair as alt

from statesize.compression.frontier import SHARES, Head, Point
from statesize.drawing.chart import PALETTE
from statesize.files import replace_file
from statesize.report.document import document, filled

_SCRIPTS = ("draw.js", "study.js")


def write_frontier(name: str, points: Sequence[Point], heads: Sequence[Head], path: Path) -> None:
    """Write the page; the file is replaced once the new one is complete."""
    title = f"Smaller states of {name}"
    least = min(points, key=lambda point: (point.difference.high > 0.01, point.state_bytes))
    lead = (
        f"{least.state_bytes:,} bytes a sequence cost {least.difference.value:+.4f} bits a byte: {least.share:.0%} of "
        f"the numbers in {least.numbers}, {least.way}."
    )
    kept = [f"missed at {share:.0%}" for share in SHARES]
    rows = [
        (point.way, point.numbers, f"{point.share:.0%}", f"{point.state_bytes:,}", *_numbers(point))
        for point in _by_bytes(points)
    ]
    known = [
        (f"{head.layer}", f"{head.head}", f"{head.ess:.1f}", *(f"{share:.2%}" for share in head.missed))
        for head in heads
    ]
    parts = {
        "title": escape(title),
        "lead": escape(lead),
        "points": _table(("way", "numbers", "kept", "bytes", "extra bits a byte", "from", "to"), rows),
        "heads": _table(("layer", "head", "entropy-ESS", *kept), known),
    }
    page = document(title, filled("frontier.html", parts), {"charts": _chart(points).to_dict()}, _SCRIPTS)
    replace_file(path, page.encode())


def _chart(points: Sequence[Point]) -> alt.VConcatChart:
    """Every point with its interval."""
    rows = [
        {"way": point.way, "numbers": point.numbers, "bytes": point.state_bytes}
        | dict(zip(("extra", "low", "high"), map(float, _numbers(point)), strict=True))
        for point in points
    ]
    bytes_axis = alt.X(
        "bytes:Q", title="Bytes of state a sequence", scale=alt.Scale(type="log", nice=False, padding=20)
    )
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=bytes_axis, color=alt.Color("way:N", title=None, scale=alt.Scale(range=list(PALETTE)))
    )
    intervals = base.mark_rule().encode(y=alt.Y("low:Q", title="Extra bits a byte"), y2="high:Q")
    marks = base.mark_point(filled=True, size=60).encode(
        y="extra:Q", shape=alt.Shape("numbers:N", title=None), tooltip=["way:N", "numbers:N", "bytes:Q", "extra:Q"]
    )
    return alt.vconcat(alt.layer(intervals, marks).properties(width=560, height=340))


def _numbers(point: Point) -> tuple[str, ...]:
    return tuple(f"{number:.4f}" for number in (point.difference.value, point.difference.low, point.difference.high))


def _by_bytes(points: Sequence[Point]) -> list[Point]:
    return sorted(points, key=lambda point: (point.state_bytes, point.difference.value))


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = ""
    for first, *rest in rows:
        cells = "".join(f'<td class="number">{escape(cell)}</td>' for cell in rest)
        body += f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
