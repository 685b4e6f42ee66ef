"""A study as one self-contained HTML file: its conclusion, its charts and its figures."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from statesize.files import replace_file
from statesize.studies.conclusion import Conclusion, Figure

if TYPE_CHECKING:
    import altair as alt

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;"
    "background:#fff}h1{font-size:1.5rem}table{border-collapse:collapse;font-size:.9rem}"
    "td,th{padding:.15rem .8rem .15rem 0;text-align:left}td+td{text-align:right;font-variant-numeric:tabular-nums}"
)


def write_page(conclusion: Conclusion, charts: alt.VConcatChart, path: Path) -> Path:
    """Writes the page; a place that cannot be written is a FileError.

    Args:
        conclusion: What the study says.
        charts: Its charts.
        path: The file; replaced if it exists.

    Returns:
        The file.
    """
    title = f"Study: {conclusion.study}"
    figures = "".join(
        f"<tr><td>{escape(name)}</td><td>{_shown(figure)}</td></tr>" for name, figure in conclusion.figures.items()
    )
    # The libraries are inlined, so that the file needs nothing from outside.
    drawn: str = charts.to_html(inline=True, fullhtml=False)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>'
        f"<p><strong>{escape(conclusion.verdict)}</strong></p>{drawn}<h2>Found</h2>{_list(conclusion.statements)}"
        f"<h2>Caveats</h2>{_list(conclusion.caveats)}<h2>Figures</h2><table>{figures}</table></body></html>\n"
    )
    replace_file(path, page.encode())
    return path


def _list(lines: tuple[str, ...]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _shown(figure: Figure) -> str:
    return f"[{figure[0]:.3g}, {figure[1]:.3g}]" if isinstance(figure, tuple) else f"{figure:.3g}"
