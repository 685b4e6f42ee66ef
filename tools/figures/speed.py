"""The figures of the page about performance: what work on a model costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.figures.on_record import table

# Parameters and query heads of models whose costs are computed.
_LARGER = {
    "SmolLM2-135M": (134.5e6, 30 * 9),
    "Llama 3.2 1B": (1.236e9, 16 * 32),
    "Llama 3 8B": (8.030e9, 32 * 32),
}
_RUNS = 4
"""Forward passes of a profile itself; the rest of its time is that of its heads."""


def speed(document: Mapping[str, Any]) -> dict[str, str]:
    """What work on a model costs in forward passes of the same process, and what it would cost larger ones."""
    rows = [
        (
            *(row["work"], f"{row['length']:,}", _digits(row["units"])),
            *(f"{_digits(row['seconds'])} s", f"{row['peak_bytes'] / 1e6:,.0f} MB"),
        )
        for row in document["rows"]
    ]
    shown = [row for row in document["rows"] if row["work"].startswith(("profile", "truncate", "cache"))]
    costs = [row for row in shown if row["length"] != 256 or row["work"] == "profile"]
    head = [f"{row['work']}, {row['length']:,}" for row in costs]
    return {
        "model": table(("work", "tokens", "forward passes", "time", "memory"), rows),
        "larger": table(
            ("model", *head), [(name, *(_cost(row, *size) for row in costs)) for name, size in _LARGER.items()]
        ),
        "machine": f"{document['model']['file']}, {document['machine']}, one thread",
    }


def _cost(row: Mapping[str, Any], parameters: float, heads: int) -> str:
    """Minutes of work on a model of so many parameters and heads, from those of the first."""
    own, own_heads = next(iter(_LARGER.values()))
    # Whatever is not a profile is runs of the model for the most part.
    runs = min(_RUNS, row["units"]) if row["work"].startswith("profile") else row["units"]
    unit = row["seconds"] / row["units"]
    seconds = runs * unit * parameters / own + (row["units"] - runs) * unit * heads / own_heads
    return f"{_digits(seconds / 60)} min"


def _digits(number: float) -> str:
    """A number to two digits."""
    return f"{float(f'{number:.2g}'):,g}"
