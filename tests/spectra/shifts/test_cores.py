import numpy as np
import pytest

from statesize.spectra.shifts.tridiagonal_cores import eliminate_around_cores
from statesize.spectra.shifts.tridiagonal_reduction import tridiagonalise


@pytest.mark.parametrize(
    ("b", "readouts"), [(16, 1), (16, 3), *(pytest.param(32, some, marks=pytest.mark.slow) for some in (1, 4))]
)
@pytest.mark.parametrize("shifts", [(-0.4, -0.4), (0.3, -0.3)])
def test_core_and_chunk_as_one_matrix(b, readouts, shifts):
    rng = np.random.default_rng(b)
    sizes = [0, 1, 5, 32, 33, 70, 3]
    N, first = len(sizes), np.concatenate([[0], np.cumsum(sizes)])
    of_past = rng.random(N) < 0.5
    diagonal, beside = rng.random(first[-1]) + 1, 0.3 * rng.random(first[-1])
    beside[first[1:][np.array(sizes) > 0] - 1] = 0
    borders = rng.standard_normal((first[-1], (readouts + 1) * b)) / 10
    rows = readouts * b
    gram, inside = rng.standard_normal((N, rows, rows)), rng.standard_normal((N, rows, b))
    gram = gram @ gram.transpose(0, 2, 1)
    order = np.array([3, 0, 6, 5, 4, 2, 1, 5, 5, 3])
    a, c = (np.full(len(order), shift) * rng.uniform(0.9, 1.1, len(order)) for shift in shifts)
    shape = len(order), b
    positive, logarithm, size = np.empty(shape, np.int64), np.empty(shape), np.empty(shape)
    cores = of_past, first, diagonal, beside, borders.ravel(), gram, inside
    eliminate_around_cores(order, a, c, *cores, positive, logarithm, size)
    for m, k in enumerate(order):
        low, high = first[k], first[k + 1]
        below = beside[low : max(low, high - 1)]
        theta = np.diag(diagonal[low:high]) + (np.diag(below, 1) + np.diag(below, -1) if len(below) else 0)
        coupling = borders[low:high].copy()
        if of_past[k]:
            outer, inner, of_rows, of_columns = a[m], c[m], 0 * gram[k], gram[k, :b, :b] / a[m]
            coupling[:, rows:] /= -a[m]
        else:
            outer, inner, of_rows, of_columns = c[m], a[m], gram[k] / c[m], 0 * gram[k, :b, :b]
            coupling[:, :rows] /= -c[m]
        p = high - low
        chunk = np.block([[a[m] * np.eye(rows) - of_rows, inside[k]], [inside[k].T, c[m] * np.eye(b) - of_columns]])
        whole = np.block([[inner * np.eye(p) - theta / outer, coupling], [coupling.T, chunk]])
        for j in range(b):
            kept = [*range(p), *range(p + readouts * j, p + rows), *range(p + rows, p + rows + j)]
            block = whole[np.ix_(kept, kept)]
            eigenvalues = np.linalg.eigvalsh(block)
            assert positive[m, j] == (eigenvalues > 0).sum()
            doubt = 1e-13 * size[m, j] / np.abs(eigenvalues).min()
            assert abs(logarithm[m, j] - np.linalg.slogdet(block).logabsdet) <= doubt


@pytest.mark.few(4)
@pytest.mark.parametrize("p", [8, 24, 64])
@pytest.mark.parametrize("scale", [1.0, 1e-140, 1e-290])
def test_tridiagonal_forms(p, scale):
    rng = np.random.default_rng(p)
    half = rng.standard_normal((4, p, p // 2))
    gram = half @ half.transpose(0, 2, 1)
    # A diagonal one, one that falls apart, and zeros.
    gram[1] *= np.eye(p)
    gram[2, : p // 2, p // 2 :] = gram[2, p // 2 :, : p // 2] = 0
    gram[3] = 0
    gram *= scale
    whole, (diagonal, beside) = np.concatenate([gram, np.tile(np.eye(p), (4, 1, 1))], -1), np.empty((2, 4, p))
    tridiagonalise(whole, diagonal, beside)
    for k in range(4):
        theta = np.diag(diagonal[k]) + np.diag(beside[k, :-1], 1) + np.diag(beside[k, :-1], -1)
        rotation = whole[k, :, p:]
        assert beside[k, -1] == 0
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(p), atol=1e-14 * p)
        np.testing.assert_allclose(rotation @ gram[k] @ rotation.T, theta, atol=1e-15 * p * np.trace(gram[k]))
