"""Engines against the definition: seconds, accuracy, and how both grow with the length."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from statesize.benchmarks.cases import (
    Case,
    attention,
    cases,
    dense_seconds,
    document,
    gated,
    measured,
    midpoints,
    modal_convolution,
    peak_bytes,
    seconds,
    selective,
    smooth_attention,
)
from statesize.measurement.measurement import measure
from statesize.operators import Convolution, Dense, Operator, Recurrence, SoftmaxAttention
from statesize.spectra.choice import ENGINES
from statesize.spectra.cut import make_cut
from statesize.spectra.engine import EngineName, Output
from statesize.spectra.factorisation import singular_values
from statesize.spectra.spectrum import effective_rank

# Of the definition itself, in units of σ_1; for entropies relative.
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
_LONGEST = {"dense": 2048, "tridiagonal": 2048}
_OPERATORS: dict[str, Callable[[int], Operator]] = {
    "dense": partial(attention, width=64),
    "square_root": partial(gated, states=32),
    "small_state": partial(selective, states=16, channels=16),
    "chunked": partial(gated, states=64),
    "streaming": partial(smooth_attention, width=64),
    "tridiagonal": partial(attention, width=64),
    "convolution": partial(modal_convolution, modes=32),
}
_ROUNDS = 3
_LONG = 2.0  # seconds from which a call is not repeated


def exponents(quick: bool, on_engine: Callable[[str, float], object] = lambda engine, slope: None) -> dict[str, float]:
    """Slopes of ln seconds over ln L, for counts at one tolerance at all positions."""
    # Lengths are 512 … 16384; 2048 at most for engines that hold T. `dense` is timed at evenly spread positions and
    # scaled. `implicit` is for a few positions of long contexts.
    slopes: dict[str, float] = {}
    for engine, make in _OPERATORS.items():
        slopes[engine] = _exponent(engine, make, quick)
        on_engine(engine, slopes[engine])
    return slopes


def _exponent(engine: str, make: Callable[[int], Operator], quick: bool) -> float:
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
    return seconds(lambda: measure(operator, (1e-3,), (), outputs=("counts",), engine=cast("EngineName", engine)))


_LENGTH, _QUICK_LENGTH = 2048, 256
_ROUNDS_engines = 3
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


def benchmark(
    length: int | None = None,
    quick: bool = False,
    on_row: Callable[[Row], object] = lambda _: None,
    on_growth: Callable[[str, float], object] = lambda engine, slope: None,
) -> dict[str, Any]:
    """Time all cases with as many threads as torch is set to; the JSON document of rows, exponents and the machine."""
    base, rounds = length or (_QUICK_LENGTH if quick else _LENGTH), 1 if quick else _ROUNDS_engines
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


_LENGTH, _STATES = 48, 6
# Of the definition itself, in units of σ_1.
_EXACT = 1e-12


def self_check(on_progress: Callable[[int, int, str], object] | None = None) -> list[dict[str, Any]]:
    """Counts and entropies of each engine on each kind of operator that it takes."""
    rows: list[dict[str, Any]] = []
    cut = make_cut(_LENGTH)
    operators = _operators()
    exact = {kind: definition(operator, list(cut.positions)) for kind, operator in operators.items()}
    pairs = [
        (kind, name)
        for kind, operator in operators.items()
        for name, engine in ENGINES.items()
        if engine.unsupported_reason(operator, cut, ("counts", "entropy")) is None
    ]
    for kind, name in pairs:
        answers, right = _compared(operators[kind], name, exact[kind])
        rows.append({"operator": kind, "engine": name, "checked": answers, "right": right})
        if on_progress is not None:
            on_progress(len(rows), len(pairs), f"{name} on a {kind}")
    return rows


def _operators() -> dict[str, Operator]:
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    key, query, decay = normal(_LENGTH, _STATES), normal(_LENGTH, _STATES), normal(_LENGTH, _STATES).add(2).sigmoid()
    unit = torch.nn.functional.normalize(key, dim=-1)
    return {
        "matrix": Dense(normal(_LENGTH, _LENGTH).tril()),
        "recurrence": Recurrence(decay, key, query),
        "delta rule": Recurrence.delta_rule(unit, normal(_LENGTH).sigmoid(), query, decay),
        "convolution": Convolution(normal(_LENGTH) * 0.9 ** torch.arange(_LENGTH), _LENGTH),
        "softmax attention": SoftmaxAttention(query, key, _STATES**-0.5),
    }


def _compared(operator: Operator, engine: str, exact: Tensor) -> tuple[int, bool]:
    tau = 1e-2 * float(exact.max())
    measured = measure(operator, (tau,), (), engine=cast("EngineName", engine))
    slack = measured.error_bound + _EXACT * exact[:, 0]
    lower, upper = (cast("Tensor", part).squeeze(-1) for part in (measured.lower, measured.upper))
    most = (exact > (tau - slack)[:, None]).sum(-1)
    least = (exact > (tau + slack)[:, None]).sum(-1)
    ess = effective_rank(exact)
    off = (cast("Tensor", measured.entropy) - ess).abs() > cast("Tensor", measured.entropy_bound) + 1e-9 * ess
    right = bool(((lower <= most) & (least <= upper) & ~off).all())
    return 2 * len(ess), right
