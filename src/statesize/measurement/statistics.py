"""Means with intervals, and samples of heads or channels that stand for all."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import special

from statesize.codes import Code, Note
from statesize.io.text import counted


def evenly_spread(count: int, most: int) -> NDArray[np.int64]:
    """Indices of at most `most` of some heads or positions, ascending, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


@dataclass(frozen=True, repr=False)
class Interval:
    """An estimate and its interval of 95 %.

    Attributes:
        value: The estimate.
        low: Lower end; NaN, as the other, where there is too little for an interval.
        high: Upper end.
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """That which `to_dict` gave."""
        return cls(found["mean"], *(found["interval"] or ()))

    @property
    def ends(self) -> list[float] | None:
        """Both ends as JSON holds them, or None without an interval."""
        return [self.low, self.high] if math.isfinite(self.low) else None

    def to_dict(self) -> dict[str, Any]:
        """The interval as JSON holds it.

        Returns:
            The estimate as "mean", and both ends as "interval".
        """
        return {"mean": finite(self.value), "interval": self.ends}

    def __neg__(self) -> Interval:
        return Interval(-self.value, -self.high, -self.low)

    def __format__(self, form: str) -> str:
        """The estimate with its interval, where there is one; a dash where it is not known; no zero has a minus."""
        if math.isnan(self.value):
            return "–"
        form = form.replace("+", "+z") if "+" in form else f"z{form or '.2f'}"
        if f"{self.low:{form}}" == f"{self.high:{form}}":
            # Ends that read alike would say that nothing is uncertain.
            longer = re.sub(r"(?<=\.)\d+", lambda digits: str(int(digits[0]) + 1), form)
            form = longer if f"{self.low:{longer}}" != f"{self.high:{longer}}" else form
        ends = "" if math.isnan(self.low) else f" [{self.low:{form}}, {self.high:{form}}]"
        return f"{self.value:{form}}{ends}"

    def __repr__(self) -> str:
        return f"{self}"


FEWEST_TEXTS = 5
"""Texts from which on an interval over texts is shown: Student's t of fewer is wider than what it tells."""


def mean_interval(values: NDArray[np.float64], texts: Sequence[int] | None = None, looks: int = 1) -> Interval:
    """The mean of values (N,) with an interval of 95 % over texts: `texts` has that of each, which else is its own."""
    if not len(values):
        return Interval(math.nan)
    mean = float(values.mean())
    sums, counts = _by_text(values, texts), _by_text(np.ones_like(values), texts)
    # More by a constant than what is left without the mean, so that single values stay as they are.
    return _around(mean, sums - mean * (counts - 1), len(values), looks)


def ratio_interval(
    amounts: NDArray[np.float64], sizes: NDArray[np.float64], texts: Sequence[int] | None = None
) -> Interval:
    """Σ amounts / Σ sizes, (N,) each, with an interval over texts; NaN where the sizes add up to nothing."""
    size = float(sizes.mean())
    if not size > 0:
        return Interval(math.nan)
    value = float(amounts.mean()) / size
    # To first order (Cochran, "Sampling Techniques", 1977, section 6.4).
    return _around(value, _by_text(amounts - value * sizes, texts), float(sizes.sum()))


_WIDEST = 4.0
"""Half an interval over its middle that no five numbers of one sign have: Student's t of them is 2.8."""


def above_zero(found: Interval) -> Interval:
    """An interval by Student's t of what cannot be negative: that of its logarithm, to first order, in its place."""
    # As for ratios of risks: Katz et al., "Obtaining confidence intervals for the risk ratio", Biometrics 34, 1978.
    if not found.value > 0:
        return found
    half = (found.high - found.value) / found.value
    if half > _WIDEST:
        # Values of both signs: what is left of nothing by rounding.
        return Interval(found.value, 0.0, found.high)
    factor = math.exp(half)
    return Interval(found.value, found.value / factor, found.value * factor)


def _by_text(values: NDArray[np.float64], texts: Sequence[int] | None) -> NDArray[np.float64]:
    """Sums over the pieces of each text, which are one unit."""
    if texts is None:
        return values
    _, places = np.unique(texts, return_inverse=True)
    return np.bincount(places, values).astype(np.float64)


def _around(value: float, rest: NDArray[np.float64], total: float, looks: int = 1) -> Interval:
    """Student's t over texts, of which each adds its rest / total; none where there are few."""
    if len(rest) < FEWEST_TEXTS:
        return Interval(value)
    half = float(rest.std(ddof=1)) / math.sqrt(len(rest)) / (total / len(rest)) * student_t(len(rest) - 1, looks)
    return Interval(value, value - half, value + half)


def texts_of(pieces: int, texts: int, which: str = "") -> str:
    """How many texts were read, in words, or how many pieces of fewer."""
    if texts < pieces:
        return f"{counted(pieces, f'{which}piece')} of {'one text' if texts == 1 else counted(texts, 'text')}"
    return counted(pieces, f"{which}text")


FEWEST_TOKENS, ENOUGH_TOKENS = 16, 64
"""Tokens of a text below which its length says more about what it carries than the model does; what advice asks for."""


def too_short(tokens: int, unit: str = "token", fewest: int = FEWEST_TOKENS) -> str:
    """Says that the longest text, of so many tokens, is too short, after a space; empty where it is not."""
    few = f"fewer than {fewest} {unit}s bound what can pass, whatever the model. Give {ENOUGH_TOKENS} or more."
    return "" if tokens >= fewest else f" {Note(Code.SHORT_TEXT, few)}"


def between(least: float, most: float, text: Callable[[float], str]) -> str:
    """Bounds as a text; one number where both read alike."""
    low, high = text(least), text(most)
    return low if low == high else f"{low}–{high}"


def finite(value: float) -> float | None:
    """A number as JSON holds it, or None for one that is not finite."""
    return value if math.isfinite(value) else None


CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Sample:
    """The units of one layer that are measured.

    Attributes:
        units: Ascending indices, (n,).
        strata: Stratum of each, (n,).
        sizes: How many units each stratum has, measured or not.
    """

    units: NDArray[np.int64]
    strata: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Units of the layer."""
        return int(self.sizes.sum())


@dataclass(frozen=True)
class Estimate:
    """A mean over all units of a layer, NaN where nothing is known.

    Attributes:
        error: Half the width of the interval of 95 %: 0 where every unit was measured, NaN where one of several was.
    """

    mean: float
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
    """The mean over all units of a layer, from one number per measured unit (n,)."""
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


def position_error(curve: NDArray[np.float64], positions: NDArray[np.int64], total: int) -> float:
    """Half the width of the interval of the mean of a curve over so many positions, from evenly spread ones, (P,)."""
    count = len(curve)
    if count >= total:
        return 0.0
    if count < 3 or not are_spread(positions, total):
        return math.nan
    variance = (1 - count / total) * float(np.square(np.diff(curve)).sum()) / (2 * count * (count - 1))
    return math.sqrt(variance) * student_t(count - 1)


def are_spread(positions: NDArray[np.int64], total: int) -> bool:
    """Whether ascending positions stand for so many: all of them, or evenly spread ones, not those of a part alone."""
    count, gaps = len(positions), np.diff(positions)
    if count >= total:
        return True
    return count > 1 and bool(np.ptp(gaps) <= 1 and abs(float(gaps.mean()) * count - total) <= gaps.max())


def student_t(freedom: int, looks: int = 1) -> float:
    """The number within which |Student's t| stays with probability 0.95, of so many looks together (Bonferroni)."""
    return float(special.stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2 / looks)) if freedom >= 1 else math.nan
