"""Singular values of recurrences, with factors carried from chunk to chunk, against the definition."""

import itertools

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.exact import exact_singular_values
from oracles.operators import STRUCTURES, random_recurrence
from torch import Tensor

from statesize.measurement.measurement import measure
from statesize.operators import Recurrence
from statesize.spectra.border_maps import chosen_borders
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.exact import recurrences
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.exact.exact import ExactEngine
from statesize.spectra.exact.recurrences import recurrence_spectrum
from statesize.spectra.spectrum import Spectrum


def against_the_definition(recurrence: Recurrence, cut: Cut) -> tuple[Spectrum, Tensor, Tensor]:
    """Asserts what every spectrum keeps to; the spectrum, its errors and the largest singular values."""
    fast, plain = recurrence_spectrum(recurrence, cut), DenseEngine().blocks(recurrence, cut)
    r = fast.values.shape[-1]
    error = (fast.values - plain.values[..., :r]).abs().amax(-1)
    assert bool((error <= fast.error_bound + plain.error_bound).all())
    assert bool((plain.values[..., r:] <= plain.error_bound[..., None] + 1e-12 * plain.values[..., :1]).all())
    assert torch.equal(fast.limit, plain.limit)
    return fast, error, plain.values[..., 0]


def farthest_from_sixty_digits(recurrence: Recurrence, position: int, past: int | None, future: int | None):
    """The largest error at a position, and its bound."""
    spectrum = recurrence_spectrum(recurrence, make_cut(recurrence.length, [position], past, future))
    exact = exact_singular_values(recurrence, position, past, future)
    error = max(abs(mpmath.mpf(found) - true) for found, true in zip(spectrum.values[0].tolist(), exact, strict=False))
    return error, float(spectrum.error_bound[0])


@pytest.mark.few(9)
@pytest.mark.parametrize("at_once", [1, 2**20])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("length", "states", "positions"), [(2, 1, [1]), (3, 5, [2, 1]), (300, 4, [299, 7, 7, 150])])
def test_agrees_with_the_definition(monkeypatch, structure, length, states, positions, at_once) -> None:
    monkeypatch.setattr(recurrences, "_NUMBERS", at_once)
    recurrence = random_recurrence(structure, 0, length, states, batch=(2, 3))
    fast, error, largest = against_the_definition(recurrence, make_cut(length, positions))
    assert bool((error <= 1e-13 * largest).all())
    assert bool((fast.error_bound <= 1e-9 * largest).all())


@given(st.sampled_from(STRUCTURES), st.integers(0, 2**31), st.integers(2, 70), st.integers(1, 6), st.data())
def test_any_window_of_any_length(structure: str, seed: int, length: int, states: int, data: st.DataObject) -> None:
    past = data.draw(st.none() | st.integers(1, length - 1))
    room = length - 1 if past is None else length - past
    future = data.draw(st.integers(1, room) if past is None else st.none() | st.integers(1, room))
    recurrence = random_recurrence(structure, seed, length, states)
    fast, _, _ = against_the_definition(recurrence, make_cut(length, past=past, future=future))
    entropy, bound = fast.entropies()
    assert bool((bound <= 1.05e-3 * entropy + 1e-9).all())


@pytest.mark.parametrize("structure", ["scalar", "diagonal", "full", "delta", "orthogonal"])
@pytest.mark.parametrize(("past", "future"), [(None, None), (7, 9), (None, 6), (11, None)])
def test_bound_holds_at_sixty_digits(structure: str, past: int | None, future: int | None) -> None:
    error, bound = farthest_from_sixty_digits(random_recurrence(structure, 1, 24, 4), 12, past, future)
    assert error <= bound


def test_bound_knows_what_cancels_on_the_way() -> None:
    # Every other step undoes the one before it; in between, what is carried is 1e7 times as large.
    g = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(2, 4, 4, generator=g, dtype=torch.float64)).Q
    stretch = rotation[0] * torch.logspace(3.5, -3.5, 4, dtype=torch.float64) @ rotation[1]
    even = (torch.arange(24) % 2 == 0)[:, None]
    A = torch.where(even[..., None], torch.linalg.inv(stretch), stretch)
    B, C = (torch.randn(24, 4, generator=g, dtype=torch.float64) * even for _ in range(2))
    error, bound = farthest_from_sixty_digits(Recurrence(A, B, C), 13, 10, 11)
    assert 1e-12 < error <= bound


@pytest.mark.parametrize("width", [3, 12, 50])
def test_decays_of_the_delta_rule_may_be_zero_negative_and_tiny(width: int) -> None:
    g = torch.Generator().manual_seed(0)
    key, query = (torch.randn(width, 3, generator=g, dtype=torch.float64) / 2 for _ in range(2))
    decay = torch.rand(width, 3, generator=g, dtype=torch.float64)
    decay[4::9], decay[5::9, 1], decay[7::9], decay[8::9, 0] = 0, -0.5, 1e-200, 1e-200
    rule = Recurrence.delta_rule(key, torch.rand(width, generator=g, dtype=torch.float64), query, decay)
    _, error, largest = against_the_definition(rule, make_cut(width))
    assert bool((error <= 1e-14 + 1e-13 * largest).all())


@pytest.mark.parametrize(("structure", "widest"), [("diagonal", 128), ("full", 32), ("delta", 64)])
def test_borders_hold_every_position_and_keep_chunks_narrow(structure: str, widest: int) -> None:
    borders = chosen_borders(random_recurrence(structure, 0, 300, 2), [299, 7, 7, 8])
    assert borders == sorted(set(borders))
    assert {0, 7, 8, 299, 300} <= set(borders)
    assert max(last - first for first, last in itertools.pairwise(borders)) <= widest


@pytest.mark.parametrize("past", [None, 9])
def test_a_reset_does_not_blur_what_follows(past: int | None) -> None:
    # 1e20 before the reset, 1 after it: the bound after it must not remember the 1e20.
    recurrence = random_recurrence("diagonal", 5, 400, 3)
    A, B = recurrence.A.clone(), recurrence.B.clone()
    A[200], B[:200] = 0, B[:200] * 1e20
    spectrum = recurrence_spectrum(Recurrence(A, B, recurrence.C), make_cut(400, [200, 212, 350], past))
    assert bool((spectrum.error_bound[1:] < 1e-10).all())
    assert not bool(spectrum.values[0].any())


@pytest.mark.parametrize("structure", ["diagonal", "delta", "complex"])
def test_other_dtypes_are_converted_a_stretch_at_a_time(structure: str) -> None:
    single = random_recurrence(structure, 0, 400, 6).to(dtype=torch.float32)
    asked = {"positions": [3, 200, 399], "engine": "exact", "outputs": ("values",)}
    found, expected = measure(single, **asked), measure(single.to(dtype=torch.float64), **asked)
    assert torch.equal(found.values, expected.values)
    assert found.values.dtype == torch.float64


@pytest.mark.parametrize(("states", "factors"), [(8, True), (300, False)])
def test_states_larger_than_half_of_the_blocks_are_left_to_gram_matrices(states, factors) -> None:
    recurrence = random_recurrence("diagonal", 0, 512, states)
    assert isinstance(ExactEngine().blocks(recurrence, make_cut(512, [100])), Spectrum) == factors
