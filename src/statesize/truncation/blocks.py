"""H_i = T[i:, :i] at one cut by its singular vectors, what its outputs lose at a lower rank, and which ranks to try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor

from statesize.operators import Operator, Recurrence, SoftmaxAttention
from statesize.operators.stepped import Stepped
from statesize.parallel.threads import in_parallel, one_lapack_thread, one_torch_thread

# LAPACK's memory, in columns.
_WORK = 64
_linalg, _special = cast("Any", torch.linalg), cast("Any", torch.special)


def eigenvalues(symmetric: Tensor) -> Tensor:
    """Eigenvalues (..., n), ascending, which take a third of the time of vectors."""
    return torch.stack(_each(_linalg.eigvalsh, symmetric)).reshape(symmetric.shape[:-1])


def eigenvectors(symmetric: Tensor) -> Tensor:
    """Eigenvectors (..., n, n) in the order of ascending eigenvalues."""
    vectors = [pair[1] for pair in _each(_linalg.eigh, symmetric)]
    return torch.stack(vectors).reshape(symmetric.shape)


def leading_eigenvectors(symmetric: Tensor, counts: Tensor) -> Tensor:
    """Eigenvectors of the largest eigenvalues first, (..., n, most): so many of each matrix (...), and 0 beyond."""
    most = int(counts.max())
    # A few vectors take less time than all, but scipy lets one thread run at a time.
    if symmetric.device.type != "cpu" or torch.get_num_threads() > 2 or 4 * most > symmetric.shape[-1]:
        return eigenvectors(symmetric).flip(-1)[..., :most]
    n = symmetric.shape[-1]
    matrices, found = symmetric.reshape(-1, n, n), symmetric.new_zeros(symmetric.shape[:-2].numel(), n, most)
    with one_lapack_thread():
        for matrix, vectors, count in zip(matrices, found, counts.expand(symmetric.shape[:-2]).flatten(), strict=True):
            if count:
                vectors[:, :count] = _leading(matrix, int(count)).flip(-1)
    return found.reshape(*symmetric.shape[:-1], most)


def _leading(symmetric: Tensor, count: int) -> Tensor:
    """Eigenvectors (n, count) of one matrix, ascending; scipy's `eigh` would bisect for few values."""
    lapack, n = cast("Any", import_module("scipy.linalg.lapack")), len(symmetric)  # importing it takes time
    reflectors, diagonal, beside, factors, _ = lapack.dsytrd(symmetric.numpy(), lower=1, lwork=_WORK * n)
    beside = np.append(beside, 0.0)
    _, _, vectors, failed = lapack.dstemr(diagonal, beside, 2, 0.0, 0.0, n - count + 1, n)
    if failed:
        return _linalg.eigh(symmetric)[1][:, -count:]
    vectors = vectors[:, :count]
    turned, *_ = lapack.dormqr("L", "N", reflectors[1:, :-1], factors, vectors[1:], lwork=_WORK * n)
    return torch.from_numpy(np.concatenate([vectors[:1], turned]))


def gram(rows: Tensor) -> Tensor:
    """Σ rᵀ r of rows (..., m, n) in float64: its lower triangle, from which eigenvalues and vectors are taken."""
    if rows.device.type != "cpu" or torch.get_num_threads() > 2:
        rows = rows.double()
        return rows.mT @ rows
    # One triangle takes half the time of all.
    syrk = cast("Any", import_module("scipy.linalg.blas")).dsyrk
    found = rows.new_zeros(*rows.shape[:-2], *2 * rows.shape[-1:], dtype=torch.float64)
    with one_lapack_thread():
        for one, made in zip(rows.reshape(-1, *rows.shape[-2:]), found.reshape(-1, *found.shape[-2:]), strict=True):
            # The upper triangle by columns is the lower one by rows.
            syrk(1.0, one.double().numpy().T, c=made.numpy().T, overwrite_c=1)
    return found


def _each(decompose: Callable[[Tensor], Any], symmetric: Tensor) -> list[Any]:
    """Decompose matrices, one per thread: LAPACK's own threads only wait here."""
    with one_torch_thread():
        return in_parallel([partial(decompose, one) for one in symmetric.reshape(-1, *symmetric.shape[-2:])])


def columns_before(operator: Operator, cut: int) -> Tensor:
    """Columns of T before the cut, (..., L, c); several inputs of one position lie behind one another."""
    columns = operator.columns(0, cut).double()
    return columns.flatten(-2) if isinstance(operator, Stepped) else columns


def past_block(operator: Operator, cut: int) -> Tensor:
    """H_i as it stands, (..., L − i, c), of attention in its own dtype."""
    if isinstance(operator, SoftmaxAttention):
        # Rows before the cut are not computed.
        return operator.block(slice(cut, operator.length), slice(0, cut))
    return columns_before(operator, cut)[..., cut:, :]


def state_factors(recurrence: Recurrence, cut: int) -> tuple[Tensor, Tensor]:
    """H_i = left · rightᵀ: what rows after the cut read of the state, and what the state holds of inputs before."""
    shape, states = recurrence.batch_shape, recurrence.B.shape[-1]
    identity = torch.eye(states, dtype=recurrence.B.dtype, device=recurrence.device).expand(*shape, -1, -1)
    # Columns Φ(i − 1, s) B_s from the last to the first; rows C_t Φ(t, i − 1) from the first on.
    columns, onward = list[Tensor](), identity
    for t in range(cut - 1, -1, -1):
        columns.append((onward @ recurrence.B[..., t, :, None]).squeeze(-1).expand(*shape, states))
        onward = recurrence.transition.recede(t, onward)
    rows, state = list[Tensor](), identity
    for t in range(cut, recurrence.length):
        state = recurrence.transition.advance(t, state)
        rows.append((recurrence.C[..., t, None, :] @ state).squeeze(-2))
    return torch.stack(rows, -2), torch.stack(columns[::-1], -2)


def directions(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """σ of left · rightᵀ, descending, and an orthonormal basis (..., c, n) of what it reads, in their order."""
    Q, R = _linalg.qr(right.conj())
    inner = _linalg.svd(_linalg.qr(left, mode="r").R @ R.mH)
    return inner.S, Q @ inner.Vh.mH


@dataclass(frozen=True, eq=False)
class PastBlock:
    """H_i of some units: the best rank k reads only Vₖᵀ u, k numbers per channel, of all past inputs u."""

    left: Tensor  # H = left · rightᵀ, (..., rows, n)
    right: Tensor | None = None  # (..., c, n); None where left is H itself
    grouped: bool = False  # whether H (..., groups, r, rows, c) are of units that read one stored input

    @classmethod
    def of(cls, operator: Operator, cut: int) -> Self:
        """H_i of an operator, from the factors of a recurrence in float64, or from T itself."""
        if isinstance(operator, Recurrence):
            return cls(*state_factors(operator.to(torch.float64).with_real_output(), cut))
        return cls(past_block(operator, cut))

    @cached_property
    def values(self) -> Tensor:
        """σ, (..., m) float64, descending; of groups those of their stack."""
        if self.right is not None:
            return self._factored[0]
        squares = eigenvalues(self._gram)[..., -self._count :]
        values = squares.clamp(min=0).sqrt().flip(-1)
        return values[..., None, :] if self.grouped else values

    @property
    def columns(self) -> int:
        """c, the inputs of the past."""
        return self.left.shape[-1] if self.right is None else self.right.shape[-2]

    @cached_property
    def _factored(self) -> tuple[Tensor, Tensor]:
        return directions(self.left, cast("Tensor", self.right))

    def _basis(self, ranks: Tensor) -> Tensor:
        """V, (..., c, m), at least its first columns up to these ranks."""
        if self.right is not None:
            return self._factored[1]
        vectors = leading_eigenvectors(self._gram, (ranks[..., 0] if self.grouped else ranks).clamp(max=self._count))
        return vectors[..., None, :, :] if self.grouped else vectors

    @property
    def _stack(self) -> Tensor:
        return self.left.flatten(-3, -2) if self.grouped else self.left

    @property
    def _gram(self) -> Tensor:
        # It takes two thirds of the time; what it rounds, below 1e-8 σ₁, no cut of a model shows.
        return gram(self._stack)

    @property
    def _count(self) -> int:
        return min(self._stack.shape[-2:])

    @property
    def entropy(self) -> Tensor:
        """Entropy-ESS of each unit, (...); 0 where H_i is 0."""
        total = self.values.sum(-1, keepdim=True)
        shares = self.values / torch.where(total > 0, total, torch.ones_like(total))
        size: Tensor = _special.entr(shares).sum(-1).exp()
        return size * (total[..., 0] > 0)

    @property
    def norm(self) -> Tensor:
        """‖H_i‖_F of each unit, (...)."""
        return self.values.square().sum(-1).sqrt()

    def dropped(self, inputs: Tensor, ranks: Tensor) -> Tensor:
        """What H_k does not read of inputs u before the cut, (..., c, P), at ranks k, (...)."""
        inputs = inputs.to(self.left.dtype) if self.right is None else inputs.double()
        basis = self._basis(ranks)
        return dropped(inputs, basis.to(inputs.dtype) if self.right is None else basis, ranks)

    def lost(self, inputs: Tensor, ranks: Tensor) -> Tensor:
        """(H − H_k) u for inputs u before the cut, (..., c, P), and ranks k, (...): (..., rows, P)."""
        rest = self.dropped(inputs, ranks)
        if self.right is None:
            return self.left @ rest
        lost = self.left @ (self.right.mT @ rest.to(self.right.dtype))
        return lost.real if lost.is_complex() else lost


def dropped(inputs: Tensor, basis: Tensor, ranks: Tensor) -> Tensor:
    """(1 − Vₖ Vₖᴴ) u for inputs u before a cut, (..., c, P), V (..., c, n) and ranks k, (...) or (runs, ...)."""
    kept = torch.arange(basis.shape[-1], device=ranks.device) < ranks[..., None]
    numbers = (basis.mH @ inputs.to(basis.dtype)) * kept[..., None]
    if numbers.ndim > basis.ndim:
        # One product for all runs, which matmul would copy V for.
        rest = inputs - torch.einsum("...cn,r...np->r...cp", basis, numbers)
    else:
        rest = inputs - basis @ numbers
    # H is real, also where a basis of complex modes is not.
    return rest.real if rest.is_complex() else rest


SCALES = (0.25, 0.5, 1.0, 2.0)
"""Numbers that are kept, in units of the ESS of each unit."""
CAUSAL_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""The same of choices that know the past only."""
CAUSAL = ("past rows", "past tokens", "expected tokens")
"""Their rules, of each head."""
JOINT = ("joint past rows", "tokens by curves")
"""Rules with one choice for all heads of a group."""
JOINT_SCALES = (1.0, 2.0, 4.0, 8.0)
"""Their numbers, in units of the joint ESS of each group."""


@dataclass(frozen=True, eq=False)
class MixerSpectra:
    """What the whole run shows of one mixer at a cut.

    Attributes:
        kind: What the mixer is.
        multiplicity: Channels of each unit.
        entropy: Entropy-ESS of each unit, (units,).
        norm: ‖H_i‖_F of each unit, (units,).
        most: The largest rank that H_i can have.
        inputs: How many inputs, or numbers of a state, of the past there are to choose from.
        held: How many inputs a window still shows behind the cut; all without one.
        state: Whether it keeps a state, in which no inputs can be chosen.
        joint: Entropy-ESS of the stack of each group's units, (groups,), or None without groups.
    """

    kind: str
    multiplicity: int
    entropy: Tensor
    norm: Tensor
    most: int
    inputs: int
    held: int
    state: bool
    joint: Tensor | None

    @property
    def stored(self) -> int:
        """Groups whose units read one stored input, or units where each stores its own."""
        return len(self.entropy if self.joint is None else self.joint)

    @property
    def largest(self) -> Tensor:
        """The largest entropy-ESS of one unit of each group, (groups,)."""
        return self.entropy.reshape(self.stored, -1).amax(-1)


@dataclass(frozen=True, eq=False)
class CutRun:
    """One run of the model in which every mixer is cut.

    Attributes:
        rule: "ess", "equal", "norm", "number", "joint ess", "largest head", "past rows", "past tokens", "expected
            tokens", "equal past rows", "joint past rows", "tokens by curves" or "nothing".
        scale: Numbers kept in units of the rule's own, c; 1 where there is nothing to scale.
        ranks: For each mixer by its name the rank of each unit, or of each group of a rule of groups.
        grouped: Whether ranks are of groups.
        kept: Mean numbers per channel that are kept.
    """

    rule: str
    scale: float
    ranks: dict[str, Tensor]
    grouped: bool
    kept: float

    @property
    def causal(self) -> bool:
        """Whether what is kept is chosen by the past alone."""
        return self.rule in (*CAUSAL, *JOINT, "equal past rows")

    @property
    def of_tokens(self) -> bool:
        """Whether whole tokens are kept, where a mixer has any."""
        return "tokens" in self.rule


def runs(
    spectra: dict[str, MixerSpectra],
    number: int | None,
    *,
    expected: bool = False,
    budgets: Callable[[dict[str, int], dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> list[CutRun]:
    """All runs of one cut, that of H_i = 0 first.

    Args:
        spectra: What the whole run shows of each mixer.
        number: Adds a run with that many numbers everywhere.
        expected: Adds runs with tokens by expected attention.
        budgets: Adds runs with tokens of each cache by curves, given what mixers hold and how many each cache would
            get without curves.

    Returns:
        Runs in the order of the result.
    """
    planned = [_run(spectra, "nothing", 0.0, {name: torch.zeros_like(one.norm) for name, one in spectra.items()})]
    for scale in SCALES:
        by_ess = _run(spectra, "ess", scale, {name: scale * one.entropy for name, one in spectra.items()})
        planned.append(by_ess)
        if scale == 1:
            for rule in ("equal", "norm"):
                sizes = {
                    name: torch.ones_like(one.norm) if rule == "equal" else one.norm for name, one in spectra.items()
                }
                planned.append(_run(spectra, rule, scale, _spread(spectra, sizes, by_ess.kept)))
    for rule in CAUSAL:
        if rule != "past rows" and all(one.state for one in spectra.values()):
            continue
        if rule == "expected tokens" and not expected:
            continue
        for scale in CAUSAL_SCALES:
            by_ess = _run(spectra, rule, scale, {name: scale * one.entropy for name, one in spectra.items()})
            planned.append(by_ess)
            if rule == "past rows" and scale == 1:
                sizes = {name: torch.ones_like(one.norm) for name, one in spectra.items()}
                planned.append(_run(spectra, "equal past rows", scale, _spread(spectra, sizes, by_ess.kept)))
    if number is not None:
        everywhere = {name: torch.full_like(one.norm, number) for name, one in spectra.items()}
        planned.append(_run(spectra, "number", 1.0, everywhere))
    joint = {name: one.entropy if one.joint is None else one.joint for name, one in spectra.items()}
    if any(one.joint is not None for one in spectra.values()):
        largest = {name: one.entropy if one.joint is None else one.largest for name, one in spectra.items()}
        planned.append(_run(spectra, "joint ess", 1.0, joint, grouped=True))
        planned.append(_run(spectra, "largest head", 1.0, largest, grouped=True))
        for scale in JOINT_SCALES:
            numbers = {name: scale * size for name, size in joint.items()}
            planned.append(_run(spectra, "joint past rows", scale, numbers, grouped=True))
    if budgets is not None:
        for scale in JOINT_SCALES:
            numbers = {name: scale * size for name, size in joint.items()}
            numbers |= budgets({name: one.held for name, one in spectra.items()}, numbers)
            planned.append(_run(spectra, "tokens by curves", scale, numbers, grouped=True))
    return planned


def _run(
    spectra: dict[str, MixerSpectra], rule: str, scale: float, numbers: dict[str, Tensor], *, grouped: bool = False
) -> CutRun:
    """A run with ⌈numbers⌉ for each unit or group."""
    # The stack of a group may have more rows, and a larger rank, than one of its units; without hindsight a choice may
    # need all that there is.
    ranks = {
        name: torch.ceil(numbers[name] - 1e-9).clamp(0, one.inputs if grouped or rule in CAUSAL else one.most).long()
        for name, one in spectra.items()
    }
    return CutRun(rule, scale, ranks, grouped, mean_numbers(spectra, ranks))


def mean_numbers(spectra: dict[str, MixerSpectra], numbers: dict[str, Tensor]) -> float:
    """Mean over all channels of a number for each unit, or over all stored channels of one for each group."""
    total = sum(float(numbers[name].sum()) * one.multiplicity for name, one in spectra.items())
    return total / sum(len(numbers[name]) * one.multiplicity for name, one in spectra.items())


def _spread(spectra: dict[str, MixerSpectra], sizes: dict[str, Tensor], kept: float) -> dict[str, Tensor]:
    """Whole numbers in proportion to sizes, at least 1 where there is anything to keep, so many on the mean."""

    def at(scale: float) -> dict[str, Tensor]:
        return {
            name: torch.where(one.norm > 0, (scale * sizes[name]).round().clamp(1, one.most), 0)
            for name, one in spectra.items()
        }

    positive = [float(size[size > 0].min()) for size in sizes.values() if bool((size > 0).any())]
    low, high = 0.0, max(one.most for one in spectra.values()) / min(positive, default=1.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_numbers(spectra, at(middle)) < kept else (low, middle)
    return min((at(low), at(high)), key=lambda numbers: abs(mean_numbers(spectra, numbers) - kept))
