"""The exponent with which ESS grows with the length of the context, and whether a power law describes the growth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from statesize.measurement.statistics import Interval, mean_interval

Numbers: TypeAlias = NDArray[np.float64]
# An exponent below which ESS has levelled off, less than 7 % more at twice the context; the share of the ceiling from
# which on ESS is near it; and lengths that an exponent takes, as a power law passes through any two points.
LEVEL, NEAR, FEWEST_LENGTHS = 0.1, 0.8, 3


@dataclass(frozen=True)
class Exponent:
    """Growth of ESS with the length n of the context.

    Attributes:
        fitted: ESS goes about as n to the power of this: the slope of log ESS against log n, the mean over pieces of
            text, with an interval of 95 % by Student's t over texts.
        last: The same over the last two lengths.
        shape: "power law" where that fits the means better than c n / (n + h), which saturates; else "saturates" where
            the interval of `last` lies below 0.1, or "slows down". "near its ceiling" where a mean passes 80 % of it;
            "too few lengths" or "too few texts" below three and five.
    """

    fitted: Interval
    last: Interval
    shape: str

    def __str__(self) -> str:
        return f"{self.fitted:.2f}" if self.shape == "power law" else self.shape

    def to_dict(self) -> dict[str, Any]:
        """The exponent as JSON holds it."""
        ends = {"exponent_interval": self.fitted.ends, "last_interval": self.last.ends}
        return {"exponent": self.fitted.value, "last": self.last.value, **ends, "shape": self.shape}


def exponent_of(lengths: Sequence[int], ess: Numbers, ceilings: Numbers, texts: Sequence[int]) -> Exponent:
    """The exponent of ESS (lengths, pieces) below ceilings (lengths,), of pieces of some texts."""
    if len(lengths) < FEWEST_LENGTHS:
        return Exponent(Interval(math.nan), Interval(math.nan), "too few lengths")
    n, logarithms = np.log(lengths), np.log(ess)
    fitted, last = (mean_interval(np.polyfit(n[at:], logarithms[at:], 1)[0], texts) for at in (0, -2))
    return Exponent(fitted, last, shape_of(lengths, ess.mean(1), ceilings, last) if fitted.ends else "too few texts")


def shape_of(lengths: Sequence[int], means: Numbers, ceilings: Numbers, last: Interval) -> str:
    """The shape of means (lengths,), by the squares of logarithms, of which `last` is the exponent at the end."""
    if (means > NEAR * ceilings).any():
        return "near its ceiling"
    n, logarithms = np.array(lengths, np.float64), np.log(means)
    halves = n[0] / 100 * 10 ** np.linspace(0, math.log10(10_000 * n[-1] / n[0]), 1000)[:, None]
    power = np.polyval(np.polyfit(np.log(n), logarithms, 1), np.log(n))
    if (logarithms + np.log1p(halves / n)).var(1).min() >= (logarithms - power).var():
        return "power law"
    return "saturates" if last.high < LEVEL else "slows down"
