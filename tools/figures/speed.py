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
    known = {(row["work"], row["length"]): row for row in document["rows"]}
    work = [*((known["profile", min(tokens, 1024)], tokens) for tokens in (256, 1024, 2048, 4096, 8192))]
    work += [(known[name, 512], 512) for name in ("truncate, one document", "cache")]
    head = [f"{row['work']}, {tokens:,}" for row, tokens in work]
    larger = [(name, *(_cost(row, tokens, *size) for row, tokens in work)) for name, size in _LARGER.items()]
    return {
        "model": table(("work", "tokens", "forward passes", "time", "memory"), rows),
        "larger": table(("model", *head), larger),
        "machine": f"{document['model']['file']}, {document['machine']}, one thread",
    }


def _cost(row: Mapping[str, Any], tokens: int, parameters: float, heads: int) -> str:
    """Minutes or hours of work on a text for a model of so many parameters and heads, from work on the first."""
    own, own_heads = next(iter(_LARGER.values()))
    # Whatever is not a profile is runs of the model for the most part.
    runs = min(_RUNS, row["units"]) if row["work"] == "profile" else row["units"]
    unit, longer = row["seconds"] / row["units"], tokens / row["length"]
    ran, measured = runs * longer * parameters / own, (row["units"] - runs) * longer**3 * heads / own_heads
    minutes = unit * (ran + measured) / 60
    return f"{_digits(minutes)} min" if minutes < 100 else f"{_digits(minutes / 60)} h"


def _digits(number: float) -> str:
    """A number to two digits."""
    return f"{float(f'{number:.2g}'):,g}"
