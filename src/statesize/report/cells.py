"""Numbers as a page's tables write them."""

from __future__ import annotations

import math
from html import escape


def figure_text(value: float) -> str:
    """A number of at least 0 with about three digits.

    Args:
        value: The number.

    Returns:
        Text.

    Example:
        >>> figure_text(0.0012), figure_text(3.14159), figure_text(12345.6)
        ('1.2e-03', '3.14', '12,346')
    """
    if 0 < value < 0.01:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def share_cell(value: float) -> str:
    """A cell of a table with a share and a bar of its length.

    Args:
        value: The share; the bar ends at 0 and 1.

    Returns:
        HTML.
    """
    return (
        f'<td class="number share" data-value="{value:.6g}"><span>{value:.0%}</span>'
        f'<i aria-hidden="true"><b style="width:{min(max(value, 0), 1):.1%}"></b></i></td>'
    )


def number_cell(value: float, shown: str) -> str:
    """A cell of a table with a number, which it also carries unrounded for sorting and for the CSV.

    Args:
        value: The number; one that is not finite is shown as a dash.
        shown: What is read.

    Returns:
        HTML.
    """
    if not math.isfinite(value):
        return '<td class="number" data-value="">–</td>'
    return f'<td class="number" data-value="{value:.6g}">{shown}</td>'


def heading_cell(name: str, heading: str, number: bool) -> str:
    """The head of a table's column.

    Args:
        name: Of the column in the CSV.
        heading: What is read.
        number: Whether its cells are numbers.

    Returns:
        HTML.
    """
    return f'<th scope="col"{" class=number" if number else ""} data-name="{escape(name)}">{escape(heading)}</th>'
