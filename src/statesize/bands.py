"""Bounds on counts at all positions, from counts at some."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from statesize.check import require_finite
from statesize.errors import InputError
from statesize.measurement.measurement import Measurement, accepted_operator
from statesize.measurement.metrics import ceiling
from statesize.operators import Operator
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.dispatch import in_double, require_one_port
from statesize.spectra.exact.dense import block_spectrum


@dataclass(frozen=True, eq=False)
class CountBands:
    """The result of `count_bands`: certified bounds on the tolerance-ESS at every position.

    Attributes:
        positions: Cut positions i, (P,) int64: all of 1 … L − 1, or all at which the windows fit.
        tolerances: τ, (K,), in units of σ.
        lower: The smallest possible #{σ > τ}, (..., P, K) int64.
        upper: The largest, (..., P, K) int64.
    """

    positions: Tensor
    tolerances: Tensor
    lower: Tensor
    upper: Tensor


def count_bands(operator: Operator, measurement: Measurement, shared: bool = False) -> CountBands:
    """Between which numbers the tolerance-ESS lies at the positions that were not measured.

    Let ν be the number of singular values above an absolute tolerance. A matrix without one of its rows or columns has
    the same ν or 1 less (Horn and Johnson, Topics in Matrix Analysis, corollary 3.1.3). From one position to the next
    H_i loses a row and gains a column, so |ν_i − ν_j| ≤ |i − j|; under `past` ν may fall by 2 a position, under
    `future` rise by 2. So the certified `lower` and `upper` of some positions bound all others, at no cost.

    With `shared`, two more blocks between any two neighbours i < k that were measured are decomposed. T[k:, :i] is a
    part of H_m for i ≤ m ≤ k and lacks k − i of its rows and columns, and H_m is a part of T[i:, :k]:

        ν(T[k:, :i]) ≤ ν_m ≤ min(ν(T[k:, :i]) + k − i, ν(T[i:, :k])).

    That helps where neighbours share much: where the state is full, or where T changes slowly. Counts at relative
    tolerances have no such bounds, as σ_1 changes from position to position.

    Args:
        operator: What was measured.
        measurement: Its counts at absolute tolerances, at some positions.
        shared: Also decompose what neighbouring blocks share and span; needs T itself.

    Returns:
        The bounds.

    Raises:
        InputError: A measurement without such counts, or of an operator of another shape.

    Example:
        >>> from statesize.measurement.measurement import measure
        >>> from statesize.operators import Recurrence
        >>> running_sum = Recurrence(A=torch.ones(8, 1), B=torch.ones(8, 1), C=torch.ones(8, 1))
        >>> bands = count_bands(running_sum, measure(running_sum, positions=[2, 6]))
        >>> bands.lower.squeeze(-1), bands.upper.squeeze(-1)
        (tensor([0, 1, 0, 0, 0, 1, 0]), tensor([1, 1, 1, 1, 1, 1, 1]))
    """
    exact = in_double(accepted_operator(operator))
    require_one_port(exact)
    least, most, tolerances = measurement.lower, measurement.upper, measurement.tolerances
    if least is None or most is None or not tolerances.numel():
        raise InputError(
            "measurement must hold counts at absolute tolerances, got none. Measure with outputs=('counts',)."
        )
    if least.shape[:-2] != exact.batch_shape:
        raise InputError(
            f"operator must have batch shape {tuple(least.shape[:-2])}, that of the measurement, got "
            f"{tuple(exact.batch_shape)}. Give the operator that was measured."
        )
    past, future = measurement.past, measurement.future
    every = make_cut(exact.length, None, past, future)
    measured = cast("list[int]", measurement.positions.tolist())
    some = make_cut(exact.length, sorted(set(measured)), past, future)
    at = torch.tensor(every.positions, dtype=torch.int64, device=exact.device)
    limit = ceiling(exact.state_size()[at], at, exact.length, past, future)
    upper = limit[:, None].expand(*exact.batch_shape, len(at), tolerances.numel()).clone()
    lower = torch.zeros_like(upper)
    if shared and some.positions:
        between = slice(some.positions[0] - every.positions[0], some.positions[-1] - every.positions[0] + 1)
        core, hull = shared_bounds(exact, some, tolerances)
        lower[..., between, :] = core
        upper[..., between, :] = torch.minimum(upper[..., between, :], hull)
    offset = measurement.positions - every.positions[0]
    lower[..., offset, :] = torch.maximum(lower[..., offset, :], least)
    upper[..., offset, :] = torch.minimum(upper[..., offset, :], most)
    return CountBands(at, tolerances, *spread_bounds(every, lower, upper))


def spread_bounds(cut: Cut, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (..., P, K) on ν_i = #{σ(H_i) > τ} at consecutive positions, each tightened by all others."""
    # Without one of its rows or columns, a matrix A has σ_{k+1}(A) ≤ σ_k ≤ σ_k(A) (Horn and Johnson, Topics in Matrix
    # Analysis, corollary 3.1.3), so its count at any absolute τ falls by 0 or 1. H_{i+1} is H_i without its first row
    # and with one more column, hence |ν_{i+1} − ν_i| ≤ 1. Under `past` it also lost its first column, hence −2 ≤
    # ν_{i+1} − ν_i ≤ 1; under `future` it also got one more row, hence −1 ≤ ν_{i+1} − ν_i ≤ 2.
    index = torch.arange(lower.shape[-2], device=lower.device)[:, None]
    rise = index * (1 if cut.future is None else 2)
    fall = index * (1 if cut.past is None else 2)
    lowest = torch.maximum(_highest(lower + fall) - fall, _highest((lower - rise).flip(-2)).flip(-2) + rise)
    highest = torch.minimum(rise - _highest(rise - upper), -_highest(-(upper + fall).flip(-2)).flip(-2) - fall)
    return lowest, highest


def _highest(bounds: Tensor) -> Tensor:
    """The largest up to each position."""
    return bounds.cummax(-2).values if bounds.shape[-2] else bounds


def shared_bounds(operator: Operator, cut: Cut, tolerances: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (..., M, K) at all positions between the first and last of a cut, from blocks that neighbours share."""
    # For i ≤ m ≤ k the core of rows and columns that H_i and H_k have in common, T[k:, :i], is a part of H_m, which is
    # a part of the hull T[i:, :k]. H_m has (m − i) + (k − m) rows and columns that the core lacks, so by interlacing
    # ν(core) ≤ ν_m ≤ min(ν(core) + k − i, ν(hull)). Under windows the core is T[k:i+h, k−w:i], the hull T[i:k+h,
    # i−w:k], and rows and columns are counted. No H_m has an entry on the diagonal of T, so the hull is taken with
    # zeros there and above. Positions ascend and differ; one T is held at a time.
    span = cut.positions[-1] - cut.positions[0] + 1 if cut.positions else 0
    lower = torch.zeros((*operator.batch_shape, span, tolerances.numel()), dtype=torch.int64, device=operator.device)
    upper = torch.full_like(lower, cut.length)
    for entry in itertools.product(*(range(size) for size in operator.batch_shape)):
        matrix = operator[entry].dense().detach()
        require_finite("T", matrix)
        for i, k in itertools.pairwise(cut.positions):
            core, hull = _core(matrix, cut, i, k), _hull(matrix, cut, i, k)
            least, most = _counts(core, tolerances)
            _, all_of_them = _counts(hull, tolerances)
            for m in range(i + 1, k):
                added = cut.rows(m) - core.shape[0] + cut.columns(m) - core.shape[1]
                lower[entry][m - cut.positions[0]] = least
                upper[entry][m - cut.positions[0]] = torch.minimum(most + added, all_of_them)
    return lower, upper


def _core(matrix: Tensor, cut: Cut, i: int, k: int) -> Tensor:
    return matrix[k : max(k, i + cut.rows(i)), min(i, k - cut.columns(k)) : i]


def _hull(matrix: Tensor, cut: Cut, i: int, k: int) -> Tensor:
    past = cut.columns(i)
    return matrix[i : k + cut.rows(k), i - past : k].tril(past - 1)


def _counts(block: Tensor, tolerances: Tensor) -> tuple[Tensor, Tensor]:
    """The certified bounds on ν of one block, (K,) each."""
    if not block.numel():
        none = torch.zeros(tolerances.shape, dtype=torch.int64, device=block.device)
        return none, none
    counts = block_spectrum(block[None]).counts(tolerances)
    return counts.lower[0], counts.upper[0]
