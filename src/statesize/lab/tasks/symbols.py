"""Base of tasks whose targets are random symbols, and the chance to guess them."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import special

from statesize.lab.tasks.base import SyntheticTask


class SymbolTask(SyntheticTask):
    """A task whose targets are symbols, drawn independently and uniformly; its dataclasses say where they stand."""

    tokens: int  # symbols of a sequence that are to be repeated, at least 2
    symbols: int  # different symbols, at least 2

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
    counts = _poisson(np.arange(draws), draws / symbols)
    total = _poisson(np.array(draws), draws)
    expected = 0.0
    for most in range(draws):
        degrees = max(most * symbols, draws) + 1
        power = np.fft.irfft(np.fft.rfft(counts[: most + 1], degrees) ** symbols, degrees)
        above = 1 - power[draws] / total
        if above < 1e-10:  # and falls faster than geometrically from here; the transform is good to about 1e-12
            break
        expected += above
    return float(expected / draws)


def _poisson(counts: NDArray[np.int64], mean: float) -> NDArray[np.float64]:
    return np.exp(counts * np.log(mean) - mean - special.gammaln(counts + 1))
