import numpy as np
import pytest
import torch
from oracles.recurrences import STRUCTURES, random_recurrence

from statesize.operators.transition import FullTransition
from statesize.spectra.exact.sliding_window import _SMALLEST_BLOCK, Products, spectral_bound, window_factors


def gramians(A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, past: int, future: int) -> tuple[torch.Tensor, ...]:
    """Sums over the windows, term by term, of full transitions (L, n, n)."""
    length, n = B.shape
    reach, observe = torch.zeros(length, n, n, dtype=B.dtype), torch.zeros(length, n, n, dtype=B.dtype)
    for t in range(length):
        carried = torch.eye(n, dtype=B.dtype)
        for s in range(t, max(t - past, -1), -1):
            column = carried @ B[s, :, None]
            reach[t] += column @ column.mH
            carried = carried @ A[s]
        carried = torch.eye(n, dtype=B.dtype)
        for s in range(t, min(t + future, length)):
            carried = A[s] @ carried
            row = C[s, None] @ carried
            observe[t] += row.mH @ row
    return reach, observe


def assert_factors_are_those_of_the_gramians(structure: str, length: int, past: int | None, future: int | None) -> None:
    real = random_recurrence(structure, 0, length, 4).with_real_output()
    found = window_factors(real.transition, real.B, real.C, past, future)
    n = real.B.shape[-1]
    A = real.A if real.A.ndim == 3 else torch.diag_embed(real.A.expand(length, n))
    expected = gramians(A, real.B, real.C, past or length, future or length)
    for factors, gramian in zip(found, expected, strict=True):
        torch.testing.assert_close(factors.factor @ factors.factor.mH, gramian, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(factors.norm.square(), gramian.diagonal(0, -2, -1).real.sum(-1))
        assert factors.factor.shape[-1] <= n
        assert bool((factors.error <= 1e-11 * factors.norm.amax()).all())


@pytest.mark.few(12)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("past", "future"), [(1, 2), (3, 7), (16, 11), (None, 19), (13, None)])
def test_factors_are_those_of_the_gramians(structure: str, past: int | None, future: int | None) -> None:
    assert_factors_are_those_of_the_gramians(structure, 21, past, future)


@pytest.mark.parametrize(("past", "future"), [(None, 5), (6, None), (None, None), (40, 37)])
def test_windows_of_more_than_a_block(past: int | None, future: int | None) -> None:
    # Three blocks of _SMALLEST_BLOCK steps, the last of them shorter.
    assert_factors_are_those_of_the_gramians(STRUCTURES[0], 2 * _SMALLEST_BLOCK + 11, past, future)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_products_over_eight_steps(structure: str) -> None:
    transition = random_recurrence(structure, 1, 19, 4).transition
    products = Products.of(transition)
    for steps in (1, 2, 4):
        products = products.doubled(steps)
    full = random_recurrence(structure, 1, 19, 4).A
    full = full if full.ndim == 3 else torch.diag_embed(full)
    expected = [torch.linalg.multi_dot([full[s] for s in range(t + 7, t - 1, -1)]) for t in range(12)]
    matrix = torch.diag_embed(products.matrix.squeeze(-1)) if products.diagonal else products.matrix
    torch.testing.assert_close(matrix, torch.stack(expected), rtol=1e-12, atol=1e-14)
    assert bool((products.gain >= torch.linalg.matrix_norm(torch.stack(expected), 2) * (1 - 1e-12)).all())


def test_products_know_what_cancelled() -> None:
    g = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(2, 4, 4, generator=g, dtype=torch.float64)).Q
    stretch = rotation[0] * torch.logspace(3.5, -3.5, 4, dtype=torch.float64) @ rotation[1]
    A = torch.stack([stretch, torch.linalg.inv(stretch)]).repeat(8, 1, 1)
    products = Products.of(FullTransition(A))
    for steps in (1, 2, 4):
        products = products.doubled(steps)
    exact = np.eye(4, dtype=np.longdouble)
    for step in A[:8].numpy().astype(np.longdouble):
        exact = step @ exact
    error = float(torch.linalg.matrix_norm(torch.from_numpy((products.matrix[0].numpy() - exact).astype(float)), 2))
    assert 1e-12 < error <= float(products.error[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_spectral_bound_is_above_and_near(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    n = 24
    scale = torch.tensor([1e-200, 1e-3, 1.0, 1e200], dtype=torch.float64)[:, None, None]
    matrix = torch.randn(4, n, n, generator=g, dtype=dtype) * scale
    orthogonal = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=dtype)).Q
    graded = torch.diag(torch.logspace(0, -30, n, dtype=torch.float64)).to(dtype)
    for case in (matrix, orthogonal, graded):
        norm = torch.linalg.matrix_norm(case, 2)
        assert bool((spectral_bound(case) >= norm).all())
        assert bool((spectral_bound(case) <= 1.02 * n ** (1 / 16) * norm).all())
    assert float(spectral_bound(torch.zeros(n, n, dtype=dtype))) == 0
