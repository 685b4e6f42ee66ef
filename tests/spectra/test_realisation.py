import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.kernels import bump, irregular, late, modes
from torch import Tensor

from statesize.operators import Convolution
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.realisation import hankel_matrix, realise
from statesize.spectra.shifts.bordered import BorderedChunks

WIDTH = 8
# Fewer than columns already at the lengths that a test can afford.
VECTORS = 24


def chunks_of(kernel: Tensor, dropped: float = 1e-11) -> tuple[BorderedChunks, Tensor]:
    """Chunks of kernels (E, L), and of which; none where none can be realised."""
    found = realise(kernel[:, 1:], WIDTH, VECTORS, dropped)
    assert found is not None
    fitted, entries = found
    return fitted.chunks(WIDTH), entries


def check(kernel: Tensor, dropped: float = 1e-11) -> Tensor:
    """The error bounds, which must hold for every singular value and for their sum."""
    length = kernel.shape[-1]
    chunks, entries = chunks_of(kernel, dropped)
    count = chunks.error.shape[0] // entries.shape[0]
    position = torch.arange(1, length // 2 + 1)
    exact = DenseEngine().blocks(Convolution(kernel, length), make_cut(length, position))
    for place, entry in enumerate(entries.tolist()):
        group = place * count + position // WIDTH
        found = chunks.spectra(group, position % WIDTH)
        values = exact.values[entry]
        width = max(found.shape[-1], values.shape[-1])
        found, values = (torch.nn.functional.pad(part, (0, width - part.shape[-1])) for part in (found, values))
        off, round_off = (found - values).abs(), 1e-14 * values.amax()
        assert bool((off.amax(-1) <= chunks.error[group] + round_off).all())
        assert chunks.summed_error is not None
        assert bool((off.sum(-1) <= chunks.summed_error[group] + width * round_off).all())
    return chunks.error


@given(st.integers(0, 2**31), st.integers(40, 120), st.integers(1, 6))
def test_damped_modes_are_realised_to_round_off(seed: int, length: int, count: int) -> None:
    kernel = modes(seed, count, length)[None]
    error = check(kernel)
    assert float(error.max()) < 1e-9 * float(kernel.abs().sum())


@pytest.mark.parametrize("length", [64, 65, 90, 127, 128])
def test_bounds_hold_where_a_few_states_fit_badly(length: int) -> None:
    kernel = modes(0, 3, length)
    for disturbance in (1e-12, 1e-6, 1e-2):
        disturbed = (kernel + disturbance * irregular(1, length))[None]
        assert float(check(disturbed, 30 * disturbance).max()) > disturbance


@pytest.mark.parametrize("dropped", [1e-3, 1e-7])
def test_bounds_hold_where_states_are_left_out(dropped: float) -> None:
    check(torch.stack([modes(0, 8, 130), bump(130), 1 / (1 + torch.arange(130).double())]), dropped)


def test_small_values_are_within_the_bound_of_exact_ones() -> None:
    kernel = modes(2, 4, 64)
    chunks, _ = chunks_of(kernel[None])
    position = 21
    found = chunks.spectra(torch.tensor([position // WIDTH]), torch.tensor([position % WIDTH]))[0]
    with mpmath.workdps(40):
        block = mpmath.matrix(hankel_matrix(kernel, 64 - position, position).tolist())
        exact = list(mpmath.svd_r(block, compute_uv=False))
    bound = float(chunks.error[position // WIDTH])
    assert bound < 1e-11 * float(exact[0])
    for value, sigma in zip(found.tolist(), exact, strict=False):
        assert abs(mpmath.mpf(value) - sigma) <= bound


def test_kernels_of_a_batch_are_told_apart() -> None:
    length = 400
    # Noise needs too many states, and no powers of a matrix make the late kernel.
    others = [irregular(0, length), late(length), 0 * bump(length)]
    kernels = torch.stack([modes(0, 2, length), *others, modes(1, 6, length)])
    chunks, entries = chunks_of(kernels)
    assert entries.tolist() == [0, 3, 4]
    error = chunks.error.reshape(3, -1)
    assert bool((error[0] < 1e-10).all())
    assert bool((error[1] == 0).all())
    assert bool((error[2] < 1e-10).all())
    alone, _ = chunks_of(kernels[:1])
    torch.testing.assert_close(error[0], alone.error, rtol=0.3, atol=0)


def test_each_kernel_of_a_batch_takes_its_own_number_of_states() -> None:
    lag = torch.arange(100, dtype=torch.float64)
    kernels = torch.stack([0 * lag, 0.9**lag, 0.9**lag + (-0.5) ** lag, 0.9**lag * (1 + lag) + (-0.5) ** lag])
    found = realise(kernels, WIDTH, VECTORS, 1e-11)
    assert found is not None
    assert found[0].observability.any(1).sum(-1).tolist() == [0, 1, 2, 3]


def test_growing_modes() -> None:
    lag = torch.arange(100, dtype=torch.float64)
    assert float(check(torch.exp(lag / 30)[None]).max()) < 1e-9


def test_nothing_is_realised_of_noise() -> None:
    assert realise(irregular(0, 200)[None, 1:], WIDTH, VECTORS, 1e-11) is None


def test_what_no_states_make_is_not_trusted() -> None:
    found = realise(late(300)[None, 1:], WIDTH, VECTORS, 1e-11)
    assert found is None or float(found[0].chunks(WIDTH).error.min()) > 0.1


def test_the_callers_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    realise(modes(0, 2, 64)[None, 1:], WIDTH, VECTORS, 1e-11)
    assert torch.equal(before, torch.random.get_rng_state())
