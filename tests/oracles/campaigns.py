"""Which operators are compared: few in the tests, many in `benchmarks/agreement.py`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from oracles.engine_pairs import Pairs, compare
from oracles.operators import FAMILIES, random_operator, scaled
from oracles.references import Reference, against_mpmath, against_slicot

from statesize.operators import SoftmaxAttention

EXACT = tuple(family for family in FAMILIES if family not in {"zero", "late convolution", "identity"})
"""Families of which mpmath is asked; of the others every singular value is 0 or 1."""


def pairs(
    tallies: dict[tuple[str, str], Pairs], family: str, seeds: Iterable[int], lengths: tuple[int, ...], positions: int
) -> None:
    """Every pair of engines on operators of a family: whole blocks, and windows of a third of the length."""
    for seed in seeds:
        length = lengths[seed % len(lengths)]
        operator = random_operator(family, seed, length)
        factor = (1.0, 1e-20, 1e20)[seed % 3]
        if factor != 1 and not isinstance(operator, SoftmaxAttention):
            operator = scaled(operator, factor)
        compare(tallies, operator, positions)
        window = max(1, length // 3)
        if length > 2:
            compare(tallies, operator, positions, *((window, None), (None, window), (window, window))[seed % 3])


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
