"""Spectra that were worked out on paper, for every engine that applies; the answers are frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from oracles.exact import effective_rank
from torch import Tensor

from statesize.measurement.measurement import measure
from statesize.operators import Convolution, Dense, Operator, Recurrence
from statesize.spectra.cut import make_cut
from statesize.spectra.dispatch import ENGINES
from statesize.spectra.engine import OUTPUTS

ROUND_OFF = 1e-14


@dataclass(frozen=True)
class Case:
    """An operator of which the singular values are known.

    Attributes:
        forms: The same T in every form that it has.
        spectra: Singular values above 0 by position, descending.
    """

    forms: tuple[Operator, ...]
    spectra: dict[int, tuple[float, ...]]


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def hilbert() -> Case:
    # k_s = 1/s, so that H_i with its columns reversed is 1/(1 + r + c): for L = 6 and i = 3 the Hilbert matrix of order
    # 3. Its trace is 1 + 1/3 + 1/5 = 23/15, its principal minors of order 2 add up to (1/3 − 1/4) + (1/5 − 1/9) +
    # (1/15 − 1/16) = 127/720 and its determinant is 1/2160. It is positive definite, so its singular values are the
    # roots of λ³ − 23/15 λ² + 127/720 λ − 1/2160.
    # At i = 1 a single column 1, 1/2, …, 1/5 is left, of norm √(5269/3600), at i = 5 the same as a row.
    # At i = 2 the columns are 1 … 1/4 and 1/2 … 1/5: squared norms 205/144 and 1669/3600, inner product
    # 1/2 + 1/6 + 1/12 + 1/20 = 4/5, so that σ² are the roots of x² − 6794/3600 x + (205·1669/518400 − 16/25).
    trace, product = 6794 / 3600, 205 * 1669 / 518400 - 16 / 25
    large = trace / 2 + math.sqrt(trace**2 / 4 - product)
    two = (math.sqrt(large), math.sqrt(product / large))
    three = (1.4083189271236538, 0.12232706585390585, 0.0026873403557735292)
    for root in three:
        assert abs(((root - 23 / 15) * root + 127 / 720) * root - 1 / 2160) < 1e-15
    one = (math.sqrt(5269 / 3600),)
    kernel = numbers(7, *(1 / lag for lag in range(1, 6)))
    convolution = Convolution(kernel, 6)
    return Case((convolution, Dense(convolution.dense())), {1: one, 2: two, 3: three, 4: two, 5: one})


def shift_register() -> Case:
    # y_t = u_{t−3} over 9 positions. H_i holds a 1 for each j < i with j + 3 ≥ i that is still to come out, j ≤ 5, and
    # no two of them in one row or column.
    kernel = numbers(0, 0, 0, 1)
    waiting = {i: [j for j in range(9) if j < i <= j + 3 <= 8] for i in range(1, 9)}
    shift = torch.diag(torch.ones(3, dtype=torch.float64), -1)
    first, last = numbers(1, 0, 0, 0), numbers(0, 0, 0, 1)
    recurrence = Recurrence(shift.expand(9, 4, 4), first.expand(9, 4), last.expand(9, 4))
    convolution = Convolution(kernel, 9)
    spectra = {i: (1.0,) * len(inputs) for i, inputs in waiting.items()}
    assert [len(values) for values in spectra.values()] == [1, 2, 3, 3, 3, 3, 2, 1]
    return Case((convolution, recurrence, Dense(convolution.dense())), spectra)


def moving_average() -> Case:
    # The mean of the last 6 inputs. Before a token in the middle, with its columns reversed, H_i is 1/6 where
    # r + c ≤ 4: the triangle U of ones of order 5, over 6. (UᵀU)⁻¹ is the second difference with one free end, whose
    # eigenvalues are 4 sin²((2k − 1)π / 22), so that σ_k(U) = 1 / (2 sin((2k − 1)π / 22)), k = 1 … 5.
    # At i = 1 it is one column of five 1/6.
    triangle = tuple(1 / (12 * math.sin((2 * k - 1) * math.pi / 22)) for k in range(1, 6))
    convolution = Convolution(torch.full((6,), 1 / 6, dtype=torch.float64), 14)
    edge = (math.sqrt(5) / 6,)
    spectra = {1: edge, **{i: triangle for i in range(5, 10)}, 13: edge}
    return Case((convolution, Dense(convolution.dense())), spectra)


def double_pole() -> Case:
    # y_t = y_{t−1} − y_{t−2}/4 + u_t: both poles are 1/2 and the impulse response is (s + 1)/2^s, 1, 1, 3/4, 1/2.
    # At L = 4 and i = 2, H = [[3/4, 1], [1/2, 3/4]]: σ_1 σ_2 = det = 1/16 and σ_1² + σ_2² = 9/16 + 1 + 1/4 + 9/16 =
    # 19/8, so that σ_1 ± σ_2 = √(19/8 ± 1/8), that is √(5/2) and 3/2.
    # At i = 1 and i = 3 it is (1, 3/4, 1/2), of norm √29/4.
    A = torch.tensor([[1.0, -0.25], [1.0, 0.0]], dtype=torch.float64)
    first = numbers(1, 0)
    recurrence = Recurrence(A.expand(4, 2, 2), first.expand(4, 2), first.expand(4, 2))
    convolution = Convolution(numbers(1, 1, 0.75, 0.5), 4)
    total, edge = math.sqrt(2.5), (math.sqrt(29) / 4,)
    spectra = {1: edge, 2: ((total + 1.5) / 2, (total - 1.5) / 2), 3: edge}
    return Case((recurrence, convolution, Dense(convolution.dense())), spectra)


def oscillation() -> Case:
    # y_t = −y_{t−2}/2 + u_t: poles ±i/√2 and impulse response 1, 0, −1/2, 0, 1/4, 0. At L = 6 and i = 3, H =
    # [[0, −1/2, 0], [1/4, 0, −1/2], [0, 1/4, 0]]: its first and third row are parallel, of joint norm √(1/4 + 1/16),
    # and orthogonal to the second, of the same norm. So σ = (√5/4, √5/4): two states, used alike.
    # At i = 2, of the columns (−1/2, 0, 1/4, 0) and (0, −1/2, 0, 1/4), the same; at i = 1 of one of them alone.
    # A single complex state is enough: the real part of (i/√2)^s is that response.
    pole = torch.complex(numbers(0.0), numbers(math.sqrt(0.5)))
    one = torch.ones(6, 1, dtype=torch.complex128)
    recurrence = Recurrence(pole.expand(6, 1), one, one)
    A = torch.tensor([[0.0, -0.5], [1.0, 0.0]], dtype=torch.float64)
    first = numbers(1, 0)
    companion = Recurrence(A.expand(6, 2, 2), first.expand(6, 2), first.expand(6, 2))
    convolution = Convolution(numbers(1, 0, -0.5, 0, 0.25, 0), 6)
    norm = math.sqrt(5) / 4
    spectra = {1: (norm,), 2: (norm, norm), 3: (norm, norm), 4: (norm, norm), 5: (norm,)}
    return Case((recurrence, companion, convolution, Dense(convolution.dense())), spectra)


def orthogonal_keys() -> Case:
    # A delta rule writes four orthonormal keys with β = 1/2 and then reads them one by one. No key erases another, so
    # T[4 + j, j] = 1/2 and all else below the diagonal is 0: before token i, min(i, 8 − i) things are still to be read.
    key = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    beta = numbers(*[0.5] * 4, *[0.0] * 4)
    rule = Recurrence.delta_rule(key, beta, key, torch.ones(8, dtype=torch.float64))
    spectra = {i: (0.5,) * min(i, 8 - i) for i in range(1, 8)}
    T = torch.diag(torch.full((4,), 0.5, dtype=torch.float64), -4)
    T.diagonal()[:4] = 0.5
    return Case((rule, Dense(T)), spectra)


def overwritten_key() -> Case:
    # The same key twice, with β = 1/2, then a query of it: the second writing halves the first. T[2, 0] = 1/2 · 1/2
    # and T[2, 1] = 1/2, so that H_2 = (1/4, 1/2), of norm √5/4. H_1 holds T[1, 0] = 1/4 above T[2, 0] = 1/4: √2/4.
    key = torch.ones(3, 1, dtype=torch.float64)
    rule = Recurrence.delta_rule(key, numbers(0.5, 0.5, 0.0), key, torch.ones(3, dtype=torch.float64))
    T = torch.tensor([[0.5, 0.0, 0.0], [0.25, 0.5, 0.0], [0.25, 0.5, 0.0]], dtype=torch.float64)
    return Case((rule, Dense(T)), {1: (math.sqrt(2) / 4,), 2: (math.sqrt(5) / 4,)})


def hard_reset() -> Case:
    # A running sum of 10 inputs that is set to 0 before token 4: T is a triangle of ones of order 4 beside one of order
    # 6. H_i is the block of ones between the inputs since the reset and the tokens until the next, of one singular
    # value √(rows · columns); at i = 4 nothing passes.
    A = torch.ones(10, 1, dtype=torch.float64)
    A[4] = 0
    one = torch.ones(10, 1, dtype=torch.float64)
    first, second = torch.ones(4, 4, dtype=torch.float64).tril(), torch.ones(6, 6, dtype=torch.float64).tril()
    before = {i: (math.sqrt(i * (4 - i)),) for i in range(1, 4)}
    after = {i: (math.sqrt((i - 4) * (10 - i)),) for i in range(5, 10)}
    return Case((Recurrence(A, one, one), Dense(torch.block_diag(first, second))), {**before, 4: (), **after})


RECURRING = (double_pole, oscillation, orthogonal_keys, overwritten_key, hard_reset)
CASES = {case.__name__: case() for case in (hilbert, shift_register, moving_average, *RECURRING)}


def thresholds(spectra: dict[int, tuple[float, ...]]) -> list[float]:
    """Numbers that no singular value is near to: between any two that follow each other, above and below all."""
    every = sorted({round(value, 12) for values in spectra.values() for value in values})
    between = [math.sqrt(low * high) for low, high in pairwise(every) if high > 1.001 * low]
    return [every[0] / 2, *between, every[-1] * 2]


# The entropies of `implicit` are intervals, and no singular values.
@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "implicit"])
@pytest.mark.parametrize("name", CASES)
def test_every_engine_gives_what_was_worked_out(name: str, engine: str) -> None:
    positions, tau = list(CASES[name].spectra), thresholds(CASES[name].spectra)
    outputs = tuple(output for output in OUTPUTS if output in ENGINES[engine].outputs)
    for operator in CASES[name].forms:
        if ENGINES[engine].unsupported_reason(operator, make_cut(operator.length, positions), outputs) is not None:
            continue
        found = measure(operator, tau, (), outputs, positions, engine=engine)
        assert float(found.error_bound.max()) <= 1e-6
        assert bool((found.entropy_bound <= 1e-3 * found.entropy + 1e-6).all())
        for place, (position, values) in enumerate(CASES[name].spectra.items()):
            bound = float(found.error_bound[place]) + ROUND_OFF
            counts = [sum(value > threshold for value in values) for threshold in tau]
            assert found.lower[place].tolist() == found.upper[place].tolist() == counts, position
            assert abs(float(found.norm[place]) - math.sqrt(sum(value**2 for value in values))) <= bound
            off = abs(float(found.entropy[place]) - float(effective_rank(np.array(values))))
            assert off <= float(found.entropy_bound[place]) + ROUND_OFF, position
            if found.values is not None:
                given = found.values[place].tolist()
                right = [*values, *[0.0] * (len(given) - len(values))]
                assert max(abs(a - b) for a, b in zip(given, right, strict=True)) <= bound, position
