"""`measure(operator)` as everybody types it, against the definition: `python -m benchmarks.defaults [--output FILE]`.

All positions, absolute and relative counts, entropies, certificates, in this process on one thread, which counts its
processor time. The loop of `torch.linalg.svdvals` is timed at eight positions and scaled, in rounds that take turns
with the engine. At these positions every bound is compared with the exact count; exits with 1 if one lies outside.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import statesize as ss
from benchmarks.cases import attention, dense_seconds, document, gated, midpoints, seconds, smooth_attention
from statesize.io.files import replace_file

CASES: tuple[tuple[str, Callable[[int], ss.Operator], int], ...] = (
    *(("softmax d=64, full rank", partial(attention, width=64), length) for length in (256, 512, 1024, 2048)),
    ("softmax d=64, decaying", partial(smooth_attention, width=64), 2048),
    ("gated n=64", partial(gated, states=64), 1536),
)


def outside(operator: ss.Operator, found: ss.Measurement, positions: list[int]) -> tuple[int, int]:
    """How many bounds of counts were compared at some positions, and how many do not hold the exact count."""
    exact = ss.measure(operator, positions=positions, engine="dense")
    at = exact.positions - 1
    low = torch.cat([cast("Tensor", part)[at] for part in (found.lower, found.relative_lower)], -1)
    high = torch.cat([cast("Tensor", part)[at] for part in (found.upper, found.relative_upper)], -1)
    count = torch.cat([cast("Tensor", part) for part in (exact.count, exact.relative_count)], -1)
    return 2 * count.numel(), int(((low > count) | (count > high)).sum())


def compare(name: str, make: Callable[[int], ss.Operator], length: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    operator = make(length)
    matrix, positions = operator.dense(), midpoints(length, 8)
    found = ss.measure(operator, count_accuracy=0.02)
    calls = partial(ss.measure, operator, count_accuracy=0.02), partial(ss.measure, operator, count_accuracy=0)
    taken = [(dense_seconds(matrix, positions), *map(seconds, calls)) for _ in range(rounds)]
    bounds, wrong = outside(operator, found, positions)
    loop, default, exact = (statistics.median(column) for column in zip(*taken, strict=True))
    return {
        "case": name, "length": length, "engine": found.engine, "loop_seconds": loop, "seconds": default,
        "exact_seconds": exact, "ratio": statistics.median(row[0] / row[1] for row in taken), "bounds": bounds,
        "wrong": wrong,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; 1 where a bound is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=int, default=2048)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, make, length in CASES:
        if length <= given.longest:
            rows.append(compare(name, make, length, given.rounds))
            print(
                "{case:24} L={length:<5} {engine:24} loop {loop_seconds:8.3g} s, default {seconds:7.3g} s, exact "
                "counts {exact_seconds:7.3g} s: {ratio:6.0f}x; {wrong} of {bounds} bounds wrong".format(**rows[-1])
            )
    if given.output is not None:
        replace_file(given.output, (json.dumps(document(rows), indent=1) + "\n").encode())
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
