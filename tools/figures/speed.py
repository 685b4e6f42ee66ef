"""The figures of the page about performance: engines against the definition, defaults, long sequences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools.figures.on_record import table

_OUTPUTS = ("counts", "entropy", "values")


def engines(document: Mapping[str, Any]) -> dict[str, str]:
    """The engines against the definition: times, errors and how times grow."""
    rows, versions = document["rows"], document["made"]["versions"]
    cases = dict.fromkeys((row["case"], row["engine"], row["length"], row["units"]) for row in rows)
    times = [
        (case, str(units), f"{length:,}", f"`{engine}`", *_times(rows, (case, engine, length, units)))
        for case, engine, length, units in cases
    ]
    errors = [(f"`{engine}`", *_errors(found)) for engine, found in _by_engine(rows).items()]
    return {
        "machine": f"{document['machine']}; torch {versions['torch']}, numba {versions['numba']}, Python "
        f"{versions['python']}",
        "threads": f"{document['threads']} thread" + "s" * (document["threads"] > 1),
        "clock": document["clock"],
        "times": table(("case", "heads or channels", "L", "engine", "counts", "entropy", "all σ"), times),
        "errors": table(("engine", "outside its bound", "entropy within", "σ / σ₁ within", "peak memory"), errors),
        "exponents": table(
            ("engine", "exponent"),
            [(f"`{engine}`", f"{slope:.2f}") for engine, slope in document["exponents"].items()],
        ),
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


def defaults(document: Mapping[str, Any]) -> dict[str, str]:
    """What `measure` takes without an option."""
    rows = [
        (
            row["case"],
            f"{row['length']:,}",
            f"`{row['engine']}`",
            f"{_digits(row['loop_seconds'])} s",
            f"{_digits(row['seconds'])} s",
            f"{_digits(row['ratio'])} ×",
            f"{_digits(row['exact_seconds'])} s",
        )
        for row in document["rows"]
    ]
    return {"table": table(("case", "L", "engine", "loop", "default", "ratio", "exact counts"), rows)}


def long(document: Mapping[str, Any]) -> dict[str, str]:
    """What a few positions of very long sequences take."""
    rows = [
        (
            row["case"].split(",")[0],
            f"{row['length']:,}",
            str(row["positions"]),
            f"`{row['engine']}`",
            f"{_digits(row['seconds'])} s",
            f"{row['peak_bytes'] / 2**20:,.0f} MiB",
            f"{row['entropy_accuracy']:.1%}",
            f"{_digits(row['count_bounds'])} ×",
        )
        for row in document["rows"]
    ]
    heads = ("case", "L", "positions", "engine", "time", "memory", "entropy within", "counts within")
    return {"table": table(heads, rows)}


def whole_models(document: Mapping[str, Any]) -> dict[str, str]:
    """What profiles of whole published models take, and on what."""
    stages = list(document["rows"][0]["stages"])
    rows = [
        (
            f"{row['tokens']:,}",
            str(row["tolerances"]),
            f"{_digits(row['wall'])} s",
            f"{_digits(row['seconds'])} s",
            *(f"{_digits(row['stages'][stage])} s" for stage in stages),
            f"{row['peak_bytes'] / 1e6:,.0f} MB",
        )
        for row in document["rows"]
    ]
    return {"table": table(("tokens", "tolerances", "by the clock", "in all", *stages, "peak memory"), rows)}


def plans(document: Mapping[str, Any]) -> dict[str, str]:
    """How far plans of published models were off, and what they took."""
    took = [row["plan"] for row in document["rows"]]
    off = _off((row["predicted"], row["profile"]) for row in document["rows"])
    return {"off": off, "took": f"{min(took):.0f} to {max(took):.0f} s"}


def language_models(document: Mapping[str, Any]) -> dict[str, str]:
    """What one sequence of published shapes would take, from two layers of each."""
    rows = [
        (
            row["model"],
            f"{row['parameters'] / 1e9:.2f} B",
            row["kind"],
            f"{row['measured']} of {row['units']}",
            f"{row['seconds']:.0f}",
            f"{row['memory'] / 1e9:.1f} GB",
            f"{row['results'] / 1e6:.0f} MB",
        )
        for row in document["rows"]
    ]
    head = ("model", "parameters", "kind", "measured (`--channels`)", "seconds", "memory", "results")
    off = _off((row["plan_seconds"], row["run_seconds"]) for row in document["rows"])
    return {"table": table(head, rows), "plan": off}


def _off(predicted_and_taken: Iterable[tuple[float, float]]) -> str:
    """How far predictions were off, from the least to the most."""
    off = [predicted / taken - 1 for predicted, taken in predicted_and_taken]
    return f"{min(off):+.0%} to {max(off):+.0%}"
