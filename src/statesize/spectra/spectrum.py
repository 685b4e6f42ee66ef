"""What an engine returns: singular values and how far they may be off."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Hankel singular values at some positions.

    Attributes:
        values: σ̂, (..., P, r), descending, zero-padded.
        error_bound: δ ≥ |σ̂ − σ|, (..., P), round-off included.
    """

    values: Tensor
    error_bound: Tensor
