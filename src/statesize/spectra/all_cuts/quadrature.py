"""Entropies of singular values from sums of logarithms at geometrically spaced shifts.

Σσ = 1/π ∫ eˣ Λ(x) dx and Σσ ln σ = 1/π ∫ (1 + x) eˣ Λ(x) dx with Λ(x) = Σ ln(1 + σ² e⁻²ˣ), by the trapezoidal rule
(docs/appendix/engine-mathematics.md, "Entropies of all cuts").
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np

from statesize.spectra.all_cuts.eliminations import Array

STEP = 0.75
"""Spacing h of x: shifts fall by the factor eʰ."""
FROM = 8.0
"""The largest shift, in units of ‖H‖_F."""
# Relative error of the rule for Σσ: a Fourier coefficient of eˣ ln(1 + e⁻²ˣ) at each multiple of 2π / h.
_OMEGA = 2 * math.pi / STEP
_RULE = sum(2 / (math.hypot(1, m * _OMEGA) * math.cosh(m * _OMEGA * math.pi / 2)) for m in range(1, 8))
# Of Σσ ln σ, it comes with |ln σ| and the logarithmic derivative of that coefficient.
_DERIVATIVE = 1 + 1 / _OMEGA + math.pi / 2 / math.tanh(_OMEGA * math.pi / 2)
# kh for k > 0 as far as e⁻ᵏʰ counts, and Σ e⁻ᵏʰ (kh)ⁿ for n = 0, 1, and the same of e⁻³ᵏʰ.
_NODES = STEP * np.arange(1, 60)
_A, _B = (float((np.exp(-_NODES) * _NODES**n).sum()) for n in range(2))
_A3, _B3 = (float((np.exp(-3 * _NODES) * _NODES**n).sum()) for n in range(2))
# By how much a slope that grows by e²ʰ from node to node is more than its mean over the last step.
_STEEPER = 2 * STEP / -math.expm1(-2 * STEP)


class Entropies(NamedTuple):
    """H = −Σ p ln p, p = σ / Σσ, a bound on its error, and Σσ in units of the largest shift, (...) each."""

    entropy: Array
    error: Array
    total: Array


def entropies(logarithms: Array, energy: Array, limit: Array) -> Entropies:
    """From Λ at K shifts from the largest on, (..., K), Σσ² over its square, and how many σ there are, (...) each."""
    x = cast("Array", -STEP * np.arange(logarithms.shape[-1]))
    terms = np.exp(x) * logarithms
    S, Q = terms.sum(-1), (terms * (1 + x)).sum(-1)
    # Beyond the largest shift Λ = Σσ² e⁻²ˣ − ½ Σσ⁴ e⁻⁴ˣ + …, of which the first shift tells the second.
    fourth = energy - logarithms[..., 0]
    S, Q = S + energy * _A - fourth * _A3, Q + energy * (_A + _B) - fourth * (_A3 + _B3)
    # Before the smallest it grows by at least its last slope, as it is convex. That of a single σ, 2σ² / (σ² + e²ˣ), is
    # at most 2, and grows at most like e⁻²ˣ.
    last = logarithms[..., -1, None]
    slope, most = np.maximum(last - logarithms[..., -2, None], 0) / STEP, 2 * limit[..., None]
    first = np.minimum(_STEEPER * slope, most)
    turn = np.minimum(_NODES, np.log(most / first) / 2)
    least, largest = slope * _NODES, first / 2 * np.expm1(2 * turn) + most * (_NODES - turn)
    beyond = cast("Array", x[-1] - _NODES)
    weights = np.stack([np.exp(beyond), (1 + beyond) * np.exp(beyond)], -1)
    S, Q = np.stack([S, Q]) + np.moveaxis((last + (largest + least) / 2) @ weights, -1, 0)
    moved = np.moveaxis((largest - least) / 2 @ np.abs(weights), -1, 0)
    moved = moved + np.abs(fourth) * np.array([_A3, _A3 + _B3])[(...,) + (None,) * fourth.ndim] / FROM**2
    H = np.log(S * STEP / math.pi) - Q / S
    # Σp |ln p + H| ≤ √(¼ ln² r + 1) (Reeb and Wolf, "Tight bound on relative entropy by entropy difference", 2015).
    rule = _RULE * (1 + _DERIVATIVE + np.sqrt(np.log(np.maximum(limit, 1)) ** 2 / 4 + 1))
    error = rule + (moved[0] * (1 + np.abs(Q / S)) + moved[1]) / (S - moved[0])
    return Entropies(H, error, S * STEP / math.pi)
