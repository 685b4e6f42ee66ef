"""Each engine against the definition: ratios, errors, memory, and how its cost grows with the length."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from statesize.benchmarks.accuracy import Accuracy, accuracy, definition
from statesize.benchmarks.cases import Case, ask, cases
from statesize.benchmarks.growth import exponents
from statesize.benchmarks.machine import document
from statesize.benchmarks.memory import peak_bytes
from statesize.benchmarks.timing import dense_seconds, midpoints, seconds
from statesize.spectra.engine import Output

_LENGTH, _QUICK_LENGTH = 2048, 256
_ROUNDS = 3
_TIMED = 1e-3  # τ/σ_1 of the counts that are timed
_DENSE_POSITIONS = 8
# Beyond this length T is not formed: no dense loop, and errors only at early positions, whose blocks are narrow.
_LONGEST_DENSE = 4096
_EARLY = [32, 256, 512]
_WARM_LENGTH = 128


@dataclass(frozen=True, kw_only=True)
class Row(Accuracy):
    """What one engine did with one case; how right it was is told of the checked positions of one unit."""

    case: str
    engine: str
    output: str  # "counts", "entropy" or "values"
    length: int  # L
    units: int  # batch entries: heads or channels
    # seconds of the dense loop for all units over `seconds`, median of the rounds; None where no dense loop was run
    ratio: float | None
    dense_positions: int  # at how many positions of one unit the dense loop was timed, then scaled to all; 0 for none
    seconds: float  # of one measurement at all positions of all units, set-up included, median
    microseconds_per_spectrum: float  # the same for one position of one unit
    peak_bytes: int  # of the operator and the measurement, above what the process held before


def benchmark(
    length: int | None = None,
    quick: bool = False,
    on_row: Callable[[Row], object] = lambda _: None,
    on_growth: Callable[[str, float], object] = lambda engine, slope: None,
) -> dict[str, Any]:
    """Time all cases with as many threads as torch is set to; the JSON document of rows, exponents and the machine."""
    base, rounds = length or (_QUICK_LENGTH if quick else _LENGTH), 1 if quick else _ROUNDS
    rows: list[Row] = []
    for case in cases(quick):
        for row in compare(case, base * case.lengths, rounds):
            rows.append(row)
            on_row(row)
    return document([asdict(row) for row in rows], exponents=exponents(quick, on_growth))


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
            taken[output].append(seconds(partial(ask, operator, case, output, tau)))
    peaks = peak_bytes(
        partial(case.make, length),
        [partial(ask, case=case, output=output, tolerances=tau) for output in case.outputs],
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
        ask(case.make(_WARM_LENGTH), case, output, tolerances)
