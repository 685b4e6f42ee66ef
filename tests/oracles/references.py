"""Engines against programs that share nothing with them: SLICOT's Hankel singular values, and mpmath's 60 digits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import mpmath
import numpy as np
import slycot
import torch
from oracles.engine_pairs import Tallies, measurements
from oracles.exact import attention, effective_rank_slack, softmax_rounding
from oracles.high_precision import exact_singular_values, matrix_singular_values
from oracles.operators import FAMILIES, random_operator
from torch import Tensor

from statesize.measurement.measurement import Measurement
from statesize.operators import Convolution, Operator, Recurrence, SoftmaxAttention

EXACT = tuple(family for family in FAMILIES if family not in {"zero", "late convolution", "identity"})
"""Families of which mpmath is asked; of the others every singular value is 0 or 1."""


@dataclass
class Reference(Tallies):
    """What one engine said where the answer is known otherwise.

    Attributes:
        operators: How many.
    """

    operators: int = 0

    def add(self, found: Measurement, place: int, right: list[mpmath.mpf], doubt: float = 0.0) -> None:
        """Compares the answer at one position.

        Args:
            found: Of one engine.
            place: Which of its positions.
            right: Singular values, descending.
            doubt: What these may be off themselves.
        """
        bound = float(found.error_bound[place])
        if found.values is not None:
            given = [mpmath.mpf(float(value)) for value in found.values[place]]
            longest = max(len(given), len(right))
            pairs = zip(_padded(given, longest), _padded(right, longest), strict=True)
            off = max((abs(one - other) for one, other in pairs), default=mpmath.mpf(0))
            self.values.add(*_numbers(float(off), bound + doubt))
        assert found.entropy is not None
        assert found.entropy_bound is not None
        if float(found.entropy[place]) == 0 or not right[0]:
            self.entropy.undecided += 1
        else:
            off = abs(mpmath.mpf(float(found.entropy[place])) - _entropy(right))
            known = np.array([float(value) for value in right])
            moved = effective_rank_slack(known, np.array(doubt), np.array(float(_entropy(right)))) if doubt else 0.0
            self.entropy.add(*_numbers(float(off), float(found.entropy_bound[place]) + float(moved)))
        assert found.lower is not None
        assert found.upper is not None
        for column, tau in enumerate(found.tolerances.tolist()):
            least = sum(value > tau + doubt for value in right)
            most = sum(value > tau - doubt for value in right)
            apart = max(int(found.lower[place, column]) - most, least - int(found.upper[place, column]), 0)
            self.counts.add(*_numbers(float(apart), 0.0))


def against_mpmath(tallies: dict[str, Reference], operator: Operator, positions: int) -> None:
    """Every engine that takes an unbatched real operator, at some positions, against 60 digits.

    Of a recurrence its own numbers are taken exactly, of attention T is made of its own numbers in 80 bits, of other
    operators the entries of T are taken in float64.
    """
    found, doubt = measurements(operator, positions), 0.0
    T = operator.dense()
    if isinstance(operator, SoftmaxAttention):
        q, k, scale = operator.query, operator.key, operator.scale
        T = torch.from_numpy(attention(q, k, scale, operator.window).astype(float))
        # Whatever order scores are added up in; T ≥ 0, so that its singular values move by no larger share of σ_1.
        doubt = softmax_rounding(q, k, scale)
    for place, position in enumerate(found["dense"].positions.tolist()):
        if isinstance(operator, Recurrence) and not operator.is_complex:
            right = exact_singular_values(operator, position)
        else:
            right = matrix_singular_values(T[position:, :position])
        for name, measured in found.items():
            tallies.setdefault(name, Reference()).add(measured, place, right, doubt * float(right[0]))
    for name in found:
        tallies[name].operators += 1


def against_slicot(tallies: dict[str, Reference], A: np.ndarray, B: np.ndarray, C: np.ndarray, length: int) -> float:
    """Every engine on a time-invariant system at the middle of a sequence, against SLICOT's routine AB09AD.

    AB09AD solves the two Lyapunov equations of the whole time axis for square-root factors, so the sequence has to be
    so long that nothing reaches from one end to the other. Its doubt is taken as 1e3 n eps σ_1, plus what the sequence
    leaves out of the Gramians.

    Returns:
        The largest difference from it in units of σ_1.
    """
    n = len(A)
    *_, expected = slycot.ab09ad("D", "B", "N", n, 1, 1, A, B, C @ A)
    right = [mpmath.mpf(float(value)) for value in sorted(expected, reverse=True)]
    middle = length // 2
    doubt = 1e3 * n * np.finfo(float).eps * float(right[0]) + _left_out(A, B, C, middle)
    states = [torch.from_numpy(part) for part in (A, B[:, 0], C[0])]
    forms: list[Operator] = [Recurrence(*(part.expand(length, *part.shape) for part in states))]
    forms.append(Convolution(_kernel(A, B, C, length), length))
    if np.count_nonzero(A - np.diag(np.diag(A))) == 0:
        diagonal = torch.from_numpy(np.diag(A).copy())
        forms.append(Recurrence(*(part.expand(length, n) for part in (diagonal, states[1], states[2]))))
    farthest = 0.0
    for form in forms:
        for name, measured in measurements(form, [middle]).items():
            tally = tallies.setdefault(name, Reference())
            tally.operators += 1
            tally.add(measured, 0, right, doubt)
            if measured.values is not None:
                given = [mpmath.mpf(float(value)) for value in measured.values[0]]
                longest = max(len(given), n)
                pairs = zip(_padded(given, longest), _padded(right, longest), strict=True)
                farthest = max(farthest, float(max(abs(one - other) for one, other in pairs) / right[0]))
    return farthest


def _kernel(A: np.ndarray, B: np.ndarray, C: np.ndarray, length: int) -> Tensor:
    taps, state = [], B
    for _ in range(length):
        taps.append((C @ state).item())
        state = A @ state
    return torch.tensor(taps, dtype=torch.float64)


def _left_out(A: np.ndarray, B: np.ndarray, C: np.ndarray, steps: int) -> float:
    """A bound on what the taps beyond a middle position make of the operator of the whole time axis."""
    taps, state = [], np.linalg.matrix_power(A, steps) @ B
    for _ in range(20 * steps):
        taps.append(abs((C @ state).item()))
        state = A @ state
    # ‖·‖₂ of a Hankel matrix is at most the sum of the magnitudes of its taps.
    return 2 * float(np.sum(taps))


def _padded(values: list[mpmath.mpf], count: int) -> list[mpmath.mpf]:
    return [*values, *[mpmath.mpf(0)] * (count - len(values))]


def _entropy(values: list[mpmath.mpf]) -> mpmath.mpf:
    with mpmath.workdps(60):
        total = mpmath.fsum(values)
        # What is less is the round-off of 60 digits.
        shares = [value / total for value in values if value > 1e-40 * total]
        return mpmath.exp(-mpmath.fsum(share * mpmath.log(share) for share in shares))


def _numbers(difference: float, allowed: float) -> tuple[Tensor, Tensor]:
    return torch.tensor([difference], dtype=torch.float64), torch.tensor([allowed], dtype=torch.float64)


def sixty_digits(
    tallies: dict[str, Reference], family: str, seeds: Iterable[int], lengths: tuple[int, ...], positions: int
) -> None:
    """Every engine on operators of a family, against mpmath."""
    for seed in seeds:
        against_mpmath(tallies, random_operator(family, seed, lengths[seed % len(lengths)]), positions)


def slicot(tallies: dict[str, Reference], seeds: Iterable[int]) -> float:
    """Every engine on time-invariant systems against SLICOT: full, diagonal and nilpotent transitions in turn.

    Returns:
        The largest difference in units of σ_1.
    """
    return max(against_slicot(tallies, *_system(seed)) for seed in seeds)


def _system(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
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
