import mpmath
import numpy as np
import pytest
import slycot
import torch
from oracles.high_precision import exact_singular_values
from oracles.recurrences import STRUCTURES, random_recurrence

from statesize.measurement.measurement import hankel_singular_values
from statesize.operators import Recurrence
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.exact.square_root import square_root_spectrum


@pytest.mark.few(10)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("length", "states"), [(2, 1), (3, 5), (17, 4), (40, 6)])
def test_agrees_with_the_definition(structure: str, length: int, states: int) -> None:
    recurrence = random_recurrence(structure, 0, length, states, batch=(2, 3))
    cut = make_cut(length)
    fast, plain = square_root_spectrum(recurrence, cut), DenseEngine().blocks(recurrence, cut)
    r = fast.values.shape[-1]
    error = (fast.values - plain.values[..., :r]).abs().amax(-1)
    assert bool((error <= fast.error_bound + plain.error_bound).all())
    assert bool((error <= 1e-13 * plain.values[..., 0]).all())
    assert bool((plain.values[..., r:].abs() <= 1e-12 * plain.values[..., :1]).all())


@pytest.mark.parametrize("structure", ["scalar", "diagonal", "full", "delta", "orthogonal"])
def test_bound_holds_at_sixty_digits(structure: str) -> None:
    recurrence = random_recurrence(structure, 1, 18, 5)
    position = 9
    exact = exact_singular_values(recurrence, position)
    cut = make_cut(18, [position])
    for engine in (square_root_spectrum, DenseEngine().blocks):
        spectrum = engine(recurrence, cut)
        computed = spectrum.values[0].tolist()
        padded = exact + [mpmath.mpf(0)] * max(0, len(computed) - len(exact))
        error = max(abs(mpmath.mpf(found) - true) for found, true in zip(computed, padded, strict=False))
        assert error <= float(spectrum.error_bound[0])


def test_small_singular_values_keep_their_digits() -> None:
    # Modes of very different strength: σ falls over 20 decades, far below what a Gramian in float64 can hold.
    g = torch.Generator().manual_seed(0)
    strength = torch.logspace(0, -20, 5, dtype=torch.float64)
    decay = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5], dtype=torch.float64).expand(16, 5)
    B = torch.eye(5, dtype=torch.float64)[torch.arange(16) % 5] * strength
    C = torch.eye(5, dtype=torch.float64)[torch.randperm(16, generator=g) % 5]
    recurrence = Recurrence(decay, B, C)
    exact = exact_singular_values(recurrence, 8)
    computed = hankel_singular_values(recurrence, [8], engine="square_root")[0].tolist()
    assert float(exact[4] / exact[0]) < 1e-18
    for found, true in zip(computed, exact, strict=False):
        assert abs(found - float(true)) <= 1e-12 * float(true)


def test_time_invariant_system_agrees_with_slicot() -> None:
    rng = np.random.default_rng(0)
    n, length = 4, 400
    A = rng.standard_normal((n, n))
    A *= 0.8 / np.abs(np.linalg.eigvals(A)).max()
    B, C = rng.standard_normal((n, 1)), rng.standard_normal((1, n))
    # T[i, j] = C A^{i−j} B, so the k-th Markov parameter of the usual form is (C A) A^{k−1} B.
    *_, expected = slycot.ab09ad("D", "B", "N", n, 1, 1, A, B, C @ A, nr=n)
    recurrence = Recurrence(
        torch.from_numpy(A).expand(length, n, n),
        torch.from_numpy(B[:, 0]).expand(length, n),
        torch.from_numpy(C[0]).expand(length, n),
    )
    computed = hankel_singular_values(recurrence, [length // 2], engine="square_root")[0]
    np.testing.assert_allclose(computed.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales(scale: float) -> None:
    recurrence = random_recurrence("diagonal", 4, 20, 4)
    scaled = Recurrence(recurrence.A, recurrence.B * scale, recurrence.C)
    values = hankel_singular_values(scaled, engine="square_root")
    torch.testing.assert_close(values / scale, hankel_singular_values(recurrence, engine="square_root"))


def test_a_reset_does_not_blur_what_follows() -> None:
    # 1e20 before the reset, 1 after it: the bound after it must not remember the 1e20.
    recurrence = random_recurrence("diagonal", 5, 20, 3)
    A, B = recurrence.A.clone(), recurrence.B.clone()
    A[10], B[:10] = 0, B[:10] * 1e20
    spectrum = square_root_spectrum(Recurrence(A, B, recurrence.C), make_cut(20))
    assert bool((spectrum.error_bound[10:] < 1e-10).all())
    assert not bool(spectrum.values[9].any())


def test_no_positions_and_no_batch_entries() -> None:
    recurrence = random_recurrence("diagonal", 6, 8, 2, batch=(3,))
    assert square_root_spectrum(recurrence, make_cut(8, [])).values.shape[:2] == (3, 0)
    assert square_root_spectrum(recurrence[:0], make_cut(8)).values.shape == (0, 7, 2)
