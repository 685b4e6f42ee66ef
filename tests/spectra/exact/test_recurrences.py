"""Singular values of recurrences, with factors carried from chunk to chunk, against the definition."""

from functools import partial

import mpmath
import pytest
import torch
from oracles.high_precision import exact_singular_values
from oracles.recurrences import STRUCTURES, random_recurrence

from benchmarks.cases import gated, peak_bytes
from statesize.measurement.measurement import measure
from statesize.operators import Recurrence
from statesize.spectra.cut import make_cut
from statesize.spectra.exact import recurrences
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.exact.exact import ExactEngine
from statesize.spectra.exact.recurrences import recurrence_spectrum
from statesize.spectra.spectrum import Spectrum


@pytest.mark.few(9)
@pytest.mark.parametrize("at_once", [1, 2**20])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("length", "states", "positions"), [(2, 1, [1]), (3, 5, [2, 1]), (300, 4, [299, 7, 7, 150])])
def test_agrees_with_the_definition(monkeypatch, structure, length, states, positions, at_once) -> None:
    monkeypatch.setattr(recurrences, "_NUMBERS", at_once)
    recurrence = random_recurrence(structure, 0, length, states, batch=(2, 3))
    cut = make_cut(length, positions)
    fast, plain = recurrence_spectrum(recurrence, cut), DenseEngine().blocks(recurrence, cut)
    r = fast.values.shape[-1]
    error = (fast.values - plain.values[..., :r]).abs().amax(-1)
    assert bool((error <= fast.error_bound + plain.error_bound).all())
    assert bool((error <= 1e-13 * plain.values[..., 0]).all())
    assert bool((fast.error_bound <= 1e-9 * plain.values[..., 0]).all())
    assert bool((plain.values[..., r:].abs() <= 1e-12 * plain.values[..., :1]).all())


@pytest.mark.parametrize("structure", ["scalar", "diagonal", "full", "delta", "orthogonal"])
def test_bound_holds_at_sixty_digits(structure: str) -> None:
    recurrence = random_recurrence(structure, 1, 40, 5)
    spectrum = recurrence_spectrum(recurrence, make_cut(40, [23]))
    exact = exact_singular_values(recurrence, 23)
    error = max(abs(mpmath.mpf(found) - true) for found, true in zip(spectrum.values[0].tolist(), exact, strict=False))
    assert error <= float(spectrum.error_bound[0])


def test_a_reset_does_not_blur_what_follows() -> None:
    recurrence = random_recurrence("diagonal", 5, 400, 3)
    A, B = recurrence.A.clone(), recurrence.B.clone()
    A[200], B[:200] = 0, B[:200] * 1e20
    spectrum = recurrence_spectrum(Recurrence(A, B, recurrence.C), make_cut(400, [200, 201, 350]))
    assert bool((spectrum.error_bound[1:] < 1e-9).all())


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


def _single(length: int) -> Recurrence:
    return gated(length, 64).to(dtype=torch.float32)


def _at_four(operator: Recurrence) -> object:
    return measure(operator, positions=4)


def _nothing(operator: Recurrence) -> None:
    pass


def test_no_copy_of_the_whole_is_made() -> None:
    # So long that the stretch, whose size does not depend on the length, is the smaller part of what is allowed.
    length = 2**18
    held, reached = peak_bytes(partial(_single, length), [_nothing, _at_four], partial(_at_four, _single(256)), 1)
    inputs = 3 * 64 * 4 * length
    assert held > 0.9 * inputs
    # Beside them a stretch; in float64 they would take twice as much as they do.
    assert reached - held < 0.5 * inputs
