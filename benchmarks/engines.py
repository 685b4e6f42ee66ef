"""Engines against the definition: `python -m benchmarks.engines [--length 2048] [--quick] [--output FILE]`.

Seconds, accuracy, memory, and how time grows with the length. A ratio is the time of the loop of
`torch.linalg.svdvals` over that of the engine, set-up included: medians of three rounds in this process. The loop is
timed at 8 evenly spread positions and scaled to all; errors are those at these positions. With one thread, processor
time is measured, so that a busy machine does not disturb it. `--quick` takes less than a minute, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from benchmarks.cases import (
    Case,
    attention,
    cases,
    dense_seconds,
    document,
    measured,
    midpoints,
    peak_bytes,
    seconds,
    selective,
)
from statesize.io.files import replace_file
from statesize.measurement.measurement import measure
from statesize.operators import Operator
from statesize.spectra.engine import EngineName, Output
from statesize.spectra.factorisation import singular_values
from statesize.spectra.spectrum import effective_rank

# The error of the definition itself, in units of σ_1; for entropies relative.
_EXACT = 1e-12


@dataclass(frozen=True)
class Accuracy:
    """Answers of an engine against the definition."""

    error: float  # the largest: of entropies relative, of values in units of σ_1, of counts the difference
    miscounts: int  # counts that differ; entropies and values that are farther off than the engine's own bound
    checked: int  # answers that were compared


def definition(operator: Operator, positions: list[int]) -> Tensor:
    """Singular values of H_i at P positions, decomposed one by one, (P, r), descending, zero-padded."""
    columns = operator.columns(0, max(positions))
    spectra = [singular_values(columns[i:, :i]) for i in positions]
    r = max(sigma.shape[-1] for sigma in spectra)
    return torch.stack([torch.nn.functional.pad(sigma, (0, r - sigma.shape[-1])) for sigma in spectra])


def accuracy(case: Case, operator: Operator, output: Output, positions: list[int], exact: Tensor) -> Accuracy:
    """How right one output of a case's engine is."""
    top = exact[:, 0]
    tau = [ratio * float(top.max()) for ratio in case.ratios]
    one = measured(operator, case, output, tau)
    at = [i - 1 for i in positions]
    if one.count is not None and output == "counts":
        expected = (exact[:, None, :] > exact.new_tensor(tau)[:, None]).sum(-1)
        off = (one.count[at] - expected).abs()
        return Accuracy(float(off.max()), int((off > 0).sum()), off.numel())
    if one.entropy is not None and one.entropy_bound is not None:
        ess = effective_rank(exact)
        off = (one.entropy[at] - ess).abs()
        return Accuracy(float((off / ess).max()), int((off > one.entropy_bound[at] + _EXACT * ess).sum()), off.numel())
    values = cast("Tensor", one.values)[at]
    r = max(values.shape[-1], exact.shape[-1])
    sigma, reference = (torch.nn.functional.pad(part, (0, r - part.shape[-1])) for part in (values, exact))
    off = (sigma - reference).abs().amax(-1)
    return Accuracy(float((off / top).max()), int((off > one.error_bound[at] + _EXACT * top).sum()), off.numel())


_LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
_QUICK_LENGTHS = (64, 128, 256)
# The longest of the engines that hold T, and of the definition.
_LONGEST = {"dense": 2048, "exact": 2048, "all_cuts": 2048}
_OPERATORS: dict[str, Callable[[int], Operator]] = {
    "dense": partial(attention, width=64),
    "exact": partial(attention, width=64),
    "all_cuts": partial(attention, width=64),
    "small_state": partial(selective, states=16, channels=16),
}
_ROUNDS = 3
_LONG = 2.0  # seconds from which a call is not repeated


def exponent(engine: str, make: Callable[[int], Operator], quick: bool) -> float:
    """The slope of ln seconds over ln L, for counts at one tolerance at all positions."""
    # Lengths are 512 … 16384; 2048 at most for engines that hold T. `dense` is timed at evenly spread positions and
    # scaled. `implicit` is for a few positions of long contexts.
    lengths = [length for length in (_QUICK_LENGTHS if quick else _LENGTHS) if length <= _LONGEST.get(engine, length)]
    _seconds(engine, make(lengths[0]))
    points: list[tuple[float, float]] = []
    for length in lengths:
        operator = make(length)
        taken = [_seconds(engine, operator)]
        while not quick and len(taken) < _ROUNDS and taken[0] < _LONG:
            taken.append(_seconds(engine, operator))
        points.append((math.log(length), math.log(statistics.median(taken))))
    x, y = (list(column) for column in zip(*points, strict=True))
    return statistics.linear_regression(x, y).slope


def _seconds(engine: str, operator: Operator) -> float:
    if engine == "dense":
        return dense_seconds(operator.dense(), midpoints(operator.length, 8))
    if engine == "exact":
        positions = midpoints(operator.length, 8)
        return seconds(lambda: measure(operator, (1e-3,), (), ("counts",), positions, engine="exact"))
    return seconds(lambda: measure(operator, (1e-3,), (), outputs=("counts",), engine=cast("EngineName", engine)))


_LENGTH, _QUICK_LENGTH = 2048, 256
_BENCHMARK_ROUNDS = 3
_TIMED = 1e-3  # τ/σ_1 of the counts that are timed
_DENSE_POSITIONS = 8
# Beyond this length T is not formed: no dense loop, and errors only at early positions, whose blocks are narrow.
_LONGEST_DENSE = 4096
_EARLY = [32, 256, 512]
_WARM_LENGTH = 128


@dataclass(frozen=True, kw_only=True)
class Row(Accuracy):
    """What one engine did with one case; its errors are those at the checked positions of one unit.

    Attributes:
        output: "counts", "entropy" or "values".
        length: L.
        units: Batch entries: heads or channels.
        ratio: seconds of the dense loop for all units over `seconds`, median of the rounds; None where no dense loop
            was run.
        dense_positions: At how many positions of one unit the dense loop was timed, then scaled to all; 0 for none.
        seconds: Median seconds of one measurement at all positions of all units, set-up included.
        microseconds_per_spectrum: The same for one position of one unit.
        peak_bytes: Bytes of the operator and the measurement, above what the process held before.
    """

    case: str
    engine: str
    output: str
    length: int
    units: int
    ratio: float | None
    dense_positions: int
    seconds: float
    microseconds_per_spectrum: float
    peak_bytes: int


def compare(case: Case, length: int, rounds: int) -> Iterable[Row]:
    """The rows of a case: the dense loop and each output in turn, as often as there are rounds."""
    operator = case.make(length)
    units = operator.batch_shape.numel()
    first = operator[(0,) * len(operator.batch_shape)]
    matrix = first.dense() if length <= _LONGEST_DENSE else None
    positions = _EARLY if matrix is None else midpoints(length, _DENSE_POSITIONS)
    exact = definition(first, positions)
    tau = [_TIMED * float(exact.amax())]
    taken: dict[Output, list[float]] = {output: [] for output in case.outputs}
    dense: list[float] = []
    warm(case, tau)
    for _ in range(rounds):
        if matrix is not None:
            dense.append(units * dense_seconds(matrix, positions))
        for output in case.outputs:
            taken[output].append(seconds(partial(measured, operator, case, output, tau)))
    peaks = peak_bytes(
        partial(case.make, length),
        [partial(measured, case=case, output=output, tolerances=tau) for output in case.outputs],
        partial(warm, case, tau),
        torch.get_num_threads(),
    )
    for (output, times), peak in zip(taken.items(), peaks, strict=True):
        yield Row(
            case=case.name,
            engine=case.engine,
            output=output,
            length=length,
            units=units,
            ratio=statistics.median(d / t for d, t in zip(dense, times, strict=True)) if dense else None,
            dense_positions=0 if matrix is None else len(positions),
            seconds=statistics.median(times),
            microseconds_per_spectrum=1e6 * statistics.median(times) / units / (length - 1),
            peak_bytes=peak,
            **vars(accuracy(case, first, output, positions, exact)),
        )


def warm(case: Case, tolerances: list[float]) -> None:
    """Does once what a process does once: compiles kernels, fits rules, makes the libraries' buffers."""
    for output in case.outputs:
        measured(case.make(_WARM_LENGTH), case, output, tolerances)


def main() -> None:
    """Run the benchmark, print a line for each row, and write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    base, rounds = given.length or (_QUICK_LENGTH if given.quick else _LENGTH), 1 if given.quick else _BENCHMARK_ROUNDS
    rows: list[Row] = []
    for case in cases(given.quick):
        for row in compare(case, base * case.lengths, rounds):
            rows.append(row)
            print(row)
    slopes = {engine: exponent(engine, make, given.quick) for engine, make in _OPERATORS.items()}
    print(slopes)
    if given.output is not None:
        found = document([asdict(row) for row in rows], exponents=slopes)
        replace_file(given.output, (json.dumps(found, ensure_ascii=False, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
