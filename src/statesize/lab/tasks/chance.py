"""How often the most frequent symbol occurs: what can be guessed from a sequence without knowing its order."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from statesize.check import require_count
from statesize.lab.tasks.task import IGNORED


def most_frequent_share(draws: int, symbols: int) -> float:
    """Expected share of the most frequent symbol among independent, uniform draws.

    One who knows how often each symbol occurs in a sequence, but not where, does best to answer every position with
    the most frequent one, and is right at this share of them. The counts of the symbols are independent Poisson
    variables of mean `draws / symbols`, if they add up to `draws`; the chance that none is above m is then a
    coefficient of a power of the truncated generating function, which a Fourier transform gives.

    Args:
        draws: number of draws, at least 1.
        symbols: number of symbols, at least 1.

    Returns:
        E[largest count] / draws, to about 1e-10.

    Raises:
        InputError: One of them is no positive whole number.

    Examples:
        >>> round(most_frequent_share(2, 4), 12)  # both draws are equal once in four times
        0.625
    """
    return _most_frequent_share(require_count("draws", draws), require_count("symbols", symbols))


@functools.cache
def _most_frequent_share(draws: int, symbols: int) -> float:
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


def counting_accuracy(inputs: Tensor, targets: Tensor) -> float:
    """Accuracy of answering each sequence (S, L) with what stands in it most often, of all that is ever an answer."""
    answers = torch.bincount(targets[targets != IGNORED], minlength=int(inputs.max()) + 1)
    right = 0
    for tokens, wanted in zip(inputs, targets, strict=True):
        counts = torch.bincount(tokens, minlength=len(answers)) * (answers > 0)
        # Where no answer stands in the input, as with facts that are learnt: the most frequent one of all.
        guess = int((counts if bool(counts.any()) else answers).argmax())
        right += int((wanted == guess).sum())
    return right / int(answers.sum())


def _poisson(count: int, mean: float) -> float:
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
