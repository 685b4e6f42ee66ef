"""Engines against each other and against programs that share nothing with them: SLICOT, and mpmath's 60 digits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np
import slycot
import torch
from oracles.exact import attention, exact_singular_values, matrix_singular_values, softmax_rounding
from oracles.operators import FAMILIES, random_operator, scaled
from torch import Tensor
from torch.nn.functional import pad

from statesize.operators import Convolution, Operator, Recurrence, SoftmaxAttention
from statesize.spectra.cut import Positions, make_cut
from statesize.spectra.dispatch import ENGINES
from statesize.spectra.engine import HankelBlocks
from statesize.spectra.spectrum import Spectrum

RATIOS = torch.tensor([0.3, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6], dtype=torch.float64)
EXACT = tuple(family for family in FAMILIES if family not in {"zero", "late convolution", "identity"})
"""Families of which mpmath is asked; of the others every singular value is 0 or 1."""


class Answer(NamedTuple):
    """What is said of the blocks of an operator: values (P, r) or None, entropies (P,), bounds of counts (P, K)."""

    values: Tensor | None
    error: Tensor
    entropy: Tensor
    entropy_error: Tensor
    lower: Tensor
    upper: Tensor


def answer(blocks: HankelBlocks, top: float, *, with_values: bool = True) -> Answer:
    """What blocks say; counts above `RATIOS` of `top`, and of each block's own largest value."""
    counts = blocks.counts(top * RATIOS), blocks.relative_counts(RATIOS)
    lower, upper = (torch.cat([getattr(one, side) for one in counts], -1) for side in ("lower", "upper"))
    values = blocks.singular_values() if with_values else None
    return Answer(values, blocks.error_bound, *blocks.entropies(), lower, upper)


def answers(operator: Operator, positions: Positions, *window: int | None) -> tuple[dict[str, Answer], float]:
    """What every engine that takes an unbatched operator says of it, by name, and the largest singular value."""
    cut = make_cut(operator.length, positions, *window)
    top = float(ENGINES["dense"].blocks(operator, cut).singular_values().max()) or 1.0
    able = [engine for engine in ENGINES.values() if engine.unsupported_reason(operator, cut, ()) is None]
    found = {one.name: answer(one.blocks(operator, cut), top, with_values="values" in one.outputs) for one in able}
    return found, top


@dataclass
class Tally:
    """Answers of one kind that were compared."""

    compared: int = 0
    outside: int = 0  # differed by more than they may
    largest: float = 0.0  # difference, in units of what it may be
    undecided: int = 0  # left out, as one of the two says that nothing passes there

    def add(self, difference: Tensor, allowed: Tensor) -> None:
        """Count answers, each with what it may differ."""
        ratio = torch.where(difference == 0, 0.0, difference / allowed)
        self.compared += difference.numel()
        self.outside += int((~(ratio <= 1)).sum())
        self.largest = max(self.largest, float(ratio.max()) if ratio.numel() else 0.0)


@dataclass
class Tallies:
    """Answers of all kinds that two gave of the same operators."""

    values: Tally = field(default_factory=Tally)  # singular values, position by position: the farthest of each
    entropy: Tally = field(default_factory=Tally)
    counts: Tally = field(default_factory=Tally)  # bounds, which lie outside if they leave no number that both allow
    operators: int = 0

    @property
    def outside(self) -> int:
        """Answers of all kinds that differ by more than they may."""
        return self.values.outside + self.entropy.outside + self.counts.outside

    def add(self, one: Answer, other: Answer) -> None:
        """Compare what two say of one operator."""
        self.operators += 1
        if one.values is not None and other.values is not None:
            self.values.add(difference(one.values, other.values), one.error + other.error)
        # Where σ_1 lies within one error its entropy is 0 by definition, and the other's need not be.
        alive = (one.entropy > 0) == (other.entropy > 0)
        self.entropy.undecided += int((~alive).sum())
        allowed = one.entropy_error + other.entropy_error
        self.entropy.add((one.entropy - other.entropy).abs()[alive], allowed[alive])
        apart = torch.maximum(one.lower - other.upper, other.lower - one.upper).clamp(min=0).double()
        self.counts.add(apart, torch.zeros_like(apart))


def difference(one: Tensor, other: Tensor) -> Tensor:
    """The farthest of two lists of singular values, (...); the shorter list is padded with zeros."""
    r = max(one.shape[-1], other.shape[-1])
    return (pad(one, (0, r - one.shape[-1])) - pad(other, (0, r - other.shape[-1]))).abs().amax(-1)


def pairs(tallies: dict, family: str, seeds: Iterable[int], lengths: tuple[int, ...], positions: int) -> None:
    """Every pair of engines on operators of a family: whole blocks, and windows of a third of the length."""
    for seed in seeds:
        length = lengths[seed % len(lengths)]
        operator, window = random_operator(family, seed, length), max(1, length // 3)
        factor = (1.0, 1e-20, 1e20)[seed % 3]
        if factor != 1 and not isinstance(operator, SoftmaxAttention):
            operator = scaled(operator, factor)
        windows = ((window, None), (None, window), (window, window))[seed % 3]
        for past, future in [(None, None), windows] if length > 2 else [(None, None)]:
            found, _ = answers(operator, positions, past, future)
            for (one, first), (other, second) in combinations(found.items(), 2):
                tallies.setdefault((one, other), Tallies()).add(first, second)


def sixty_digits(tallies: dict, family: str, seeds: Iterable[int], lengths: tuple[int, ...], positions: int) -> None:
    """Every engine on operators of a family, against mpmath.

    Of a recurrence its own numbers are taken exactly, of attention T is made of its own numbers in 80 bits, of other
    operators the entries of T are taken in float64.
    """
    for seed in seeds:
        operator, doubt = random_operator(family, seed, lengths[seed % len(lengths)]), 0.0
        T = operator.dense()
        if isinstance(operator, SoftmaxAttention):
            q, k, scale = operator.query, operator.key, operator.scale
            T = torch.from_numpy(attention(q, k, scale, operator.window).astype(float))
            # Whatever order scores are added up in; T ≥ 0, so that its singular values move by no larger share of σ_1.
            doubt = softmax_rounding(q, k, scale)
        right, cut = list[Tensor](), make_cut(operator.length, positions)
        for i in cut.positions:
            by_steps = isinstance(operator, Recurrence) and not operator.is_complex
            exact = exact_singular_values(operator, i) if by_steps else matrix_singular_values(T[i:, :i].tolist())
            values = torch.tensor([float(value) for value in exact], dtype=torch.float64)
            right.append(pad(values, (0, operator.length - len(values))))
        known = torch.stack(right)
        _against(tallies, operator, cut.positions, Spectrum(known, doubt * known[:, 0], cut.limits))


def slicot(tallies: dict[str, Tallies], seeds: Iterable[int]) -> float:
    """Every engine at the middle of time-invariant systems, against SLICOT's AB09AD; the largest difference, by σ_1.

    AB09AD solves the two Lyapunov equations of the whole time axis for square-root factors, so the sequence has to be
    so long that nothing reaches from one end to the other. Its doubt is taken as 1e3 n eps σ_1, plus what the sequence
    leaves out of the Gramians.
    """
    farthest = 0.0
    for seed in seeds:
        A, B, C, length = _system(seed)
        n, middle = len(A), length // 2
        *_, expected = slycot.ab09ad("D", "B", "N", n, 1, 1, A, B, C @ A)
        right = torch.tensor(sorted(expected, reverse=True), dtype=torch.float64)[None]
        # ‖·‖₂ of a Hankel matrix is at most the sum of the magnitudes of its taps: here of those that are left out.
        beyond = float(_taps(A, np.linalg.matrix_power(A, middle) @ B, C, 20 * middle).abs().sum())
        known = Spectrum(right, 1e3 * n * np.finfo(float).eps * right[:, 0] + 2 * beyond, torch.tensor([middle]))
        full, diagonal, write, read = (torch.tensor(part) for part in (A, np.diag(A), B[:, 0], C[0]))
        transitions = [full, diagonal] if torch.equal(full, diagonal.diag()) else [full]
        forms: list[Operator] = [Convolution(_taps(A, B, C, length), length)]
        forms += [Recurrence(*(part.expand(length, *part.shape) for part in (one, write, read))) for one in transitions]
        for form in forms:
            found = _against(tallies, form, [middle], known)
            off = [difference(one.values, right) / right[:, 0] for one in found.values() if one.values is not None]
            farthest = max(farthest, *map(float, off))
    return farthest


def _against(tallies: dict, operator: Operator, positions: Positions, known: Spectrum) -> dict[str, Answer]:
    """Compare every engine with singular values that are known otherwise."""
    found, top = answers(operator, positions)
    for name, one in found.items():
        tallies.setdefault(name, Tallies()).add(one, answer(known, top))
    return found


def _taps(A: np.ndarray, state: np.ndarray, C: np.ndarray, count: int) -> Tensor:
    """C A^k x, k = 0 … count − 1."""
    taps = list[float]()
    for _ in range(count):
        taps.append((C @ state).item())
        state = A @ state
    return torch.tensor(taps, dtype=torch.float64)


def _system(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """A full, a diagonal or a nilpotent transition in turn."""
    chance = np.random.default_rng(seed)
    n = int(chance.integers(1, 13))
    B, C = chance.standard_normal((n, 1)), chance.standard_normal((1, n))
    if seed % 3 == 2:
        n = max(n, 2)
        C = chance.standard_normal((1, n))
        # A finite impulse response: T of any length beyond twice its taps has just the spectrum of the whole axis.
        return np.eye(n, k=-1), np.eye(n)[:, :1], C, 6 * n + 4
    A = chance.standard_normal((n, n)) if seed % 3 == 0 else np.diag(chance.uniform(-1, 1, n))
    return A * 0.8 / np.abs(np.linalg.eigvals(A)).max(), B, C, 400
