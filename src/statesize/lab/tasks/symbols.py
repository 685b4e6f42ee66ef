"""What tasks share whose targets are random symbols, and the chance to guess them."""

from __future__ import annotations

import functools
import math

import numpy as np

from statesize.check import require_count
from statesize.lab.tasks.base import SyntheticTask


class SymbolTask(SyntheticTask):
    """A task whose targets are symbols, drawn independently and uniformly; its dataclasses say where they stand."""

    tokens: int  # symbols of a sequence that are to be repeated, at least 2
    symbols: int  # different symbols, at least 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("tokens", self.tokens, 2)
        require_count("symbols", self.symbols, 2)

    @property
    def items(self) -> int:
        """The number of symbols to be repeated."""
        return self.tokens

    @property
    def chance(self) -> float:
        """Expected share of the most frequent symbol among those of a sequence."""
        return most_frequent_share(self.tokens, self.symbols)


@functools.cache
def most_frequent_share(draws: int, symbols: int) -> float:
    """Expected share of the most frequent of some symbols among independent, uniform draws, to about 1e-10."""
    # One who knows how often each symbol occurs in a sequence, but not where, does best to answer every position with
    # the most frequent one. The counts of the symbols are independent Poisson variables of mean draws / symbols, if
    # they add up to `draws`; the chance that none is above m is then a coefficient of a power of the truncated
    # generating function, which a Fourier transform gives.
    mean = draws / symbols
    total = _poisson(draws, float(draws))
    expected = 0.0
    for most in range(draws):
        if most * symbols < draws:
            expected += 1.0
            continue
        truncated = np.array([_poisson(count, mean) for count in range(most + 1)])
        degrees = most * symbols + 1
        power = np.fft.irfft(np.fft.rfft(truncated, degrees) ** symbols, degrees)
        above = 1 - power[draws] / total
        if above < 1e-10:  # and falls faster than geometrically from here; the transform is good to about 1e-12
            break
        expected += above
    return float(expected / draws)


def _poisson(count: int, mean: float) -> float:
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
