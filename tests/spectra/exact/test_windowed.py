import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.agreement import agree
from oracles.high_precision import exact_singular_values
from oracles.recurrences import STRUCTURES, random_recurrence

from statesize.operators import Recurrence
from statesize.spectra.cut import Cut, make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.exact.recurrences import recurrence_spectrum

WINDOWS = [(1, 1), (1, None), (None, 1), (2, 3), (5, 16), (7, 4), (8, 8), (None, 13), (12, None), (20, 17), (36, 1)]


def close_to_the_definition(recurrence: Recurrence, cut: Cut) -> None:
    fast, plain = recurrence_spectrum(recurrence, cut), DenseEngine().blocks(recurrence, cut)
    r = fast.values.shape[-1]
    error = (fast.values - plain.values[..., :r]).abs().amax(-1)
    assert bool((error <= fast.error_bound + plain.error_bound).all())
    assert bool((plain.values[..., r:] <= plain.error_bound[..., None] + 1e-12 * plain.values[..., :1]).all())
    assert torch.equal(fast.limit, plain.limit)
    assert bool((fast.error_bound <= 1e-10 * float(plain.values.max())).all())


@pytest.mark.few(14)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("past", "future"), WINDOWS)
def test_agrees_with_the_definition(structure: str, past: int | None, future: int | None) -> None:
    recurrence = random_recurrence(structure, 0, 37, 5, batch=(2, 3))
    close_to_the_definition(recurrence, make_cut(37, past=past, future=future))


@given(st.sampled_from(STRUCTURES), st.integers(0, 2**31), st.integers(2, 70), st.integers(1, 6), st.data())
def test_any_window_of_any_length(structure: str, seed: int, length: int, states: int, data: st.DataObject) -> None:
    past = data.draw(st.none() | st.integers(1, length - 1))
    room = length - 1 if past is None else length - past
    future = data.draw(st.integers(1, room) if past is None else st.none() | st.integers(1, room))
    recurrence = random_recurrence(structure, seed, length, states)
    cut = make_cut(length, past=past, future=future)
    agree(recurrence_spectrum(recurrence, cut), DenseEngine().blocks(recurrence, cut))


@pytest.mark.parametrize("structure", ["scalar", "diagonal", "full", "delta", "orthogonal"])
@pytest.mark.parametrize(("past", "future"), [(7, 9), (None, 6), (11, None)])
def test_bound_holds_at_sixty_digits(structure: str, past: int | None, future: int | None) -> None:
    recurrence, position = random_recurrence(structure, 1, 24, 4), 12
    exact = exact_singular_values(recurrence, position, past, future)
    spectrum = recurrence_spectrum(recurrence, make_cut(24, [position], past, future))
    error = max(abs(mpmath.mpf(found) - true) for found, true in zip(spectrum.values[0].tolist(), exact, strict=False))
    assert error <= float(spectrum.error_bound[0])


def test_bound_knows_what_cancels_on_the_way() -> None:
    # Every other step undoes the one before it; in between, what is carried is 1e7 times as large.
    g = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(2, 4, 4, generator=g, dtype=torch.float64)).Q
    stretch = rotation[0] * torch.logspace(3.5, -3.5, 4, dtype=torch.float64) @ rotation[1]
    even = (torch.arange(24) % 2 == 0)[:, None]
    A = torch.where(even[..., None], torch.linalg.inv(stretch), stretch)
    B, C = (torch.randn(24, 4, generator=g, dtype=torch.float64) * even for _ in range(2))
    recurrence, position = Recurrence(A, B, C), 13
    exact = exact_singular_values(recurrence, position, 10, 11)
    spectrum = recurrence_spectrum(recurrence, make_cut(24, [position], 10, 11))
    error = max(abs(mpmath.mpf(found) - true) for found, true in zip(spectrum.values[0].tolist(), exact, strict=False))
    assert 1e-12 < error <= float(spectrum.error_bound[0])


def test_complex_inputs_and_outputs() -> None:
    g = torch.Generator().manual_seed(8)
    modes = torch.polar(torch.rand(2, 30, 3, generator=g, dtype=torch.float64), torch.full((2, 30, 3), 0.4).double())
    B, C = (torch.randn(2, 30, 3, generator=g, dtype=torch.complex128) for _ in range(2))
    close_to_the_definition(Recurrence(modes, B, C), make_cut(30, past=11, future=9))
    full = torch.randn(2, 30, 3, 3, generator=g, dtype=torch.complex128) / 3
    close_to_the_definition(Recurrence(full, B, C), make_cut(30, past=11))


def test_a_reset_does_not_blur_what_follows() -> None:
    # 1e20 before the reset, 1 after it: the bound after it must not remember the 1e20.
    recurrence = random_recurrence("diagonal", 5, 40, 3)
    A, B = recurrence.A.clone(), recurrence.B.clone()
    A[20], B[:20] = 0, B[:20] * 1e20
    spectrum = recurrence_spectrum(Recurrence(A, B, recurrence.C), make_cut(40, past=9))
    assert bool((spectrum.error_bound[20 - 9 + 1 :] < 1e-10).all())
    assert not bool(spectrum.values[20 - 9].any())


@pytest.mark.parametrize("scale", [1e-170, 1e-30, 1e30, 1e150])
def test_extreme_scales(scale: float) -> None:
    recurrence, cut = random_recurrence("delta", 4, 20, 4), make_cut(20, past=8, future=5)
    A, C = recurrence.A, recurrence.C
    values = recurrence_spectrum(Recurrence(A, recurrence.B * scale, C), cut).values
    torch.testing.assert_close(values / scale, recurrence_spectrum(recurrence, cut).values)


def test_no_positions_and_no_batch_entries() -> None:
    recurrence = random_recurrence("diagonal", 6, 8, 2, batch=(3,))
    assert recurrence_spectrum(recurrence, make_cut(8, [], past=2, future=2)).values.shape == (3, 0, 0)
    assert recurrence_spectrum(recurrence[:0], make_cut(8, past=2)).values.shape == (0, 6, 2)


def test_batch_dimensions_broadcast() -> None:
    g = torch.Generator().manual_seed(7)
    A = torch.rand(1, 3, 20, 1, generator=g, dtype=torch.float64)
    B = torch.randn(2, 1, 20, 3, generator=g, dtype=torch.float64)
    C = torch.randn(1, 3, 20, 3, generator=g, dtype=torch.float64)
    close_to_the_definition(Recurrence(A, B, C), make_cut(20, past=6, future=7))
