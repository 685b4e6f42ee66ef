"""A ratio of sums over documents with its interval: bits a byte, or the share of right answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special
from torch import Tensor


@dataclass(frozen=True)
class Ratio:
    """Σ of one number over Σ of another, over documents, with its interval of 95 % by Student's t."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, amounts: Tensor, sizes: Tensor) -> Ratio:
        """For amounts and sizes (D,) of documents; those without a size do not count."""
        # The error of a ratio to first order (Cochran, "Sampling Techniques", 1977, section 6.4).
        amounts, sizes = (part[sizes > 0].double() for part in (amounts, sizes))
        count, total = len(sizes), float(sizes.sum())
        if count == 0:
            return cls(math.nan, math.nan, math.nan)
        value = float(amounts.sum()) / total
        if count == 1:
            return cls(value, math.nan, math.nan)
        spread = float((amounts - value * sizes).square().sum()) * count / (count - 1)
        half = float(special.stdtrit(count - 1, 0.975)) * math.sqrt(spread) / total
        return cls(value, value - half, value + half)
