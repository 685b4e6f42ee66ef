"""Some heads or channels of a layer in place of all, and what their mean says about the layer.

The units of a layer are cut into contiguous strata of nearly equal size, and two or three units are drawn from each
without replacement. The mean over the layer is estimated by Σ_h (N_h/N) ȳ_h, its variance by
Σ_h (N_h/N)² (1 − n_h/N_h) s_h²/n_h with the finite-population correction (Cochran, Sampling Techniques, 1977, §5.4),
and the interval is that of Student's t with n − strata degrees of freedom. It speaks of the choice of units alone: the
sequences are taken as given. Evenly spread positions are a systematic sample of all; the variance of their mean comes
from differences of neighbours, (1 − P/N) Σ (y_{p+1} − y_p)² / (2 P (P − 1)) (Wolter, Introduction to Variance
Estimation, 2007, §8.2), which follows a curve that drifts. Other positions are what somebody chose, and are no sample.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Sample:
    """The units of one layer that are measured."""

    # Ascending indices (n,), the stratum of each (n,), and how many units each stratum has, measured or not.
    units: NDArray[np.int64]
    strata: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Units of the layer."""
        return int(self.sizes.sum())


@dataclass(frozen=True)
class Estimate:
    """A mean over all units of a layer, NaN where nothing is known."""

    mean: float
    # Half the width of the interval of 95 %: 0 where every unit was measured, NaN where one of several was.
    error: float


def draw(total: int, count: int, seed: int, name: str) -> Sample:
    """Draw units of a layer, the same for the same seed and name; a sample of all units has one stratum."""
    if count >= total:
        units = np.arange(total, dtype=np.int64)
        return Sample(units, np.zeros_like(units), np.array([total], np.int64))
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    parts = np.array_split(np.arange(total, dtype=np.int64), max(1, count // 2))
    # The larger strata come first, and so do the larger shares: no stratum is asked for more than it has.
    shares = [len(share) for share in np.array_split(np.arange(count), len(parts))]
    drawn = [np.sort(generator.choice(part, share, replace=False)) for part, share in zip(parts, shares, strict=True)]
    strata = np.repeat(np.arange(len(parts), dtype=np.int64), shares)
    return Sample(np.concatenate(drawn), strata, np.array([len(part) for part in parts], np.int64))


def estimate(values: NDArray[np.float64], sample: Sample) -> Estimate:
    """The mean over all units of a layer, from one number a measured unit (n,)."""
    if not len(values) or not np.isfinite(values).all():
        return Estimate(math.nan, math.nan)
    mean = variance = 0.0
    for stratum, size in enumerate(sample.sizes):
        inside = values[sample.strata == stratum]
        weight = float(size / sample.total)
        mean += weight * float(inside.mean())
        if len(inside) < size:
            spread = float(inside.var(ddof=1)) if len(inside) > 1 else math.nan
            variance += weight**2 * (1 - len(inside) / float(size)) * spread / len(inside)
    freedom = len(values) - len(sample.sizes)
    return Estimate(mean, math.sqrt(variance) * student_t(freedom) if variance else 0.0)


def position_error(curve: NDArray[np.float64], positions: NDArray[np.int64]) -> float:
    """Half the width of the interval of the mean of a curve (P,) over all positions, from evenly spread ones, (P,)."""
    gaps = np.diff(positions)
    if not np.isfinite(curve).all() or len(gaps) < 2 or gaps.max() == 1 or np.ptp(gaps) > 1:
        return 0.0
    count = len(curve)
    share = count / (float(positions[-1] - positions[0]) * count / len(gaps))
    variance = (1 - share) * float(np.square(np.diff(curve)).sum()) / (2 * count * (count - 1))
    return math.sqrt(variance) * student_t(count - 1)


def student_t(freedom: int) -> float:
    """The number within which |Student's t| stays with probability 0.95; NaN without degrees of freedom."""
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) if freedom >= 1 else math.nan
