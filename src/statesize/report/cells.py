"""Numbers as a page's tables write them."""

from __future__ import annotations


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
