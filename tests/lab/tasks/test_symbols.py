"""The chance to guess random symbols, against all sequences and against fractions."""

import itertools
from collections import Counter
from fractions import Fraction
from math import factorial

import pytest

from statesize.lab.tasks.symbols import most_frequent_share


@pytest.mark.parametrize(("draws", "symbols"), [(1, 3), (2, 4), (3, 2), (5, 3), (7, 4), (4, 1)])
def test_against_all_sequences(draws, symbols):
    largest = [max(Counter(word).values()) for word in itertools.product(range(symbols), repeat=draws)]
    assert most_frequent_share(draws, symbols) == pytest.approx(sum(largest) / draws / len(largest), abs=1e-10)


def exact(draws: int, symbols: int) -> Fraction:
    """E[largest count] from numbers of words, by powers of exponential generating functions in fractions."""
    expected = Fraction(0)
    for most in range(draws):
        ways = [Fraction(1)] + [Fraction(0)] * draws
        for _ in range(symbols):
            ways = [
                sum((ways[total - count] / factorial(count) for count in range(min(most, total) + 1)), Fraction(0))
                for total in range(draws + 1)
            ]
        expected += 1 - ways[draws] * factorial(draws) / Fraction(symbols) ** draws
    return expected / draws


@pytest.mark.parametrize(("draws", "symbols"), [(8, 14), (16, 15), (24, 2), (10, 60)])
def test_against_fractions(draws, symbols):
    assert most_frequent_share(draws, symbols) == pytest.approx(float(exact(draws, symbols)), abs=1e-10)


def test_large_numbers():
    # Two symbols: the largest count is n/2 + |difference|/2, whose mean the central binomial coefficient gives.
    assert most_frequent_share(5000, 2) == pytest.approx(0.5 + 0.5 * (2 / 3.141592653589793 / 5000) ** 0.5, rel=1e-6)
    assert 1 / 3000 < most_frequent_share(1000, 3000) < 10 / 1000
