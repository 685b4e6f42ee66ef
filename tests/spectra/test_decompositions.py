import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.agreement import agree
from oracles.kernels import irregular, late

from statesize.operators import Convolution
from statesize.spectra.convolution import ConvolutionEngine
from statesize.spectra.cut import make_cut
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.realisation import block_shapes, decomposed


def check(operator: Convolution, **cut_by: object) -> None:
    cut = make_cut(operator.length, **cut_by)
    found, expected = decomposed(operator, cut), DenseEngine().blocks(operator, cut)
    assert found.values.shape == expected.values.shape
    off = (found.values - expected.values).abs()
    assert bool((off <= (found.error_bound + expected.error_bound)[..., None]).all())
    agree(found, expected)


@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(1, 45))
def test_values_agree_with_the_definition(seed: int, length: int, taps: int) -> None:
    check(Convolution(irregular(seed, taps), length))


@given(st.integers(0, 2**31), st.integers(8, 40), st.integers(1, 45), st.integers(1, 7), st.integers(1, 7))
def test_windows_agree_with_the_definition(seed: int, length: int, taps: int, past: int, future: int) -> None:
    operator = Convolution(irregular(seed, taps), length)
    for window in ({"past": past}, {"future": future}, {"past": min(past, length - future), "future": future}):
        check(operator, **window)


@pytest.mark.parametrize("kernel", [torch.zeros(6).double(), torch.zeros(1).double(), torch.ones(1).double(), late(21)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30, 1e-200])
def test_kernels_of_few_taps(kernel: torch.Tensor, scale: float) -> None:
    check(Convolution(kernel * scale, 21))


def test_batches_positions_and_none() -> None:
    operator = Convolution(irregular(0, 7, (2, 3)), 17)
    check(operator, positions=[16, 3, 3, 14])
    assert decomposed(operator[:0], make_cut(17)).values.shape == (0, 3, 16, 8)
    assert decomposed(operator, make_cut(17, [])).values.shape[:-1] == (2, 3, 0)


def test_equal_blocks_are_decomposed_once() -> None:
    assert set(block_shapes(make_cut(1000), 5)) == {(4, 1), (4, 2), (4, 3), (4, 4)}
    assert set(block_shapes(make_cut(100, past=20, future=30), 100)) == {(30, 20)}
    assert len(set(block_shapes(make_cut(50), 50))) == 25


def test_gradients_are_those_of_the_definition() -> None:
    kernel = irregular(1, 9).requires_grad_()
    weight = irregular(2, 11 * 6).reshape(11, 6)
    gradients = [
        torch.autograd.grad((blocks(Convolution(kernel, 12), make_cut(12)).singular_values() * weight).sum(), kernel)[0]
        for blocks in (ConvolutionEngine().blocks, DenseEngine().blocks)
    ]
    torch.testing.assert_close(*gradients)


def test_small_values_are_within_their_bound_of_exact_ones() -> None:
    # 1 / (1 + lag) has singular values that fall to 1e-15 of the largest and further.
    kernel = 1 / torch.arange(1, 25, dtype=torch.float64)
    found = decomposed(Convolution(kernel, 24), make_cut(24, [9, 15, 12]))
    for place, (rows, columns) in enumerate(((15, 9), (9, 15), (12, 12))):
        with mpmath.workdps(40):
            block = mpmath.matrix(rows, columns)
            for r in range(rows):
                for c in range(columns):
                    block[r, c] = mpmath.mpf(float(kernel[1 + r + c]))
            exact = mpmath.svd_r(block, compute_uv=False)
        bound = float(found.error_bound[place])
        assert bound < 1e-13
        for value, sigma in zip(found.values[place].tolist(), list(exact), strict=False):
            assert abs(mpmath.mpf(value) - sigma) <= bound
