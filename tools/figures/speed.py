"""The figures of the pages about performance: what work costs, and engines against the definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.figures.on_record import table

_OUTPUTS = ("counts", "entropy", "values")


def engines(document: Mapping[str, Any]) -> dict[str, str]:
    """The engines against the definition: times, errors and how times grow."""
    rows, versions = document["rows"], document["made"]["versions"]
    cases = dict.fromkeys((row["case"], row["engine"], row["length"], row["units"]) for row in rows)
    times = [
        (case, f"{length:,}", f"`{engine}`", *_times(rows, (case, engine, length, units)))
        for case, engine, length, units in cases
    ]
    slopes = {engine: f"{slope:.2f}" for engine, slope in document["exponents"].items()}
    errors = [(f"`{engine}`", *_errors(found), slopes[engine]) for engine, found in _by_engine(rows).items()]
    return {
        "machine": f"{document['machine']}; torch {versions['torch']}, numba {versions['numba']}, Python "
        f"{versions['python']}",
        "threads": f"{document['threads']} thread" + "s" * (document["threads"] > 1),
        "clock": document["clock"],
        "times": table(("case", "L", "engine", "counts", "entropy", "all σ"), times),
        "errors": table(
            ("engine", "outside its bound", "entropy within", "σ / σ₁ within", "peak memory", "exponent"), errors
        ),
        "dense": slopes["dense"],
    }


def _by_engine(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["engine"], []).append(row)
    return found


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


def _times(rows: Sequence[Mapping[str, Any]], case: tuple[str, str, int, int]) -> list[str]:
    """The ratio to the definition, and the seconds, of each output of a case."""
    found = {row["output"]: row for row in rows if (row["case"], row["engine"], row["length"], row["units"]) == case}
    return [_time(found[output]) if output in found else "" for output in _OUTPUTS]


def _time(row: Mapping[str, Any]) -> str:
    ratio = "" if row["ratio"] is None else f"{_digits(row['ratio'])} ×, "
    return f"{ratio}{_digits(row['seconds'])} s"


def _digits(number: float) -> str:
    """A number to two digits."""
    return f"{float(f'{number:.2g}'):,g}"


def speed(document: Mapping[str, Any]) -> dict[str, str]:
    """What work costs in units of the same process: products of matrices, and forward passes."""
    operators = [
        (
            row["work"],
            f"{row['length']:,}",
            "all" if row["positions"] is None else str(row["positions"]),
            f"`{row['engine']}`",
            _digits(row["units"]),
            "" if row["loop"] is None else _digits(row["loop"]),
            *_cost(row),
            f"{row['entropy_accuracy']:.1%}",
            f"{_digits(row['count_bounds'])} ×",
        )
        for row in document["rows"]
        if row["unit"] == "product"
    ]
    model = [
        (
            row["work"],
            f"{row['length']:,}",
            _digits(row["units"]),
            *_cost(row),
        )
        for row in document["rows"]
        if row["unit"] == "pass"
    ]
    heads = ("operator", "L", "positions", "engine", "products", "the loop", "time", "memory")
    return {
        "operators": table((*heads, "entropy within", "counts within"), operators),
        "model": table(("work", "tokens", "forward passes", "time", "memory"), model),
        "machine": f"{document['model']['file']}, {document['machine']}, one thread",
    }


def _cost(row: Mapping[str, Any]) -> tuple[str, str]:
    return f"{_digits(row['seconds'])} s", f"{row['peak_bytes'] / 1e6:,.0f} MB"
