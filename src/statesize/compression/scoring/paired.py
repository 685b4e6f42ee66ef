"""A ratio of sums over documents with its interval: bits a byte, or the share of right answers."""

from __future__ import annotations

import math

from scipy import special
from torch import Tensor

from statesize.interval import Interval


def ratio_of(amounts: Tensor, sizes: Tensor) -> Interval:
    """Σ of amounts (D,) over Σ of sizes (D,) of documents, by Student's t over those that have a size."""
    # The error of a ratio to first order (Cochran, "Sampling Techniques", 1977, section 6.4).
    amounts, sizes = (part[sizes > 0].double() for part in (amounts, sizes))
    count, total = len(sizes), float(sizes.sum())
    if count == 0:
        return Interval(math.nan)
    value = float(amounts.sum()) / total
    if count == 1:
        return Interval(value)
    spread = float((amounts - value * sizes).square().sum()) * count / (count - 1)
    half = float(special.stdtrit(count - 1, 0.975)) * math.sqrt(spread) / total
    return Interval(value, value - half, value + half)
