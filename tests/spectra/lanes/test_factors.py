import numba
import numpy as np
import pytest

from statesize.spectra.lanes.eigenvalues import WIDTH
from statesize.spectra.lanes.spectra import append, factor_size, squared_product
from statesize.spectra.lanes.vectors import store


@numba.njit
def appended(source, from_, target, to, scale, row, n, norm):
    store(norm, 0, append(source, from_, target, to, scale, row, n))


@numba.njit
def squared(S, from_, L, product, gram, n, total):
    store(total, 0, squared_product(S, from_, L, product, gram, n))


def packed(R: np.ndarray) -> np.ndarray:
    """(8, n, n) upper triangles as the kernels hold them."""
    rows = [R[:, i, i - i % 2 :] for i in range(R.shape[1])]
    return np.ascontiguousarray(np.concatenate(rows, 1).T).ravel()


def unpacked(factor: np.ndarray, n: int) -> np.ndarray:
    R, lanes, k = np.zeros((WIDTH, n, n)), factor.reshape(-1, WIDTH), 0
    for i in range(n):
        first = i - i % 2
        R[:, i, first:] = lanes[k : k + n - first].T
        k += n - first
    assert k == len(lanes)
    return R


@pytest.mark.parametrize("n", [2, 6, 16])
def test_a_row_is_appended(n: int) -> None:
    rng = np.random.default_rng(n)
    R, row, scale = np.triu(rng.standard_normal((WIDTH, n, n))), rng.standard_normal((WIDTH, n)), rng.random((WIDTH, n))
    R[2], row[3], scale[4] = 0, 0, 0
    R[5], row[5] = 0, 0
    size = factor_size(n) * WIDTH
    source, norm = np.concatenate([np.full(size, np.nan), packed(R)]), np.zeros(WIDTH)
    stacked = np.concatenate([R * scale[:, None], row[:, None]], 1)
    for target, to in ((np.full(size, np.nan), 0), (source.copy(), 1)):
        given = target if to else source
        place = to * factor_size(n)
        appended(given, factor_size(n), target, place, scale.T.ravel(), row.T.ravel().copy(), n, norm)
        new = unpacked(target[place * WIDTH :], n)
        np.testing.assert_array_equal(new, np.triu(new))
        np.testing.assert_allclose(
            np.swapaxes(new, 1, 2) @ new, np.swapaxes(stacked, 1, 2) @ stacked, atol=1e-14 * n, rtol=0
        )
        np.testing.assert_allclose(norm, np.linalg.norm(stacked, axis=(1, 2)), rtol=1e-14)


@pytest.mark.parametrize("n", [2, 6, 16])
def test_the_gram_matrix_of_a_product(n: int) -> None:
    rng = np.random.default_rng(n)
    S, L = np.triu(rng.standard_normal((2, WIDTH, n, n)))
    S[1], L[2] = 0, 1e-160 * L[2]
    buffers, total = np.full((2, n * n * WIDTH), np.nan), np.zeros(WIDTH)
    squared(np.concatenate([np.zeros(WIDTH), packed(S)]), 1, packed(L), buffers[0], buffers[1], n, total)
    M = S @ np.swapaxes(L, 1, 2)
    expected = np.linalg.norm(M, axis=(1, 2)) ** 2
    expected[2] = 0
    np.testing.assert_allclose(total, expected, rtol=1e-13)
    gram = np.tril(np.moveaxis(buffers[1].reshape(n, n, WIDTH), -1, 0))
    scaled = np.tril(np.swapaxes(M, 1, 2) @ M) / np.where(expected > 0, expected, np.inf)[:, None, None]
    np.testing.assert_allclose(gram, scaled, atol=1e-14)
