"""The figures of the page about performance: what work on a model costs, and engines against the definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.figures.on_record import table


def engines(document: Mapping[str, Any]) -> dict[str, str]:
    """The engines against the definition: errors, memory and how times grow."""
    rows, versions = document["rows"], document["made"]["versions"]
    slopes = {engine: f"{slope:.2f}" for engine, slope in document["exponents"].items()}
    errors = [
        (f"`{engine}`", *_errors([row for row in rows if row["engine"] == engine]), slopes[engine])
        for engine in dict.fromkeys(row["engine"] for row in rows)
    ]
    head = ("engine", "outside its bound", "entropy within", "σ / σ₁ within", "peak memory", "exponent")
    return {
        "machine": f"{document['machine']}; torch {versions['torch']}, numba {versions['numba']}, Python "
        f"{versions['python']}",
        "errors": table(head, errors),
        "dense": slopes["dense"],
    }


def _errors(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Answers outside their bounds, the largest errors and the most memory of the cases of one engine."""
    largest = [
        max((row["error"] for row in rows if row["output"] == output), default=None) for output in ("entropy", "values")
    ]
    return (
        f"{sum(row['miscounts'] for row in rows)} of {sum(row['checked'] for row in rows)}",
        *("" if error is None else f"{error:.0e}" for error in largest),
        f"{max(row['peak_bytes'] for row in rows) / 2**20:,.0f} MiB",
    )


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
